//! Datagrams of acks.

use serde_json::{Value, json};
use weir_common::wire::{AckStatus, Acks};

use super::Case;
use super::octets::{ack, hex, number, unhex, with};

pub(crate) const ABOUT: &str = "Payloads of acks. acks[]: those a reader takes, in order; unread: how many \
octets it leaves where it stops at the first octet that is not part of an ack. Only unread 0 is sound.";

const NAMES: [&str; 4] = ["created", "exists", "retry", "malformed"];

pub(crate) fn cases() -> Vec<Case> {
    let mut cases = sound();
    cases.extend(damaged());
    cases
}

fn case(name: &str, bytes: &[u8], acks: &[(u64, &[u8])], unread: usize) -> Case {
    waiting(
        name,
        bytes,
        &acks.iter().map(|&(batch_id, statuses)| (batch_id, 0, statuses)).collect::<Vec<_>>(),
        unread,
    )
}

/// Acks that say how long to wait, in ms.
fn waiting(name: &str, bytes: &[u8], acks: &[(u64, u32, &[u8])], unread: usize) -> Case {
    let acks: Vec<Value> = acks
        .iter()
        .map(|&(batch_id, retry_after_ms, statuses)| {
            let names: Vec<&str> = statuses.iter().map(|&status| NAMES[status as usize]).collect();
            json!({"batch_id": number(batch_id), "retry_after_ms": retry_after_ms, "statuses": names})
        })
        .collect();
    (name.to_owned(), json!({"acks": acks, "unread": unread, "hex": hex(bytes)}))
}

fn sound() -> Vec<Case> {
    let written = unhex("5741434b010004000807060504030201 00010203".replace(' ', "").as_str());
    let batch = 0x0102_0304_0506_0708;
    let many: Vec<u8> = (0..255).map(|i| i % 4).collect();
    let fourteen = [0; 14];
    vec![
        case("written_out", &written, &[(batch, &[0, 1, 2, 3])], 0),
        case("empty_payload", &[], &[], 0),
        case("one_status", &ack(1, &[0]), &[(1, &[0])], 0),
        case("no_status", &ack(1, &[]), &[(1, &[])], 0),
        case("fourteen_statuses", &ack(7, &fourteen), &[(7, &fourteen)], 0),
        case("255_statuses", &ack(u64::MAX, &many), &[(u64::MAX, &many)], 0),
        case(
            "three_acks_in_one_datagram",
            &[ack(1, &[0, 0]), ack(2, &[2]), ack(3, &[3, 1, 0])].concat(),
            &[(1, &[0, 0]), (2, &[2]), (3, &[3, 1, 0])],
            0,
        ),
        case("batch_zero", &ack(0, &[1]), &[(0, &[1])], 0),
        waiting("retry_after_a_second", &with(&ack(1, &[2]), 7, &[10]), &[(1, 1000, &[2])], 0),
        waiting("retry_after_the_longest", &with(&ack(1, &[2]), 7, &[255]), &[(1, 25_500, &[2])], 0),
        waiting("nothing_to_retry_and_a_time", &with(&ack(1, &[0]), 7, &[1]), &[(1, 100, &[0])], 0),
    ]
}

fn damaged() -> Vec<Case> {
    let good = ack(1, &[0, 1, 2, 3]);
    let mut cases = vec![
        case("header_lacks_its_last_octet", &good[..15], &[], 15),
        case("statuses_lack_their_last_octet", &good[..19], &[], 19),
        case("one_octet_after_the_ack", &[&good[..], &[0]].concat(), &[(1, &[0, 1, 2, 3])], 1),
        case("status_4", &with(&good, 19, &[4]), &[], 20),
        case("status_255", &with(&good, 16, &[255]), &[], 20),
        case("magic_of_a_datagram", &with(&good, 0, b"WEIR"), &[], 20),
        case("magic_lower_case", &with(&good, 0, b"wack"), &[], 20),
        case("version_0", &with(&good, 4, &[0]), &[], 20),
        case("version_2", &with(&good, 4, &[2]), &[], 20),
        case("count_one_too_large", &with(&good, 6, &[5]), &[], 20),
        case("count_one_too_small", &with(&good, 6, &[3]), &[(1, &[0, 1, 2])], 1),
        case(
            "a_bad_second_ack_does_not_undo_the_first",
            &[ack(1, &[0]), with(&ack(2, &[0]), 4, &[2]), ack(3, &[0])].concat(),
            &[(1, &[0])],
            34,
        ),
    ];
    for bit in 0..8 {
        cases.push(case(&format!("flag_bit_{bit}"), &with(&good, 5, &[1 << bit]), &[], 20));
    }
    cases
}

pub(crate) fn replay(vector: &Value) {
    let bytes = unhex(vector["hex"].as_str().expect("hex"));
    let mut acks = Acks::new(&bytes);
    let name = |status: AckStatus| match status {
        AckStatus::Created => "created",
        AckStatus::Exists => "exists",
        AckStatus::Retry => "retry",
        AckStatus::Malformed => "malformed",
    };
    let read: Vec<Value> = acks
        .by_ref()
        .map(|ack| {
            let statuses = ack.statuses.iter().map(|&status| AckStatus::from_number(status).map(name));
            let statuses = statuses.collect::<Vec<_>>();
            json!({"batch_id": number(ack.batch_id), "retry_after_ms": ack.retry_after_ms, "statuses": statuses})
        })
        .collect();
    assert_eq!(Value::from(read), vector["acks"]);
    assert_eq!(acks.rest().len(), vector["unread"]);
}
