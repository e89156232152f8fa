//! Invalid traffic at a whole node: flagged, counted under its reason and its rules, and never told to whoever
//! sends it.

use std::net::UdpSocket;
use std::time::Duration;

use serde_json::Value;
use weir_common::wire::{CLICK_LEN, Click, Header, click_flags, extension};
use weir_labs::Node;
use weir_labs::clicks::{numbered, send};
use weir_labs::door::{Door, click_json};
use zerocopy::IntoBytes;

/// The door of a node of two workers that judges by a list of data centres, empty yet, robots, and activity.
fn door() -> Door {
    let door = Door::folder(
        "\n[workers]\ncores = [0, 1]\n[traffic]\ndata_centres_file = \"centres.list\"\n\
         known_robots_file = \"robots.list\"\nactivity_keys = 1000\nclicks_per_second = 100\n",
    )
    .expect("folder");
    door.folder.write_private("centres.list", "# version: 1\n").expect("list");
    door.folder.write_private("robots.list", "# version: 1\nevilbot\n").expect("list");
    door
}

fn reasons(node: &Node<'_>) -> Value {
    node.status().expect("status")["clicks"]["reasons"].clone()
}

/// Clicks of one user, each with its number.
fn of_user(user: u64, numbers: std::ops::Range<u64>) -> String {
    let click = |n| format!("{{\"event_id\":\"{n:032x}\",\"ad_id\":1,\"user_id\":\"user-{user}\"}}");
    numbers.map(click).collect::<Vec<_>>().join("\n")
}

/// The audit of the drained node; its buckets are a recount of its rows, under the same rules.
fn audited(door: &Door) -> Value {
    let found = door.folder.audit(None).expect("audit");
    assert_eq!(
        (&found["audit"]["sound"], &found["audit"]["clicks_twice"]),
        (&true.into(), &0.into()),
        "{found:#}"
    );
    found["audit"].clone()
}

#[test]
fn a_flagged_click_is_acknowledged_like_any_other_and_counted_under_its_reason() {
    let door = door();
    let node = door.folder.start_ready().expect("ready");
    let answer = |number, agent: &str| {
        let reply = door.post_with(
            "application/json",
            click_json(number).as_bytes(),
            &["--user-agent", agent, "--header", "Date:"],
        );
        let reply = reply.expect("curl");
        // The date is that of the second.
        let told: Vec<_> =
            reply.head.lines().filter(|line| !line.to_lowercase().starts_with("date:")).collect();
        (reply.status, told.join("\n"), reply.body.clone())
    };
    let valid = answer(1, "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0");
    let robot = answer(2, "Mozilla/5.0 (compatible; EvilBot/2.1)");
    assert_eq!(valid, robot, "nobody can tell from outside");
    assert_eq!(reasons(&node)["robot"], 1);
    node.drain().expect("drain");
    let audit = audited(&door);
    // By number of the outcome: accepted and filtered.
    assert_eq!((&audit["outcomes"][0], &audit["outcomes"][4]), (&1.into(), &1.into()));
    assert_eq!(audit["unsigned"], 1, "and nobody pays for what nobody signed");
}

/// A datagram of one click of this user agent.
fn datagram(mut click: Click, agent: &str) -> Vec<u8> {
    let field_len = 3 + agent.len();
    click.extension_len = (field_len as u16).into();
    let header = Header { batch_id: 7.into(), ..Header::new(1, CLICK_LEN + field_len) };
    let mut bytes = [header.as_bytes(), click.as_bytes(), &[extension::USER_AGENT]].concat();
    bytes.extend_from_slice(&(agent.len() as u16).to_le_bytes());
    bytes.extend_from_slice(agent.as_bytes());
    bytes
}

#[test]
fn the_ack_of_a_flagged_datagram_is_that_of_a_valid_one_to_the_octet() {
    let door = door();
    let node = door.folder.start_ready().expect("ready");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    socket.connect(("127.0.0.1", door.folder.port())).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
    let ack = |click, agent| {
        socket.send(&datagram(click, agent)).expect("sent");
        let mut ack = [0; 2048];
        let len = socket.recv(&mut ack).expect("an ack");
        ack[..len].to_vec()
    };
    let clicks = numbered(1, 4);
    let browser = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0";
    let valid = ack(clicks[0], browser);
    assert_eq!((valid.len(), valid[16]), (17, 0), "created");
    assert_eq!(ack(clicks[1], "Mozilla/5.0 (compatible; EvilBot/2.1)"), valid, "a robot");
    for (click, flag) in [(clicks[2], click_flags::TEST), (clicks[3], click_flags::PREFETCH)] {
        assert_eq!(
            ack(Click { flags: click.flags | flag, ..click }, browser),
            valid,
            "a click that says so itself"
        );
    }
    let reasons = reasons(&node);
    let told = ["robot", "test_traffic", "prefetch"].map(|reason| reasons[reason].as_u64());
    assert_eq!(told, [Some(1); 3], "{reasons:#}");
    node.drain().expect("drain");
    let audit = audited(&door);
    assert_eq!((&audit["outcomes"][0], &audit["outcomes"][4]), (&1.into(), &3.into()));
}

#[test]
fn a_flagged_datagram_is_acknowledged_like_any_other_and_counted_under_its_reason() {
    let door = door();
    let mut node = door.folder.start_ready().expect("ready");
    let valid = send(&door.folder, &numbered(1, 30)).expect("answers");
    door.folder.write_private("centres.list", "127.0.0.0/8\n").expect("list");
    node.reload_until_told("clicks are judged by these lists").expect("reload");
    let flagged = send(&door.folder, &numbered(1000, 30)).expect("answers");
    assert_eq!((valid.acked_created, flagged), (30, valid), "nobody can tell from outside");
    assert_eq!(reasons(&node)["data_centre"], 30);
    node.drain().expect("drain");
    let audit = audited(&door);
    assert_eq!((&audit["outcomes"][0], &audit["outcomes"][4]), (&30.into(), &30.into()));
}

#[test]
fn an_ack_says_when_to_come_back_to_who_has_spent_a_budget() {
    let door =
        Door::folder("\n[workers]\ncores = [0]\n[limits.ad]\nclicks_per_s = 1\nburst = 1\n").expect("folder");
    let node = door.folder.start_ready().expect("ready");
    let socket = UdpSocket::bind("127.0.0.1:0").expect("socket");
    socket.connect(("127.0.0.1", door.folder.port())).expect("connect");
    socket.set_read_timeout(Some(Duration::from_secs(30))).expect("timeout");
    let ack = |click: Click| {
        socket.send(&datagram(Click { ad: 5.into(), ..click }, "agent")).expect("sent");
        let mut ack = [0; 2048];
        let len = socket.recv(&mut ack).expect("an ack");
        // How long to wait, in tenths of a second, and the status of the one click.
        (len, ack[7], ack[16])
    };
    let clicks = numbered(1, 3);
    assert_eq!(ack(clicks[0]), (17, 0, 0));
    assert_eq!(ack(clicks[1]), (17, 10, 2));
    node.drain().expect("drain");
    audited(&door);
}

#[test]
fn new_lists_are_judged_by_from_the_next_block_on_and_a_restart_counts_the_same_again() {
    let door = door();
    let mut node = door.folder.start_ready().expect("ready");
    let post = |numbers: std::ops::Range<u64>| {
        let lines: Vec<_> = numbers.map(click_json).collect();
        let reply = door.post("application/x-ndjson", lines.join("\n").as_bytes()).expect("curl");
        assert!(reply.statuses().iter().all(|status| status == "created"), "{reply:?}");
    };
    let reload = |node: &mut Node<'_>, list: &str, told: &str| {
        door.folder.write_private("centres.list", list).expect("list");
        node.reload_until_told(told).expect("reload");
    };
    post(0..40);
    assert_eq!(reasons(&node)["data_centre"], Value::Null);
    reload(&mut node, "# version: 2\n127.0.0.0/8\n", "clicks are judged by these lists");
    post(40..100);
    assert_eq!(reasons(&node)["data_centre"], 60);
    reload(&mut node, "no prefix\n", "the lists of invalid traffic are not replaced");
    post(100..110);
    assert_eq!(reasons(&node)["data_centre"], 70, "the last that could be read");
    node.kill().expect("kill");
    door.folder.write_private("centres.list", "# version: 1\n").expect("list");
    let node = door.folder.start_ready().expect("ready");
    post(110..120);
    node.drain().expect("drain");
    let audit = audited(&door);
    assert_eq!((&audit["outcomes"][0], &audit["outcomes"][4]), (&50.into(), &70.into()));
    let by_rules = audit["gross_by_rules"].as_object().expect("a map");
    let mut gross: Vec<_> = by_rules.values().filter_map(Value::as_u64).collect();
    gross.sort_unstable();
    assert_eq!(gross, [50, 70], "{by_rules:?}: of the first list and of the second");
}

#[test]
fn who_clicks_more_than_a_person_does_is_flagged_and_the_others_are_not() {
    let door = Door::folder(
        "\n[workers]\ncores = [0, 1]\n[traffic]\nforwarders_file = \"forwarders.list\"\nrefractory = \"0s\"\nactivity_keys = 1000\nclicks_per_second = 10\n",
    )
    .expect("folder");
    door.folder.write_private("forwarders.list", "127.0.0.0/8\n").expect("list");
    let node = door.folder.start_ready().expect("ready");
    let post = |lines: String| {
        let reply = door.post("application/x-ndjson", lines.as_bytes()).expect("curl");
        assert!(reply.statuses().iter().all(|status| status == "created"), "{reply:?}");
    };
    // All of one request are of one moment.
    post(of_user(1, 0..25));
    assert_eq!(reasons(&node)["activity"], 15);
    for user in 2..50 {
        post(of_user(user, user * 100..user * 100 + 2));
    }
    assert_eq!(reasons(&node)["activity"], 15, "people behind one forwarder are not one");
    node.drain().expect("drain");
    audited(&door);
}

#[test]
fn a_sender_that_posts_its_clicks_again_is_no_more_active_for_it() {
    let door = Door::folder(
        "\n[workers]\ncores = [0, 1]\n[traffic]\nrefractory = \"0s\"\nactivity_keys = 1000\nclicks_per_second = 10\n",
    )
    .expect("folder");
    let node = door.folder.start_ready().expect("ready");
    let post = |numbers: std::ops::Range<u64>, told: &str| {
        let reply = door.post("application/x-ndjson", of_user(1, numbers).as_bytes()).expect("curl");
        assert!(reply.statuses().iter().all(|status| status == told), "{told}: {reply:?}");
    };
    post(0..9, "created");
    for _retry in 0..3 {
        post(0..9, "exists");
    }
    post(9..10, "created");
    assert_eq!(reasons(&node)["activity"], Value::Null, "ten clicks, however often they were sent");
    node.drain().expect("drain");
    audited(&door);
}

#[test]
fn a_table_of_activity_that_is_too_small_is_told() {
    let door = Door::folder("\n[workers]\ncores = [0]\n[traffic]\nactivity_keys = 1\n").expect("folder");
    let node = door.folder.start_ready().expect("ready");
    let pushed_out = || {
        let status = node.status().expect("status");
        status["workers"][0]["activity_pushed_out"].as_u64().expect("a number")
    };
    assert_eq!(pushed_out(), 0);
    // The least there is: 256 sets of eight.
    for hundred in 0..30_u64 {
        let users = (hundred * 100..(hundred + 1) * 100).map(|user| of_user(user, user..user + 1));
        let reply = door.post("application/x-ndjson", users.collect::<Vec<_>>().join("\n").as_bytes());
        assert_eq!(reply.expect("curl").status, 202);
    }
    let pushed_out = pushed_out();
    assert!((900..3_000).contains(&pushed_out), "{pushed_out} of 3,000 had no place of 2,048");
    node.drain().expect("drain");
}

#[test]
fn an_unsigned_click_moments_after_another_of_its_user_and_ad_is_a_repeat() {
    let door = Door::folder("\n[workers]\ncores = [0, 1]\n").expect("folder");
    let node = door.folder.start_ready().expect("ready");
    let post = |lines: String, told: &str| {
        let reply = door.post("application/x-ndjson", lines.as_bytes()).expect("curl");
        assert!(reply.statuses().iter().all(|status| status == told), "{told}: {reply:?}");
    };
    post(of_user(1, 0..20), "created");
    post(of_user(1, 0..20), "exists");
    for user in 2..12 {
        post(of_user(user, user * 100..user * 100 + 1), "created");
    }
    // Nobody knows who clicked: each is one.
    post((2_000..2_010).map(click_json).collect::<Vec<_>>().join("\n"), "created");
    node.drain().expect("drain");
    let audit = audited(&door);
    // Accepted, repeat, duplicate; by workers that share nothing but the window.
    let outcomes: Vec<_> =
        (0..3).map(|outcome| audit["outcomes"][outcome].as_u64().expect("a count")).collect();
    assert_eq!(outcomes, [1 + 10 + 10, 19, 20]);
    assert_eq!(
        (&audit["unsigned"], &audit["cost_micros"]),
        (&21.into(), &0.into()),
        "and nobody pays for any"
    );
}
