//! Valid and invalid configs, with the exact words an operator reads.

use std::net::IpAddr;
use std::time::Duration;

use weir::config::{Config, Cores, Fragments, SteerMode};
use weir::score::{Campaign, Threshold};

#[track_caller]
fn valid(text: &str) -> Config {
    Config::parse(text).unwrap_or_else(|problems| panic!("{text:?} is refused:\n{problems}"))
}

#[track_caller]
fn invalid(text: &str, expected: &[&str]) {
    let Err(problems) = Config::parse(text) else { panic!("{text:?} is taken") };
    let found: Vec<_> = problems.0.iter().map(ToString::to_string).collect();
    assert_eq!(found, expected, "for {text:?}");
}

#[test]
fn a_value_is_read_as_it_is_written() {
    assert_eq!(valid("node.id = 7").node.id, 7);
    assert_eq!(valid("[node]\nid = 0xff").node.id, 255);
    assert_eq!(valid("node.id = 4_294_967_295").node.id, u32::MAX);
    assert_eq!(valid("[node]\nregion = \"eu-west_1\"").node.region, "eu-west_1");
    assert_eq!(valid("workers.cores = [1, 0]").workers.cores, Cores::These(vec![1, 0]));
    assert_eq!(valid("workers.cores = \"all\"").workers.cores, Cores::All);
    assert_eq!(valid("rx.udp.port = 65535").udp.port, 65535);
    assert_eq!(valid("[rx.udp]\nsocket_buffer = \"64KiB\"").udp.socket_buffer_bytes, 65536);
    assert_eq!(valid("[rx.udp]\nbuffers_per_worker = 32768").udp.buffers_per_worker, 32768);
    let addresses = valid("[rx.udp]\naddresses = [\"10.77.0.1\", \"fd77::1\"]").udp.addresses;
    assert_eq!(addresses, ["10.77.0.1", "fd77::1"].map(|text| text.parse::<IpAddr>().unwrap()));
    let journal =
        valid("[journal]\ncommit_window = \"500us\"\nsegment_size = \"4MiB\"\nmax_size = \"16MiB\"").journal;
    assert_eq!(journal.commit_window, Duration::from_micros(500));
    assert_eq!((journal.segment_bytes, journal.max_bytes), (4 << 20, 16 << 20));
    assert_eq!(valid("[admission]\nmax_ahead = \"0ms\"").admission.max_ahead, Duration::ZERO);
    assert_eq!(valid("[log]\nlevel = \"debug\"").log.level, tracing::Level::DEBUG);
}

#[test]
fn what_is_turned_off_is_absent() {
    assert_eq!(valid("metrics.listen = \"\"").metrics.listen, None);
    assert_eq!(valid("").steer.interface, None);
    assert_eq!(valid("[steer.rate]\nburst = 7").steer.rate, None);
    let steer = valid("[steer]\nmode = \"native\"\ninterface = \"eth0\"\nrate = { packets_per_s = 9 }").steer;
    assert_eq!((steer.mode, steer.interface.as_deref()), (SteerMode::Native, Some("eth0")));
    assert_eq!(steer.rate.unwrap().packets_per_s, 9);
    assert_eq!(valid("[steer.syn_rate]\nburst = 7").steer.syn_rate, None);
    let syn_rate =
        valid("[steer]\ninterface = \"eth0\"\nsyn_rate = { syns_per_s = 9 }").steer.syn_rate.unwrap();
    assert_eq!((syn_rate.syns_per_s, syn_rate.burst, syn_rate.new_sources_per_s), (9, 100, 100_000));
}

#[test]
fn a_rate_of_connections_that_nothing_would_keep_is_a_mistake() {
    let why =
        "steer.syn_rate: the XDP program keeps this limit; set steer.interface and a mode, or remove it";
    invalid("[steer.syn_rate]\nsyns_per_s = 9", &[&format!("line 1: {why}")]);
    invalid(
        "[steer]\ninterface = \"eth0\"\nmode = \"none\"\nsyn_rate = { syns_per_s = 9 }",
        &[&format!("line 4: {why}")],
    );
    let apart = "[rx.http]\naddresses = [\"192.0.2.1\", \"192.0.2.2\"]\n[steer]\ninterface = \"eth0\"\n\
                 addresses = [\"192.0.2.1\"]\n";
    valid(apart);
    let why = "syn_rate does not hold for 192.0.2.2 of rx.http.addresses; add it to steer.addresses";
    invalid(&format!("{apart}syn_rate = {{ syns_per_s = 9 }}"), &[&format!("line 3: steer: {why}")]);
}

#[test]
fn lists_and_words_have_their_types() {
    let text = "[steer]\ndeny = [\"198.51.100.0/24\"]\nallow = [\"2001:db8::/32\"]\nfragments = \"pass\"";
    let steer = valid(text).steer;
    assert_eq!(steer.deny[0].to_string(), "198.51.100.0/24");
    assert_eq!(steer.allow[0].to_string(), "2001:db8::/32");
    assert_eq!(steer.fragments, Fragments::Pass);
    let dimensions = valid("buckets.dimensions = [\"creative\"]").buckets.dimensions;
    assert!(dimensions.creative && !dimensions.country && !dimensions.device);
    let keys =
        valid("[[keys]]\nissuer = 1\nkey = 0\nfile = \"a\"\n[[keys]]\nissuer = 1\nkey = 1\nfile = \"b\"")
            .keys;
    assert_eq!(keys.iter().map(|key| (key.issuer, key.key)).collect::<Vec<_>>(), [(1, 0), (1, 1)]);
}

#[test]
fn an_unknown_key_is_answered_with_the_nearest_one() {
    invalid("[jurnal]", &["line 1: jurnal: no such key; did you mean \"journal\"?"]);
    invalid("[rx.upd]", &["line 1: rx.upd: no such key; did you mean \"udp\"?"]);
    invalid(
        "[journal]\ncomit_window = \"2ms\"",
        &["line 2: journal.comit_window: no such key; did you mean \"commit_window\"?"],
    );
    invalid("[log]\nverbosity = 3", &["line 2: log.verbosity: no such key; the keys here are level"]);
    invalid(
        "[[keys]]\nissuer = 1\nkey = 1\npath = \"k\"",
        &[
            "line 1: keys.file: missing; expected the path of a file with 32 hex digits",
            "line 4: keys.path: no such key; the keys here are issuer, key, file",
        ],
    );
}

#[test]
fn a_number_out_of_range_is_told_its_range() {
    let node = "expected a whole number from 1 to 4294967295 (default 1)";
    invalid("node.id = 0", &[&format!("line 1: node.id = 0: {node}")]);
    invalid("node.id = -1", &[&format!("line 1: node.id = -1: {node}")]);
    invalid("node.id = 4294967296", &[&format!("line 1: node.id = 4294967296: {node}")]);
    invalid("node.id = 1.5", &[&format!("line 1: node.id = 1.5: {node}")]);
    invalid("node.id = \"1\"", &[&format!("line 1: node.id = \"1\": {node}")]);
    let port = "expected a whole number from 1 to 65535 (default 4500)";
    invalid("rx.udp.port = 65536", &[&format!("line 1: rx.udp.port = 65536: {port}")]);
    let buffers = "expected a power of two from 64 to 32768 (default 64)";
    for number in ["4095", "32", "65536"] {
        let text = format!("rx.udp.buffers_per_worker = {number}");
        invalid(&text, &[&format!("line 1: rx.udp.buffers_per_worker = {number}: {buffers}")]);
    }
}

#[test]
fn a_quantity_out_of_range_or_without_a_unit_is_told_what_fits() {
    let window = "expected a duration from \"0ms\" to \"100ms\" (default \"2ms\")";
    for value in ["\"101ms\"", "\"2\"", "2", "\"2 ms\"", "\"fast\""] {
        let text = format!("journal.commit_window = {value}");
        invalid(&text, &[&format!("line 1: journal.commit_window = {value}: {window}")]);
    }
    let lifetime = "expected a duration from \"1m\" to \"168h\" (default \"24h\")";
    invalid("admission.lifetime = \"8d\"", &[&format!("line 1: admission.lifetime = \"8d\": {lifetime}")]);
    let buffer = "expected a size from \"64KiB\" to \"1GiB\" (default \"16MiB\")";
    for value in ["\"16MB\"", "16777216", "\"2GiB\""] {
        let text = format!("rx.udp.socket_buffer = {value}");
        invalid(&text, &[&format!("line 1: rx.udp.socket_buffer = {value}: {buffer}")]);
    }
    let interval = "expected a duration from \"100ms\" to \"5s\" (default \"2s\")";
    invalid("forward.interval = \"6s\"", &[&format!("line 1: forward.interval = \"6s\": {interval}")]);
}

#[test]
fn a_word_that_is_none_of_the_choices_is_told_them() {
    invalid(
        "steer.mode = \"xdp\"",
        &["line 1: steer.mode = \"xdp\": expected one of \"auto\", \"native\", \"generic\", \"none\""],
    );
    invalid(
        "journal.ack = \"kafka\"",
        &["line 1: journal.ack = \"kafka\": expected \"disk\", the only one in this version"],
    );
    invalid("steer.enforce = 1", &["line 1: steer.enforce = 1: expected true or false (default true)"]);
    invalid(
        "buckets.dimensions = [\"contry\"]",
        &[
            "line 1: buckets.dimensions = \"contry\": expected one of country, device, os, publisher, placement, creative",
        ],
    );
    invalid(
        "node.pop = \"Paris\"",
        &[
            "line 1: node.pop = \"Paris\": expected 1 to 32 lower-case letters, digits, \"-\" and \"_\" (default \"local\")",
        ],
    );
    invalid(
        "node.data_dir = \"data\"",
        &["line 1: node.data_dir = \"data\": expected an absolute path (default \"/var/lib/weir\")"],
    );
}

#[test]
fn a_list_is_told_which_entry_is_wrong() {
    invalid(
        "steer.deny = [\"10.0.0.0/8\", \"10.1.2.3/24\"]",
        &[
            "line 1: steer.deny = \"10.1.2.3/24\": bits beyond the prefix are set; did you mean \"10.1.2.0/24\"?",
        ],
    );
    invalid(
        "steer.allow = [\"10.0.0.0/33\"]",
        &[
            "line 1: steer.allow = \"10.0.0.0/33\": expected an IP prefix such as \"203.0.113.0/24\" or \"2001:db8::/32\"",
        ],
    );
    invalid(
        "rx.udp.addresses = [\n  \"::\",\n  \"localhost\"\n]",
        &[
            "line 3: rx.udp.addresses = \"localhost\": expected an IP address such as \"192.0.2.1\" or \"2001:db8::1\"",
        ],
    );
    invalid(
        "rx.udp.addresses = [\"::\", \"::\"]",
        &["line 1: rx.udp.addresses = \"::\": named twice; remove one"],
    );
    invalid(
        "rx.udp.addresses = \"::\"",
        &["line 1: rx.udp.addresses = \"::\": expected a list of IP addresses"],
    );
    let cores = "expected \"all\" or a list of core numbers such as [0, 1], each once (default \"all\")";
    for value in ["[]", "[0, 0]", "\"some\"", "[-1]", "2"] {
        let text = format!("workers.cores = {value}");
        invalid(&text, &[&format!("line 1: workers.cores = {value}: {cores}")]);
    }
}

#[test]
fn values_that_contradict_each_other_are_told_apart() {
    invalid(
        "[steer]\nmode = \"native\"",
        &["line 2: steer.mode: this mode needs to know where; set steer.interface, or mode = \"auto\""],
    );
    invalid(
        "[steer]\ndeny = [\"10.0.0.0/8\"]\nallow = [\"10.0.0.0/8\"]",
        &["line 3: steer.allow: 10.0.0.0/8 is in steer.deny too; keep it in one of them"],
    );
    invalid(
        "[rx.udp]\naddresses = []",
        &["line 2: rx.udp.addresses: no address to listen on; name one, or \"0.0.0.0\" and \"::\" for all"],
    );
    invalid(
        "[admission]\nlifetime = \"5m\"",
        &["line 1: admission.lateness: longer than admission.lifetime; such a click has expired already"],
    );
    invalid(
        "[journal]\nsegment_size = \"1GiB\"\nmax_size = \"2GiB\"",
        &["line 3: journal.max_size: less than four times journal.segment_size; raise it or lower the other"],
    );
    invalid(
        "[admission]\nallow_unsigned = false",
        &["keys: there is none and admission.allow_unsigned is false, so every click would be refused"],
    );
    let key = "[[keys]]\nissuer = 3\nkey = 4\nfile = \"k\"\n";
    invalid(&key.repeat(2), &["line 1: keys: issuer 3 has key 4 twice; remove one"]);
}

#[test]
fn all_problems_come_at_once_in_the_order_of_the_file() {
    invalid(
        "[rx.udp]\nport = 0\n\n[journal]\nack = 1\n\n[nod]\n[log]\nlevel = \"loud\"",
        &[
            "line 2: rx.udp.port = 0: expected a whole number from 1 to 65535 (default 4500)",
            "line 5: journal.ack = 1: expected \"disk\", the only one in this version",
            "line 7: nod: no such key; did you mean \"node\"?",
            "line 9: log.level = \"loud\": expected one of \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        ],
    );
}

#[test]
fn what_is_no_config_at_all_is_said_so() {
    invalid("node = 1", &["line 1: node = 1: expected a section, written [node]"]);
    invalid("keys = 1", &["line 1: keys = 1: expected a list of sections, each written [[keys]]"]);
    invalid("keys = [1]", &["line 1: keys = 1: expected a list of sections, each written [[keys]]"]);
    for text in ["node", "[node", "x = ", "node.id = 1\nnode.id = 2", "\u{0}"] {
        let problems = Config::parse(text).unwrap_err();
        assert_eq!(problems.0.len(), 1, "{problems}");
        assert!(problems.to_string().contains("not TOML: "), "{problems}");
    }
}

#[test]
fn a_long_value_is_cut_in_the_message() {
    let Err(problems) = Config::parse(&format!("node.pop = \"{}\"", "x".repeat(500))) else { panic!() };
    assert!(problems.to_string().len() < 250, "{problems}");
}

#[test]
fn a_first_check_without_a_key_is_a_mistake() {
    invalid(
        "[steer]\nverify_first = true",
        &["line 1: steer: verify_first has no key to check tags by; add [[keys]], or leave it out"],
    );
}

#[test]
fn a_score_has_thresholds_for_all_and_for_campaigns() {
    assert_eq!(valid("score.threshold = 0.5").score, None, "there is no model");
    let score = valid(
        "[score]\nmodel_file = \"m\"\nthreshold = 1\n[[score.campaigns]]\ncampaign = 5\nthreshold = 0.25",
    );
    let score = score.score.expect("a model");
    let at = |campaign| score.thresholds.of(Campaign(campaign));
    assert_eq!((at(5), at(6)), (Threshold::new(0.25).unwrap(), Threshold::new(1.0).unwrap()));
    invalid(
        "score.threshold = 1.5",
        &["line 1: score.threshold = 1.5: expected a number from 0 to 1 (default 0.9)"],
    );
    invalid(
        "[[score.campaigns]]\ncampaign = 5\nthreshold = 0.5",
        &[
            "line 1: score.campaigns: nothing is scored without score.model_file; name a model, or remove them",
        ],
    );
}
