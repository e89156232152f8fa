//! What a node writes of users: keyed by the day, gone with the day's salt, and nothing of who asks for that.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use weir_common::siphash::{SipKey, siphash24};
use weir_labs::Node;
use weir_labs::door::Door;

const USER: u64 = 0x1122_3344_5566_7788;
const SALT: u128 = 0x0102_0304_0506_0708_090a_0b0c_0d0e_0f10;

/// A worker, without the window that would make a second click of a user a repeat, and what it does with users.
fn privacy(keys: &str) -> String {
    format!("\n[workers]\ncores = [0]\n[traffic]\nrefractory = \"0s\"\n[privacy]\n{keys}\n")
}

/// Today's salt, and that of the day that may begin meanwhile.
fn write_salts(folder: &Path) {
    for days in 0..2 {
        let day = jiff::Timestamp::now() + jiff::SignedDuration::from_hours(24 * days);
        let file = folder.join(format!("{}.hex", day.strftime("%Y-%m-%d")));
        fs::write(&file, format!("{SALT:032x}\n")).expect("salt");
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).expect("mode");
    }
}

fn post(door: &Door, number: u64, fields: &[&str]) {
    let click = format!("{{\"event_id\":\"{number:032x}\",\"ad_id\":1,\"user_id\":{USER}}}");
    let reply = door.post_with("application/json", click.as_bytes(), fields).expect("curl");
    assert_eq!(reply.statuses(), ["created"], "{reply:?}");
}

/// How often these octets stand in what the node has written: its journal and its store.
fn count(door: &Door, octets: u64) -> usize {
    door.folder.times_written(&octets.to_le_bytes()).expect("files")
}

fn unsalted(node: &Node<'_>) -> u64 {
    node.status().expect("status")["workers"][0]["users_unsalted"].as_u64().expect("a number")
}

#[test]
fn a_users_key_is_written_under_the_salt_of_the_day_and_not_at_all_without_one() {
    let salts = tempfile::tempdir().expect("folder");
    let salts = salts.path();
    write_salts(salts);
    let door =
        Door::folder(&privacy(&format!("salts = \"brought\"\nsalts_dir = {salts:?}"))).expect("folder");
    let mut node = door.folder.start_ready().expect("ready");
    let pseudonym = siphash24(&SipKey::from_bytes(SALT.to_be_bytes()), &[USER]);
    post(&door, 1, &[]);
    node.wait_until("the row is written", |_| count(&door, pseudonym) > 0).expect("a row");
    assert_eq!((count(&door, USER), unsalted(&node)), (0, 0));
    let before = count(&door, pseudonym);
    for file in fs::read_dir(salts).expect("salts") {
        fs::remove_file(file.expect("salt").path()).expect("destroyed");
    }
    let told = "days=0";
    node.reload().expect("SIGHUP");
    node.wait_until(told, |_| door.folder.log_text().contains(told)).expect("reload");
    post(&door, 2, &[]);
    assert_eq!(unsalted(&node), 1, "nobody's, for the day has no salt");
    node.drain().expect("drain");
    let found = door.folder.audit(None).expect("audit");
    assert_eq!((&found["audit"]["sound"], &found["audit"]["rows"]), (&true.into(), &2.into()), "{found:#}");
    assert_eq!(count(&door, USER), 0);
    // The store has the first row beside the journal by now, and no other.
    assert!((before..=before + 1).contains(&count(&door, pseudonym)));
}

#[test]
fn of_who_does_not_want_to_be_tracked_no_user_is_written() {
    let door = Door::folder(&privacy("salts = \"none\"")).expect("folder");
    let node = door.folder.start_ready().expect("ready");
    post(&door, 1, &["--header", "Sec-GPC: 1"]);
    post(&door, 2, &["--header", "DNT: 1"]);
    node.drain().expect("drain");
    assert_eq!(count(&door, USER), 0);
    let node = door.folder.start_ready().expect("ready");
    post(&door, 3, &["--header", "DNT: 0"]);
    node.drain().expect("drain");
    assert!(count(&door, USER) > 0, "a test that cannot see a key proves nothing");
}

#[test]
fn a_node_that_draws_salts_has_them_before_its_first_click() {
    let door = Door::folder(&privacy("")).expect("folder");
    let node = door.folder.start_ready().expect("ready");
    post(&door, 1, &[]);
    assert_eq!(unsalted(&node), 0);
    node.drain().expect("drain");
    assert_eq!(count(&door, USER), 0);
    let salts = fs::read_dir(door.folder.path().join("data/salts")).expect("salts").count();
    assert!(
        (2..=3).contains(&salts),
        "{salts}: of today and tomorrow, also where tomorrow has come meanwhile"
    );
}
