//! A POP from nothing: hosts in containers, the playbooks of the collection, and clicks.

mod pop;

use std::path::Path;
use std::time::Duration;

use pop::{Lab, PACKAGES, RATE, say};

/// Where the collection puts packages on a node.
const KEPT: &str = "/var/cache/weir-packages";

fn name(package: &Path) -> &str {
    package.file_name().and_then(|name| name.to_str()).expect("a name")
}

#[test]
fn hosts_with_nothing_become_a_pop_as_foretold_and_a_second_run_changes_nothing() {
    let Some(lab) = Lab::new() else { return };
    // By the oldest Ansible, and the run by the newest: both have to see the same.
    let foretold = lab.run_by_least("site", &["--check", "--diff"]).well().expect("foretold");
    let done = lab.run("site", &[]).well().expect("installed");
    assert_eq!(foretold.changes(), done.changes(), "{}\n{}", foretold.text, done.text);
    for host in ["pop-1", "pop-2", "pop-3", "monitoring"] {
        assert!(done.changes().get(host).is_some_and(|changes| changes.len() > 2), "{host}: {}", done.text);
    }
    lab.nothing_changes("site", &[]);
    lab.pop.wait_until_announced(3).expect("announced");
    lab.nothing_changes("verify", &[]);

    let said = lab.run("loadtest", &[]).well().expect("clicks with answers").text;
    assert!(said.contains("Say what became of them"), "{said}");
    let received: Vec<_> = (1..=3).map(|node| lab.status(node)["clicks"]["received"].as_u64()).collect();
    assert_eq!(received.iter().flatten().sum::<u64>(), 2000, "{received:?}");
    assert!(
        received.iter().flatten().filter(|count| **count > 0).count() > 1,
        "one node got all: {received:?}"
    );

    say("a key more, and then a config that differs");
    let runs = lab.process(1);
    let key = "{\"weir_keys\": [{\"issuer\": 1, \"key\": 1, \"secret\": \"000102030405060708090a0b0c0d0e0f\"}, \
               {\"issuer\": 1, \"key\": 2, \"secret\": \"0f0e0d0c0b0a09080706050403020100\"}]}";
    let reloaded = lab.run("site", &["--limit", "pop-1", "--extra-vars", key]).well().expect("a key more");
    assert!(
        reloaded.changes()["pop-1"].contains(&"weir.pop.weir : Reload the node".to_owned()),
        "{}",
        reloaded.text
    );
    assert!(!reloaded.text.contains("0f0e0d0c0b0a0908"), "a secret is told");
    assert_eq!(lab.process(1), runs, "keys need no restart");
    let other = [
        "--limit",
        "pop-1",
        "--extra-vars",
        "{\"nic_links\": [], \"weir_dropins\": {\"memory\": \"[Service]\\n\"}}",
    ];
    lab.run("site", &other).well().expect("another unit");
    assert_ne!(lab.process(1), runs, "what only a start reads needs one");
    assert!(!lab.has(1, "/etc/systemd/network/10-weir-uplink.link"), "a card that is listed no more");

    say("the way back");
    assert!(lab.has(2, "/etc/sysctl.d/80-weir.conf"));
    lab.run("site", &["--tags", "revert", "--limit", "pop-2"]).well().expect("reverted");
    for path in
        ["sysctl.d/80-weir.conf", "tmpfiles.d/weir-hugepages.conf", "systemd/network/10-weir-uplink.link"]
    {
        assert!(!lab.has(2, &format!("/etc/{path}")), "{path}");
    }
    lab.nothing_changes("verify", &[]);
}

#[test]
fn a_pop_under_load_loses_no_click_to_an_upgrade_a_way_back_or_a_lost_node() {
    let Some(mut lab) = Lab::new() else { return };
    lab.run("site", &[]).well().expect("installed");
    lab.pop.wait_until_announced(3).expect("announced");
    let packages = PACKAGES.as_ref().expect("packages");

    say("an upgrade that the first node's program refuses");
    let before: Vec<_> = (1..=3).map(|node| lab.process(node)).collect();
    let refused = lab.run("upgrade", &["--extra-vars", "{\"weir_config\": {\"node\": {\"id\": 0}}}"]);
    assert!(!refused.is_success && refused.changes().is_empty(), "{}", refused.text);
    assert!(refused.text.contains("node.id"), "it says what is wrong: {}", refused.text);
    assert!(!refused.text.contains("[pop-2]") && !refused.text.contains("[pop-3]"), "{}", refused.text);
    assert_eq!((1..=3).map(|node| lab.process(node)).collect::<Vec<_>>(), before);

    say("a node that is drained");
    let all = lab.run("drain", &[]);
    assert!(!all.is_success && all.text.contains("nobody would take clicks"), "{}", all.text);
    lab.run("drain", &["--limit", "pop-3"]).well().expect("drained");
    lab.pop.wait_until_announced(2).expect("one is out");
    lab.nothing_changes("drain", &["--limit", "pop-3"]);
    lab.run("undrain", &["--limit", "pop-3"]).well().expect("back");
    lab.pop.wait_until_announced(3).expect("it is back");

    say("a drain that was broken off");
    lab.pop.on(3, "echo finishing > /var/lib/weir/drained").expect("written");
    let foretold = lab.run("drain", &["--limit", "pop-3", "--check"]).well().expect("foretold");
    let gone_on = lab.run("drain", &["--limit", "pop-3"]).well().expect("gone on with");
    assert_eq!(foretold.changes(), gone_on.changes(), "{}", gone_on.text);
    lab.pop.wait_until_announced(2).expect("it is out");
    lab.run("undrain", &["--limit", "pop-3"]).well().expect("back");
    lab.pop.wait_until_announced(3).expect("it is back");

    let kept = |package: &Path| lab.has(1, &format!("{KEPT}/{}", name(package)));
    let older = Path::new("weir_0.0.1_amd64.deb");
    lab.pop.on(1, &format!("touch {KEPT}/{}", name(older))).expect("an older package");
    let mut clicks = 0;
    for (playbook, package) in [("upgrade", &packages.next), ("rollback", &packages.first)] {
        let given = format!("weir_package={}", package.display());
        let (run, sent) = lab.run_under_load(playbook, &["--extra-vars", &given]);
        let run = run.well().expect(playbook);
        clicks += sent;
        for node in 1..=3 {
            let version = name(package).split('_').nth(1).expect("a version");
            assert_eq!(lab.version(node), version, "{}", run.text);
        }
        assert!(kept(&packages.first) && kept(&packages.next) && !kept(older), "two are kept");
        lab.pop.wait_until_announced(3).expect("all are back");
        lab.nothing_changes("verify", &[]);
    }

    say("a node that is lost");
    let load = lab.load(RATE, Duration::from_secs(8));
    let lost = lab.one_that_counts();
    lab.pop.lose(lost).expect("lost");
    lab.pop.wait_until_announced(2).expect("withdrawn");
    clicks += lab.all_answered(load);
    let alone = lab.run("verify", &[]);
    assert!(!alone.is_success && alone.text.contains(&format!("fatal: [pop-{lost}]")), "{}", alone.text);
    lab.pop.boot_again(lost).expect("booted");
    lab.pop.wait_until_announced(3).expect("announced");
    lab.nothing_changes("verify", &[]);

    say("every click that was acknowledged is in a store");
    let kept_sockets = || [1, 2, 3].map(|node| lab.sockets_kept(node));
    assert!(kept_sockets().iter().all(|count| *count > 0), "{:?}", kept_sockets());
    let stored: u64 = (1..=3).map(|node| lab.stored(node)).sum();
    assert_eq!(kept_sockets(), [0; 3], "a stop closes them");
    assert!(stored >= clicks, "acknowledged {clicks}, stored {stored}");
}
