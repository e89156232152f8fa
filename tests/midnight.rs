//! A node that runs over midnight: users are others the next day, segments have another key, and both are destroyed
//! once nothing needs them any more; no click is lost or counted twice for it.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use weir::day::Day;
use weir_common::siphash::{SipKey, siphash24};
use weir_common::time::UnixMs;
use weir_common::wire::Click;
use weir_labs::clicks::{numbered, send};
use weir_labs::clock::{Error, WrongClock};
use weir_labs::{Node, NodeFolder, Setup};

const CLICKS: u128 = 50;
/// Enough to start a node and to send it clicks, on a slow machine too.
const BEFORE_MIDNIGHT_S: u64 = 20;
const DAY_S: u64 = 86_400;
/// Rows are final and digested, salts are kept an hour longer than clicks may be late.
const LATER_S: u64 = 3 * 3600;

struct Lab {
    folder: NodeFolder,
    clock: WrongClock,
    secrets: tempfile::TempDir,
    user: u64,
    /// How far the node's clock is ahead of this machine's.
    ahead_s: u64,
}

impl Lab {
    /// A node to which it is moments before midnight. None, with the reason printed, where no such node is built.
    fn new() -> Option<Self> {
        if let Some(why) = WrongClock::unavailable() {
            println!("skipped: {why}");
            return None;
        }
        let secrets = tempfile::tempdir().expect("folder");
        let (keys, salts) = (secrets.path().join("keys"), secrets.path().join("salts"));
        let journal = format!("segment_size = \"4MiB\"\nencrypt = true\nkeys_dir = {keys:?}");
        let config = format!(
            "[workers]\ncores = [0]\n[traffic]\nrefractory = \"0s\"\n[forward]\ninterval = \"200ms\"\n\
             [privacy]\nsalts_dir = {salts:?}\n"
        );
        let setup = Setup { journal: Some(&journal), config: &config, ..Setup::default() };
        let mut folder = NodeFolder::with(setup).expect("folder");
        let clock = WrongClock::of(&mut folder);
        let now_ms = system_ms();
        let to_midnight_s = (Day::of(UnixMs(now_ms)).end().0 - now_ms) / 1000;
        // The next midnight but one where this machine's own is as near.
        let ahead_s =
            to_midnight_s.checked_sub(BEFORE_MIDNIGHT_S).unwrap_or(to_midnight_s + DAY_S - BEFORE_MIDNIGHT_S);
        let lab = Self { folder, clock, secrets, user: rand::random(), ahead_s };
        lab.shift(ahead_s);
        Some(lab)
    }

    fn shift(&self, ahead_s: u64) {
        self.clock.set(Error::Seconds(ahead_s.cast_signed())).expect("clock");
    }

    /// What the node's clock says.
    fn now(&self) -> UnixMs {
        UnixMs(system_ms() + self.ahead_s * 1000)
    }

    /// Waits until it is so late at the node.
    fn wait_until(&self, then: UnixMs) {
        std::thread::sleep(Duration::from_millis(then.0.saturating_sub(self.now().0)));
    }

    /// Clicks of the one user, made at this time.
    fn clicks(&self, first: u128, clicked_at: UnixMs) -> Vec<Click> {
        let of_user =
            |click| Click { user_key: self.user.into(), clicked_at_ms: clicked_at.0.into(), ..click };
        numbered(first, CLICKS).into_iter().map(of_user).collect()
    }

    /// The key under which the user is written in the minutes of a day.
    fn pseudonym(&self, day: Day) -> u64 {
        let text = fs::read_to_string(self.salt(day)).expect("salt");
        let salt = u128::from_str_radix(text.trim(), 16).expect("hex digits");
        siphash24(&SipKey::from_bytes(salt.to_be_bytes()), &[self.user])
    }

    fn salt(&self, day: Day) -> PathBuf {
        self.secrets.path().join("salts").join(format!("{day}.hex"))
    }

    /// The days of the keys there are.
    fn key_days(&self) -> Vec<Day> {
        let folders = files(&self.secrets.path().join("keys"));
        let names = folders.iter().flat_map(|folder| files(folder));
        let mut days: Vec<Day> = names
            .map(|path| path.file_name().unwrap().to_str().unwrap()[..10].parse().expect("a day"))
            .collect();
        days.sort();
        days
    }

    fn times_written(&self, number: u64) -> usize {
        self.folder.times_written(&number.to_le_bytes()).expect("files")
    }

    fn send(&self, clicks: &[Click]) -> (u64, u64) {
        let books = send(&self.folder, clicks).expect("answers");
        (books.acked_created, books.acked_exists)
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    fs::read_dir(folder).expect("folder").map(|entry| entry.expect("entry").path()).collect()
}

fn system_ms() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_millis() as u64
}

fn is_flushed(node: &mut Node<'_>, rows: u64) {
    node.wait_until("flushed", |status| status["forward"]["rows"].as_u64() >= Some(rows)).expect("flushed");
}

#[test]
fn over_midnight_no_click_is_lost_users_change_and_keys_of_the_day_before_are_destroyed() {
    let Some(mut lab) = Lab::new() else { return };
    let first_day = Day::of(lab.now());
    let midnight = first_day.end();
    let mut node = lab.folder.start_ready().expect("ready");
    let evening = lab.clicks(1_000, lab.now());
    assert_eq!(lab.send(&evening), (50, 0));
    assert!(lab.now() < midnight, "the machine was too slow to send clicks before midnight");
    assert_eq!(lab.key_days(), [first_day]);
    lab.wait_until(UnixMs(midnight.0 + 1_000));
    // Clicked before midnight, received after it: one of the minute it was clicked in.
    let held_up = lab.clicks(2_000, UnixMs(midnight.0 - 30_000));
    let morning = lab.clicks(3_000, UnixMs(midnight.0 + 500));
    assert_eq!((lab.send(&held_up), lab.send(&morning)), ((50, 0), (50, 0)));
    assert_eq!(lab.key_days(), [first_day, first_day.next()]);
    is_flushed(&mut node, 150);
    let (before, after) = (lab.pseudonym(first_day), lab.pseudonym(first_day.next()));
    assert_eq!(
        [before, after, lab.user].map(|user| lab.times_written(user)),
        [100, 50, 0],
        "in the store; the journal is encrypted"
    );

    node.kill().expect("kill");
    let mut node = lab.folder.start_ready().expect("ready");
    let all = [evening, held_up, morning].concat();
    assert_eq!(lab.send(&all), (0, 150), "a crash over midnight forgets nothing");
    node.drain().expect("drain");

    lab.ahead_s += LATER_S;
    lab.shift(lab.ahead_s);
    // A stop this long looks like a clock that is ahead: nothing is destroyed by a clock in doubt, and users are
    // written under the salts that are there.
    node = lab.folder.start_ready().expect("ready");
    assert_eq!(node.status().expect("status")["time"]["doubt"], "ahead_of_journal");
    let in_doubt = lab.clicks(4_000, UnixMs(midnight.0 + 700));
    assert_eq!(lab.send(&in_doubt), (50, 0));
    assert!(lab.salt(first_day).exists() && lab.key_days().contains(&first_day));
    node.drain().expect("drain");
    assert_eq!([after, lab.user].map(|user| lab.times_written(user)), [100, 0]);
    let all = [all, in_doubt].concat();

    node = lab.folder.start_with(&["--clock-is-right"]).expect("start");
    node.wait_until_ready().expect("ready");
    node.wait_until("rid of the salt", |_| !lab.salt(first_day).exists()).expect("destroyed");
    node.wait_until("rid of the key", |_| !lab.key_days().contains(&first_day)).expect("destroyed");
    assert!(lab.salt(first_day.next()).exists() && lab.key_days().contains(&first_day.next()));
    assert_eq!(lab.send(&all), (0, 200), "digests know them still");
    node.drain().expect("drain");
    let audit = &lab.folder.audit(None).expect("audit")["audit"];
    assert_eq!((&audit["sound"], &audit["rows"]), (&true.into(), &200.into()), "{audit:#}");
}
