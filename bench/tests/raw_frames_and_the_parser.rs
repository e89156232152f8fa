//! Every raw frame the generator makes gets from the packet parser the verdict that its kind
//! claims: with the parser's own table of reasons, the books of a run close.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;

use weir_bench::kind::{Kind, Stage};
use weir_bench::malformed::Payload;
use weir_bench::policy::DocumentationNode;
use weir_bench::raw_frames::frame;
use weir_common::packet::{self, Clicks, Family, Verdict};
use weir_common::wire::{CLICK_LEN, Click, HEADER_LEN};

const DENIED: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);

fn raw(kind: Kind) -> Vec<u8> {
    let (source, target): (SocketAddr, SocketAddr) = if kind.needs_ipv6() {
        ("[2001:db8::7]:40000".parse().unwrap(), "[2001:db8::10]:8899".parse().unwrap())
    } else {
        ("192.0.2.7:40000".parse().unwrap(), "192.0.2.10:8899".parse().unwrap())
    };
    let payload = Payload::sound(&Click::zeroed(), 7);
    frame(kind, source, target, DENIED, payload.bytes()).expect("addresses of the kind's family")
}

fn judged(kind: Kind) -> Verdict {
    packet::parse(&raw(kind)[..], &DocumentationNode)
}

fn kinds(stage: Stage) -> impl Iterator<Item = Kind> {
    Kind::ALL.iter().copied().filter(move |kind| kind.stage() == stage)
}

#[test]
fn a_frame_that_is_wrong_is_malformed_for_the_reason_of_its_kind() {
    let mut count = 0;
    // A denied source is a sound packet to the parser: the prefixes are looked at after it.
    for kind in kinds(Stage::Frame).filter(|&kind| kind != Kind::DeniedSource) {
        assert_eq!(judged(kind), Verdict::Malformed(kind.reason()), "{kind:?}");
        count += 1;
    }
    assert!(count >= 7, "only {count} kinds of wrong frames");
}

#[test]
fn a_frame_that_is_none_of_ours_is_passed_for_the_reason_of_its_kind() {
    let mut count = 0;
    for kind in kinds(Stage::Passed) {
        assert_eq!(judged(kind), Verdict::Pass(kind.reason()), "{kind:?}");
        count += 1;
    }
    assert!(count >= 5, "only {count} kinds of frames that are passed");
}

#[test]
fn a_wrapped_frame_is_ours_with_its_payload_whole() {
    let mut count = 0;
    for kind in kinds(Stage::Wrapped).chain([Kind::DeniedSource]) {
        let bytes = raw(kind);
        let Verdict::Ours(clicks) = judged(kind) else { panic!("{kind:?}: {:?}", judged(kind)) };
        let payload = Payload::sound(&Click::zeroed(), 7);
        let found = &bytes[clicks.payload_offset..clicks.payload_offset + clicks.payload_len];
        assert_eq!(found, payload.bytes(), "{kind:?}");
        assert_eq!(clicks.payload_len, HEADER_LEN + CLICK_LEN);
        assert_is_wrapped(kind, &bytes, &clicks);
        count += 1;
    }
    assert!(count >= 7, "only {count} kinds of wrapped frames");
}

/// The wrapping is there: a kind that sent plain frames would be taken just as well.
fn assert_is_wrapped(kind: Kind, bytes: &[u8], clicks: &Clicks) {
    let (tags, family, before_payload) = match kind {
        Kind::Vlan1 => (1, Family::V4, 28),
        Kind::Vlan2 => (2, Family::V4, 28),
        Kind::Vlan3 => (3, Family::V4, 28),
        Kind::Vlan4 => (4, Family::V4, 28),
        Kind::Ipv4Options => (0, Family::V4, 36),
        // Hop by hop, destination options: eight bytes each.
        Kind::Ipv6Extensions => (0, Family::V6, 64),
        Kind::DeniedSource => {
            assert_eq!(bytes[clicks.source_offset()..][..4], DENIED.octets());
            (0, Family::V4, 28)
        }
        _ => panic!("{kind:?} is not known here"),
    };
    assert_eq!((clicks.vlan_tags, clicks.family), (tags, family), "{kind:?}");
    assert_eq!(clicks.ip_offset, 14 + 4 * usize::from(tags), "{kind:?}");
    assert_eq!(clicks.payload_offset - clicks.ip_offset, before_payload, "{kind:?}");
}

/// A plain frame with a header that is wrong.
fn wrong_header(kind: Kind) -> Vec<u8> {
    let payload = Payload::malformed(kind, &Click::zeroed(), 7);
    let (source, target) = ("192.0.2.7:40000".parse().unwrap(), "192.0.2.10:8899".parse().unwrap());
    frame(Kind::Fresh, source, target, DENIED, payload.bytes()).expect("both are IPv4")
}

#[test]
fn a_header_that_is_wrong_is_seen_in_a_plain_frame_too() {
    for kind in kinds(Stage::Header) {
        let verdict = packet::parse(&wrong_header(kind)[..], &DocumentationNode);
        assert_eq!(verdict, Verdict::Malformed(kind.reason()), "{kind:?}");
    }
}

#[test]
fn the_fuzz_corpus_has_these_frames() {
    let folder = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../common/fuzz/corpus/packet");
    let raw_kinds = Kind::ALL.iter().copied().filter(|kind| kind.needs_packet_socket());
    let frames = raw_kinds.map(|kind| (kind, raw(kind)));
    let plain = frames.chain(kinds(Stage::Header).map(|kind| (kind, wrong_header(kind))));
    for (kind, bytes) in plain.chain([(Kind::Fresh, raw(Kind::Fresh))]) {
        let path = folder.join(kind.name());
        if std::env::var_os("WEIR_BLESS").is_some() {
            fs::write(&path, &bytes).expect("the corpus is writable");
        }
        let stored = fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(stored, bytes, "{kind:?} is another frame now: run with WEIR_BLESS=1");
    }
}
