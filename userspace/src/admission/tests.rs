use weir_common::id::{ImpressionId, Issuer, KeyId};
use weir_common::row::row_flags::CLOCK_SUSPECT;
use weir_common::siphash::SipKey;
use zerocopy::byteorder::little_endian::{U16, U32, U64};

use super::*;

const NOW: UnixMs = UnixMs(1_700_000_000_000);
const SECRET: SipKey = SipKey { k0: 1, k1: 2 };

fn admission(allow_unsigned: bool) -> Admission {
    let key = SigningKey { issuer: Issuer(3), id: KeyId(4), secret: SECRET };
    Admission::new(Settings { allow_unsigned, ..Settings::default() }, KeyRing::new(&[key]).unwrap())
}

/// A click signed with the right key, issued `age_s` ago and clicked now.
fn signed(age_s: i64) -> Click {
    let issued_at_s = (i64::from(NOW.seconds()) - age_s) as u32;
    let mut click = Click {
        impression: ImpressionId::issued(Issuer(3), KeyId(4), issued_at_s, 77),
        ad: U64::new(5),
        clicked_at_ms: U64::new(NOW.0),
        ..Click::zeroed()
    };
    click.tag = U64::new(click.expected_tag(&SECRET));
    click
}

fn foreign() -> Click {
    Click { flags: click_flags::FOREIGN, clicked_at_ms: U64::new(NOW.0), ..Click::zeroed() }
}

fn judge_at(now: UnixMs, click: &Click) -> Judgement {
    let mut out = Vec::new();
    admission(true).judge(now, &[Arrival { click, extension: &[] }], &mut out);
    out[0]
}

fn reason(click: &Click) -> Option<(Outcome, Reason)> {
    match judge_at(NOW, click) {
        Judgement::Admit(_) => None,
        Judgement::Reject(outcome, reason) => Some((outcome, reason)),
    }
}

fn admitted(click: &Click) -> Admitted {
    match judge_at(NOW, click) {
        Judgement::Admit(admitted) => admitted,
        Judgement::Reject(_, reason) => panic!("rejected: {reason:?}"),
    }
}

#[test]
fn a_signed_click_is_admitted_to_its_own_minute() {
    let expected = Admitted { minute: NOW.minute(), row_flags: 0, traffic: Flags::NONE, late: false };
    assert_eq!(admitted(&signed(30)), expected);
}

#[test]
fn each_signed_byte_is_under_the_tag() {
    use zerocopy::{FromBytes, IntoBytes};
    for byte in 0..48 {
        let mut click = signed(30);
        click.as_mut_bytes()[byte] ^= 1;
        let click = Click::read_from_bytes(click.as_bytes()).unwrap();
        let (outcome, reason) = reason(&click).unwrap();
        // The price's high bytes make it a price that no click may have.
        let expected = if (29..32).contains(&byte) { Outcome::Malformed } else { Outcome::Refused };
        assert_eq!(outcome, expected);
        match byte {
            29..32 => assert_eq!(reason, Reason::BadPrice),
            0..4 => assert_eq!(reason, Reason::UnknownKey),
            // Another issue time may be out of bounds before its tag is looked at.
            4..8 => assert!(matches!(reason, Reason::BadTag | Reason::Expired | Reason::NotYetIssued)),
            _ => assert_eq!(reason, Reason::BadTag),
        }
    }
}

#[test]
fn each_bit_of_the_tag_counts() {
    for bit in 0..64 {
        let mut click = signed(30);
        click.tag = U64::new(click.tag.get() ^ 1 << bit);
        assert_eq!(reason(&click), Some((Outcome::Refused, Reason::BadTag)));
    }
}

#[test]
fn an_impression_lives_exactly_its_lifetime() {
    let lifetime_s = 86_400;
    assert_eq!(reason(&signed(lifetime_s)), None);
    assert_eq!(reason(&signed(lifetime_s + 1)), Some((Outcome::Refused, Reason::Expired)));
}

#[test]
fn an_impression_may_be_a_minute_ahead_and_no_more() {
    assert_eq!(reason(&signed(-60)), None);
    assert_eq!(reason(&signed(-61)), Some((Outcome::Refused, Reason::NotYetIssued)));
}

#[test]
fn the_first_failing_check_names_the_reason() {
    let mut click = signed(90_000);
    click.tag = U64::new(0);
    assert_eq!(reason(&click), Some((Outcome::Refused, Reason::Expired)));
    click.ordinal = ORDINALS;
    assert_eq!(reason(&click), Some((Outcome::Refused, Reason::OrdinalLimit)));
    click.reserved = U32::new(1);
    assert_eq!(reason(&click), Some((Outcome::Malformed, Reason::ReservedBits)));
}

#[test]
fn unsigned_clicks_are_taken_only_where_allowed() {
    let mut out = Vec::new();
    let click = foreign();
    let arrivals = [Arrival { click: &click, extension: &[] }];
    admission(true).judge(NOW, &arrivals, &mut out);
    admission(false).judge(NOW, &arrivals, &mut out);
    assert!(matches!(out[0], Judgement::Admit(_)));
    assert_eq!(out[1], Judgement::Reject(Outcome::Refused, Reason::UnsignedNotAllowed));
}

#[test]
fn judgements_come_in_the_order_of_their_clicks() {
    let clicks = [signed(1), signed(90_000), foreign(), signed(2)];
    let arrivals: Vec<_> = clicks.iter().map(|click| Arrival { click, extension: &[] }).collect();
    let mut out = Vec::new();
    admission(false).judge(NOW, &arrivals, &mut out);
    let refused = |reason| Judgement::Reject(Outcome::Refused, reason);
    assert!(matches!(out[0], Judgement::Admit(_)) && matches!(out[3], Judgement::Admit(_)));
    assert_eq!(out[1..3], [refused(Reason::Expired), refused(Reason::UnsignedNotAllowed)]);
}

#[test]
fn test_and_prefetch_flags_become_filters_and_test_wins() {
    let with = |flags| admitted(&Click { flags: flags | click_flags::FOREIGN, ..foreign() }).traffic.reason();
    assert_eq!(with(0), Reason::None);
    assert_eq!(with(click_flags::PREFETCH), Reason::Prefetch);
    assert_eq!(with(click_flags::TEST), Reason::TestTraffic);
    assert_eq!(with(click_flags::TEST | click_flags::PREFETCH), Reason::TestTraffic);
}

/// (ms after now the click claims, minute relative to now's, flags, late)
fn placed(offset_ms: i64) -> (i64, u8, bool) {
    let clicked_at_ms = U64::new(NOW.0.wrapping_add_signed(offset_ms));
    let found = admitted(&Click { clicked_at_ms, ..foreign() });
    (i64::from(found.minute.0) - i64::from(NOW.minute().0), found.row_flags, found.late)
}

#[test]
fn the_minute_is_the_clicks_own_within_a_minute_ahead_and_ten_behind() {
    // NOW is 20 s into its minute.
    assert_eq!(NOW.0 % 60_000, 20_000);
    assert_eq!(placed(60_000), (1, 0, false));
    assert_eq!(placed(60_001), (0, CLOCK_SUSPECT, false));
    assert_eq!(placed(-20_000), (0, 0, false));
    assert_eq!(placed(-20_001), (-1, 0, false));
    assert_eq!(placed(-600_000), (-10, 0, false));
}

#[test]
fn a_late_click_is_counted_where_it_was_received() {
    assert_eq!(placed(-600_001), (0, 0, true));
    assert_eq!(placed(-86_400_000), (0, 0, true));
    assert_eq!(placed(-86_400_001), (0, CLOCK_SUSPECT, false));
}

#[test]
fn a_click_of_a_minute_that_is_final_at_the_sink_is_late_however_late_clicks_may_be() {
    let settings = Settings {
        lateness_ms: 3_600_000,
        closed_before: Minute(NOW.minute().0 - 20),
        allow_unsigned: true,
        ..Settings::default()
    };
    let admission = Admission::new(settings, KeyRing::new(&[]).unwrap());
    let late = |minutes_ago: u32| {
        let clicked_at_ms = U64::new(Minute(NOW.minute().0 - minutes_ago).start().0);
        let click = Click { clicked_at_ms, ..foreign() };
        let mut out = Vec::new();
        admission.judge(NOW, &[Arrival { click: &click, extension: &[] }], &mut out);
        match out[0] {
            Judgement::Admit(Admitted { late, minute, .. }) => (late, NOW.minute().0 - minute.0),
            Judgement::Reject(_, reason) => panic!("rejected: {reason:?}"),
        }
    };
    assert_eq!([late(19), late(20), late(21), late(40)], [(false, 19), (false, 20), (true, 0), (true, 0)]);
}

#[test]
fn a_click_before_its_issue_is_suspect_beyond_the_grain_of_issue_times() {
    let issued_at_ms = (NOW.0 / 1000 - 30) * 1000;
    let mut click = signed(30);
    click.clicked_at_ms = U64::new(issued_at_ms - 1000);
    assert_eq!(admitted(&click).row_flags, 0);
    click.clicked_at_ms = U64::new(issued_at_ms - 1001);
    assert_eq!(admitted(&click).row_flags, CLOCK_SUSPECT);
}

#[test]
fn no_moment_makes_admission_panic() {
    let moments = [0, 1, 999, u64::from(u32::MAX), u64::from(u32::MAX) * 1000, u64::MAX - 1, u64::MAX];
    for now in moments {
        for clicked in moments {
            for issued_at_s in [0, 1, u32::MAX] {
                let mut click = Click { clicked_at_ms: U64::new(clicked), ..signed(0) };
                click.impression = ImpressionId::issued(Issuer(3), KeyId(4), issued_at_s, 1);
                click.tag = U64::new(click.expected_tag(&SECRET));
                judge_at(UnixMs(now), &click);
                judge_at(UnixMs(now), &Click { clicked_at_ms: U64::new(clicked), ..foreign() });
            }
        }
    }
}

#[test]
fn a_faulty_extension_costs_only_its_own_click() {
    let mut click = signed(1);
    click.extension_len = U16::new(1);
    let mut out = Vec::new();
    let arrivals =
        [Arrival { click: &click, extension: &[9] }, Arrival { click: &signed(1), extension: &[] }];
    admission(false).judge(NOW, &arrivals, &mut out);
    assert_eq!(out[0], Judgement::Reject(Outcome::Malformed, Reason::BadExtension));
    assert!(matches!(out[1], Judgement::Admit(_)));
}
