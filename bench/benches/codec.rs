//! What the codec costs: one full datagram decoded and checked, one tag, a datagram of acks, a
//! body of rows, the headers of one packet. Figures are per click, row or packet where a
//! throughput is given.

use std::hash::Hasher;
use std::hint::black_box;

use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use siphasher::sip::SipHasher24;
use weir_bench::policy::DocumentationNode;
use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::packet::{self, Verdict};
use weir_common::reason::Reason;
use weir_common::row::{Row, Rows, length_prefix};
use weir_common::siphash::{SipKey, siphash24};
use weir_common::wire::{AckHeader, Acks, Click, Datagram, HEADER_LEN, Header, click_flags, extension};
use zerocopy::IntoBytes;

/// What a sender may count on in one UDP payload.
const CLICKS: usize = 14;
/// Rows of a body: about one group commit of a busy worker.
const ROWS: usize = 4096;

fn key() -> SipKey {
    SipKey::from_bytes(*b"sixteen byte key")
}

fn click(sequence: u64) -> Click {
    let mut click = Click {
        impression: ImpressionId::issued(Issuer(7), KeyId(3), 1_790_000_000, sequence),
        ad: (sequence % 100_000).into(),
        price_micros: 250_000.into(),
        clicked_at_ms: 1_790_000_012_345.into(),
        latitude_e6: 52_520_008.into(),
        longitude_e6: 13_404_954.into(),
        country: *b"DE",
        device: 2,
        os: 5,
        flags: click_flags::POSITION,
        ..Click::zeroed()
    };
    click.tag = click.expected_tag(&key()).into();
    click
}

/// A user agent of `len` octets as the only field.
fn user_agent(len: u16) -> Vec<u8> {
    let mut field = vec![extension::USER_AGENT];
    field.extend(len.to_le_bytes());
    field.extend((0..len).map(|_| b'x'));
    field
}

fn datagram(clicks: usize, extension: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    for sequence in 0..clicks as u64 {
        let mut click = click(sequence);
        click.extension_len = (extension.len() as u16).into();
        body.extend_from_slice(click.as_bytes());
        body.extend_from_slice(extension);
    }
    let header = Header { source_id: 1.into(), batch_id: 1.into(), ..Header::new(clicks as u8, body.len()) };
    [header.as_bytes(), &body].concat()
}

/// Structure and fields of every click; the number that are sound.
fn decode(payload: &[u8]) -> usize {
    let Ok(datagram) = Datagram::parse(payload) else { return 0 };
    datagram.clicks().filter(|(click, extension)| click.check(extension).is_ok()).count()
}

/// As [`decode`], and every tag.
fn decode_and_verify(payload: &[u8], key: &SipKey) -> usize {
    let Ok(datagram) = Datagram::parse(payload) else { return 0 };
    let sound = |(click, extension): &(&Click, &[u8])| {
        click.check(extension).is_ok() && click.expected_tag(key) == click.tag.get()
    };
    datagram.clicks().filter(sound).count()
}

fn datagrams(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("datagram");
    group.throughput(Throughput::Elements(CLICKS as u64));
    let plain = datagram(CLICKS, &[]);
    assert_eq!(decode_and_verify(&plain, &key()), CLICKS);
    group.bench_function("header_only/14_plain", |bencher| {
        let header: &[u8; HEADER_LEN] = plain.first_chunk().expect("a header");
        bencher.iter(|| weir_common::wire::check_header(black_box(header), black_box(plain.len())));
    });
    group.bench_function("parse_and_check/14_plain", |bencher| bencher.iter(|| decode(black_box(&plain))));
    let extended = datagram(CLICKS, &user_agent(120));
    assert_eq!(decode(&extended), CLICKS);
    group.bench_function("parse_and_check/14_with_user_agent", |bencher| {
        bencher.iter(|| decode(black_box(&extended)));
    });
    group.bench_function("parse_check_and_verify/14_plain", |bencher| {
        bencher.iter(|| decode_and_verify(black_box(&plain), black_box(&key())));
    });
    group.finish();
}

fn tags(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("siphash_48_octets");
    group.throughput(Throughput::Elements(1));
    let (key, click) = (key(), click(42));
    let words = click.signed_words();
    group.bench_function("six_words", |bencher| {
        bencher.iter(|| siphash24(black_box(&key), black_box(&words)));
    });
    group.bench_function("of_a_click", |bencher| {
        bencher.iter(|| black_box(&click).expected_tag(black_box(&key)));
    });
    group.bench_function("siphasher_crate", |bencher| {
        let message = &click.as_bytes()[..48];
        bencher.iter(|| {
            let mut hasher = SipHasher24::new_with_keys(black_box(key.k0), black_box(key.k1));
            hasher.write(black_box(message));
            hasher.finish()
        });
    });
    group.finish();
}

fn acks(criterion: &mut Criterion) {
    // As many acks of 14 clicks as fit one payload of 1,472 octets.
    let one = [AckHeader::new(7, CLICKS as u8).as_bytes(), &[0; CLICKS]].concat();
    let count = 1472 / one.len();
    let payload = one.repeat(count);
    assert_eq!(Acks::new(&payload).count(), count);
    let mut group = criterion.benchmark_group("acks");
    group.throughput(Throughput::Elements((count * CLICKS) as u64));
    group.bench_function("49_acks_of_14", |bencher| {
        bencher.iter(|| Acks::new(black_box(&payload)).map(|ack| ack.statuses.len()).sum::<usize>());
    });
    group.finish();
}

fn body(extension: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    let (prefix, prefix_len) = length_prefix(extension.len() as u16);
    for sequence in 0..ROWS as u64 {
        let mut click = click(sequence);
        click.extension_len = (extension.len() as u16).into();
        let row = Row {
            received_at_ms: 1_790_000_012_400.into(),
            minute: 29_833_333.into(),
            outcome: 0,
            reason: 0,
            flags: 0,
            traffic: 0,
            click,
        };
        body.extend_from_slice(row.as_bytes());
        body.extend_from_slice(&prefix[..prefix_len]);
        body.extend_from_slice(extension);
    }
    body
}

fn rows(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("rows");
    group.throughput(Throughput::Elements(ROWS as u64));
    for (name, extension) in [("4096_plain", vec![]), ("4096_with_user_agent", user_agent(200))] {
        let body = body(&extension);
        assert_eq!(Rows::new(&body).count(), ROWS);
        group.bench_function(name, |bencher| {
            bencher.iter(|| Rows::new(black_box(&body)).map(|(row, _)| row.click.ad.get()).fold(0, u64::max));
        });
    }
    group.finish();
}

/// An Ethernet frame with VLAN tags, without what the parser does not look at.
fn ethernet(tags: usize, ether_type: [u8; 2]) -> Vec<u8> {
    [&[0; 12][..], &[0x81, 0, 0, 7].repeat(tags), &ether_type].concat()
}

fn udp(payload: &[u8]) -> Vec<u8> {
    let len = (8 + payload.len() as u16).to_be_bytes();
    [&40_000_u16.to_be_bytes()[..], &8899_u16.to_be_bytes(), &len, &[0, 0], payload].concat()
}

fn frame_v4(tags: usize, options: &[u8], target: [u8; 4], payload: &[u8]) -> Vec<u8> {
    let udp = udp(payload);
    let mut ip = vec![0; 20];
    ip[0] = 0x45 + (options.len() / 4) as u8;
    ip[2..4].copy_from_slice(&((20 + options.len() + udp.len()) as u16).to_be_bytes());
    ip[8..10].copy_from_slice(&[64, 17]);
    ip[16..20].copy_from_slice(&target);
    [ethernet(tags, [8, 0]), ip, options.to_vec(), udp].concat()
}

/// With hop-by-hop options, a routing header and destination options, each of eight octets.
fn frame_v6_extended(payload: &[u8]) -> Vec<u8> {
    let udp = udp(payload);
    let extensions =
        [[43, 0, 1, 4, 0, 0, 0, 0], [60, 0, 0, 0, 0, 0, 0, 0], [17, 0, 1, 4, 0, 0, 0, 0]].concat();
    let mut ip = vec![0x60, 0, 0, 0];
    ip.extend(((extensions.len() + udp.len()) as u16).to_be_bytes());
    ip.extend([0, 64]);
    ip.extend([0; 16]);
    ip.extend([0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]);
    [ethernet(0, [0x86, 0xdd]), ip, extensions, udp].concat()
}

fn packets(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("packet");
    group.throughput(Throughput::Elements(1));
    let payload = datagram(CLICKS, &[]);
    let ours = [192, 0, 2, 10];
    let rows = [
        ("ipv4_plain", frame_v4(0, &[], ours, &payload), None),
        ("ipv4_options_2_vlan_tags", frame_v4(2, &[1; 8], ours, &payload), None),
        ("ipv6_3_extension_headers", frame_v6_extended(&payload), None),
        ("not_ours", frame_v4(0, &[], [192, 0, 2, 11], &payload), Some(Reason::OtherAddress)),
    ];
    for (name, frame, reason) in rows {
        let verdict = packet::parse(&frame[..], &DocumentationNode);
        assert_eq!(verdict.reason(), reason, "{name}");
        if let Verdict::Ours(clicks) = verdict {
            assert_eq!(clicks.payload_len, payload.len());
        }
        group.bench_function(name, |bencher| {
            bencher.iter(|| packet::parse(black_box(&frame[..]), black_box(&DocumentationNode)));
        });
    }
    group.finish();
}

criterion_group!(codec, datagrams, tags, acks, rows, packets);
criterion_main!(codec);
