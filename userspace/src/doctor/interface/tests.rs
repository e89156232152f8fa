//! What is judged of an interface, without one.

use super::super::cores::parse_list;
use super::super::finding::Severity::{Fatal, Note, Ok as Fine, Unknown, Warning};
use super::super::finding::unreadable;
use super::*;
use crate::config::Config;

fn set(text: &str) -> CoreSet {
    parse_list(text).expect("a list")
}

#[test]
fn steering_is_wanted_as_much_as_mode_and_interface_say() {
    let steered = |text: &str| Steered::of(&Config::parse(text).expect("a config").steer);
    assert_eq!(steered(""), Steered::Off);
    assert_eq!(steered("[steer]\ninterface = \"eth0\""), Steered::Wished);
    assert_eq!(steered("[steer]\ninterface = \"eth0\"\nmode = \"native\""), Steered::Demanded);
    assert_eq!(steered("[steer]\ninterface = \"eth0\"\nmode = \"none\""), Steered::Off);
}

#[test]
fn an_interface_that_is_not_there_is_fatal_and_one_that_is_down_a_warning() {
    let state = |text: &str| judge_interface(Ok(Some(Ok(text.to_owned())))).severity;
    assert_eq!(state("up"), Fine);
    assert_eq!(state("unknown"), Fine);
    assert_eq!(state("down"), Warning);
    assert_eq!(judge_interface(Ok(None)).severity, Fatal);
    assert_eq!(judge_interface(Ok(Some(unreadable()))).severity, Unknown);
    assert_eq!(judge_interface(Err(&Unread("hidden".to_owned()))).severity, Unknown);
    assert_eq!(judge_driver(&unreadable()).severity, Unknown);
}

#[test]
fn an_interface_that_cannot_be_looked_at_leaves_nothing_ok() {
    let config = Config::parse("[steer]\ninterface = \"weir-none\"").expect("a config");
    let found = examine(&config.steer, &set("0"), Holder::Other);
    assert_eq!(found.len(), 7);
    assert_eq!(found[0].severity, Fatal);
    assert!(found[1..].iter().all(|found| found.severity == Unknown), "{found:?}");
}

#[test]
fn fewer_queues_than_workers_are_a_warning_where_there_could_be_more() {
    let queues = |receive, receive_max| Ok(Channels { receive, receive_max });
    assert_eq!(judge_queues(&queues(4, 8), 4, "eth0").severity, Fine);
    assert_eq!(judge_queues(&queues(2, 2), 4, "eth0").severity, Note);
    let few = judge_queues(&queues(2, 8), 4, "eth0");
    assert_eq!((few.severity, few.fix.as_str()), (Warning, "Run `ethtool -L eth0 combined 4`."));
    assert_eq!(judge_queues(&unreadable(), 4, "eth0").severity, Unknown);
}

#[test]
fn a_short_ring_is_a_warning_where_it_could_be_longer() {
    let ring = |receive, receive_max| Ok(Ring { receive, receive_max });
    assert_eq!(judge_ring(&ring(1024, 4096), "eth0").severity, Fine);
    assert_eq!(judge_ring(&ring(256, 256), "eth0").severity, Fine);
    assert_eq!(judge_ring(&ring(512, 4096), "eth0").severity, Warning);
    assert_eq!(judge_ring(&unreadable(), "eth0").severity, Unknown);
}

#[test]
fn a_queue_that_no_flow_is_sent_to_is_a_warning() {
    assert_eq!(judge_rss(&Ok(vec![0, 1, 2, 3]), 4, "eth0").severity, Fine);
    assert_eq!(judge_rss(&Ok(vec![0, 1, 0, 1]), 4, "eth0").severity, Warning);
    assert_eq!(judge_rss(&unreadable(), 4, "eth0").severity, Unknown);
    assert_eq!(judge_rss(&unreadable(), 1, "eth0").severity, Fine);
}

fn xdp(features: Read<u64>, attached: Read<Option<Attached>>) -> Xdp {
    Xdp { features, attached, mtu: Ok(1500), holder: Holder::Other }
}

#[test]
fn a_driver_without_xdp_is_fatal_only_where_it_is_demanded() {
    let able = xdp(Ok(XDP_BASIC | XDP_REDIRECT), Ok(None));
    let unable = xdp(Ok(0), Ok(None));
    for (mode, severity) in
        [(SteerMode::Native, Fatal), (SteerMode::Auto, Warning), (SteerMode::Generic, Fine)]
    {
        assert_eq!(judge_xdp(&able, mode, "eth0").severity, Fine, "{mode:?}");
        assert_eq!(judge_xdp(&unable, mode, "eth0").severity, severity, "{mode:?}");
    }
    assert_eq!(judge_xdp(&xdp(Ok(XDP_BASIC), Ok(None)), SteerMode::Native, "eth0").severity, Warning);
    assert_eq!(judge_xdp(&xdp(unreadable(), Ok(None)), SteerMode::Native, "eth0").severity, Unknown);
    assert_eq!(judge_xdp(&xdp(Ok(3), unreadable()), SteerMode::Generic, "eth0").severity, Unknown);
    let jumbo = Xdp { mtu: Ok(9000), ..able };
    assert_eq!(judge_xdp(&jumbo, SteerMode::Native, "eth0").severity, Warning);
}

#[test]
fn somebody_elses_program_is_in_the_way_and_the_nodes_own_is_not() {
    let taken = |holder| Xdp { holder, ..xdp(Ok(3), Ok(Some(Attached { program: 7 }))) };
    for (mode, severity) in
        [(SteerMode::Native, Fatal), (SteerMode::Generic, Fatal), (SteerMode::Auto, Warning)]
    {
        assert_eq!(judge_xdp(&taken(Holder::Other), mode, "eth0").severity, severity, "{mode:?}");
        assert_eq!(judge_xdp(&taken(Holder::Node), mode, "eth0").severity, Fine, "{mode:?}");
        assert_eq!(judge_xdp(&taken(Holder::Unknown), mode, "eth0").severity, Unknown, "{mode:?}");
    }
}

#[test]
fn interrupts_belong_on_the_workers_cores_and_not_all_on_one() {
    let judged = |each: &[&str], workers| {
        judge_irq(&Ok(each.iter().map(|cores| set(cores)).collect()), &set(workers)).severity
    };
    assert_eq!(judged(&["0", "1"], "0-1"), Fine);
    assert_eq!(judged(&["0"], "0-1"), Fine);
    assert_eq!(judged(&["0", "0"], "0-1"), Warning);
    assert_eq!(judged(&["0", "2"], "0-1"), Note);
    assert_eq!(judged(&["0", "1", "1", "0"], "0-3"), Note);
    assert_eq!(judge_irq(&unreadable(), &set("0-1")).severity, Unknown);
    assert!(
        is_of_receiving("virtio3-rx") && is_of_receiving("mlx5_comp-TxRx-3") && !is_of_receiving("x-config")
    );
}
