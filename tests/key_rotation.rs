//! The keys of an ad server change under a running node, and no click that is signed right is refused.

use weir_common::id::KeyId;
use weir_labs::door::{Door, token};

/// Gives the config other keys: each with its number and file.
fn give_keys(door: &Door, keys: &[(u16, &str)]) {
    let config = std::fs::read_to_string(door.folder.config()).expect("config");
    let lines = config.lines();
    // The labs' config has only keys with such lines.
    let is_of_a_key = |line: &&str| {
        ["[[keys]]", "issuer = ", "key = ", "file = "].iter().any(|begin| line.starts_with(begin))
    };
    let mut text: String = lines.filter(|line| !is_of_a_key(line)).map(|line| format!("{line}\n")).collect();
    for (number, file) in keys {
        text += &format!("[[keys]]\nissuer = 1\nkey = {number}\nfile = \"{file}\"\n");
    }
    std::fs::write(door.folder.config(), text).expect("config");
}

#[test]
fn a_key_is_rotated_under_a_running_node_and_its_text_is_in_no_log() {
    let door = Door::folder("").expect("folder");
    let mut node = door.folder.start_ready().expect("ready");
    let secret = rand::random::<u128>();
    let (mut sequence, url) = (0, door.url(""));
    let old = std::fs::read_to_string(door.folder.key()).expect("key");
    let old_secret = u128::from_str_radix(old.trim(), 16).expect("hex");
    let mut follow = |key: u16, secret: u128| {
        sequence += 1;
        let text = token(KeyId(key), secret, sequence);
        door.curl(&[&format!("{url}/v1/click/{text}")]).expect("curl").status
    };
    // A link under a key that the node does not hold leads nowhere.
    assert_eq!((follow(1, old_secret), follow(2, secret)), (302, 404));
    door.folder.write_private("next", &format!("{secret:032x}\n")).expect("key file");
    give_keys(&door, &[(1, "key"), (2, "next")]);
    node.reload_until_told("the keys are read again").expect("reload");
    assert_eq!((follow(1, old_secret), follow(2, secret)), (302, 302), "both are live");
    // What cannot be used replaces nothing.
    give_keys(&door, &[(2, "nowhere")]);
    node.reload_until_told("the keys are not replaced").expect("reload");
    assert_eq!((follow(1, old_secret), follow(2, secret)), (302, 302));
    give_keys(&door, &[(2, "next")]);
    node.reload_until_told("the keys are read again").expect("reload");
    assert_eq!((follow(1, old_secret), follow(2, secret)), (404, 302), "the old one is gone");
    let reasons = &node.status().expect("status")["clicks"]["reasons"];
    assert_eq!(reasons["unknown_key"], 2, "{reasons:#}");
    node.drain().expect("drain");
    let log = door.folder.log_text();
    assert!(!log.contains(old.trim()) && !log.contains(&format!("{secret:032x}")), "a key is in the log");
}
