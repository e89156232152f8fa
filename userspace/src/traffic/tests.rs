use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use weir_common::siphash::SipKey;

use super::*;

const NOW: UnixMs = UnixMs(1_790_000_000_000);
const BROWSER: &[u8] = b"Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0";

struct Folder(TempDir);

impl Folder {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn write(&self, name: &str, text: &str) -> Option<PathBuf> {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        Some(path)
    }

    /// One entry in each list.
    fn settings(&self) -> Settings {
        let actors = self.0.path().join("actors.filter");
        let list = self.write("actors.list", "198.51.100.66\n0x66\n").unwrap();
        actors::build(&list, &actors, NOW, &mut |_| {}).unwrap();
        Settings {
            forwarders: self.write("forwarders", "10.0.0.0/8\n"),
            data_centres: self.write("data_centres", "# version: 7\n192.0.2.0/24\n"),
            bad_prefixes: self.write("bad_prefixes", "203.0.113.0/24\n192.0.2.128/25\n"),
            bad_actors: Some(actors),
            valid_agents: self.write("valid_agents", "acme\n"),
            robot_agents: self.write("robot_agents", "evil\n"),
            robot_addresses: self.write("robot_addresses", "198.51.100.77\n"),
            browsers: self.write("browsers", "firefox/\n"),
            known_robots: self.write("robots", "bot\n"),
            countries: self.write("countries", "198.51.100.0/24 DE\n"),
            activity: Limits::default(),
            refractory: Refractory::default(),
        }
    }

    fn lists(&self) -> Lists {
        Lists::load(&self.settings(), NOW).unwrap()
    }
}

fn memory() -> Memory {
    Memory::new(Some(Crowd::new(1_024, SipKey::from_bytes([5; 16]))))
}

fn judge_one(lists: &Lists, memory: &mut Memory, facts: &Facts<'_>) -> Flags {
    let mut out = Vec::new();
    judge(lists, memory, &[*facts], &mut out);
    assert_eq!(out.len(), 1);
    out[0].flags
}

/// A click that nothing speaks against.
fn clean() -> Facts<'static> {
    Facts {
        address: Some([198, 51, 100, 7].into()),
        user_agent: UserAgent::Sent(BROWSER),
        country: *b"DE",
        user_key: 7,
        received_at: NOW,
        said: Flags::NONE,
        is_new: true,
    }
}

fn said(is_test: bool, is_prefetch: bool) -> Flags {
    Flags::NONE.with(Reason::TestTraffic, is_test).with(Reason::Prefetch, is_prefetch)
}

fn test() -> Flags {
    said(true, false)
}

fn prefetch() -> Flags {
    said(false, true)
}

#[track_caller]
fn finds(facts: Facts<'_>, expected: &[Reason]) {
    let flags = judge_one(&Folder::new().lists(), &mut memory(), &facts);
    assert_eq!(flags.reasons().collect::<Vec<_>>(), expected);
    assert_eq!(flags.reason(), expected.first().copied().unwrap_or(Reason::None));
}

#[test]
fn each_thing_that_speaks_against_a_click_sets_its_own_flag() {
    finds(clean(), &[]);
    finds(Facts { said: test(), ..clean() }, &[Reason::TestTraffic]);
    finds(Facts { said: prefetch(), ..clean() }, &[Reason::Prefetch]);
    finds(Facts { address: Some([192, 0, 2, 7].into()), ..clean() }, &[Reason::DataCentre]);
    finds(Facts { address: Some([203, 0, 113, 7].into()), ..clean() }, &[Reason::BadPrefix]);
    finds(Facts { address: Some([198, 51, 100, 77].into()), ..clean() }, &[Reason::Robot]);
    finds(Facts { user_agent: UserAgent::Sent(b"Firefox/1 bot"), ..clean() }, &[Reason::Robot]);
    finds(Facts { user_agent: UserAgent::Absent, ..clean() }, &[Reason::Robot]);
    finds(Facts { address: Some([198, 51, 100, 66].into()), ..clean() }, &[Reason::BadActor]);
    finds(Facts { user_key: 0x66, ..clean() }, &[Reason::BadActor]);
    finds(Facts { country: *b"FR", ..clean() }, &[Reason::ImpossibleGeography]);
}

#[test]
fn all_flags_of_a_click_are_set_and_the_first_in_order_is_counted() {
    let address = Some([192, 0, 2, 200].into());
    let user_agent = UserAgent::Sent(b"evil");
    finds(
        Facts { address, user_agent, user_key: 0x66, said: prefetch(), ..clean() },
        &[Reason::Prefetch, Reason::DataCentre, Reason::BadPrefix, Reason::Robot, Reason::BadActor],
    );
}

#[test]
fn what_is_unknown_speaks_against_nobody() {
    let user_agent = UserAgent::Unasked;
    finds(Facts { address: None, user_agent, country: [0, 0], user_key: 0, ..clean() }, &[]);
    finds(Facts { address: None, country: *b"FR", ..clean() }, &[]);
}

#[test]
fn an_own_pattern_of_valid_user_agents_speaks_for_a_robot_and_for_nothing_else() {
    let user_agent = UserAgent::Sent(b"acme evil bot");
    finds(Facts { user_agent, address: Some([198, 51, 100, 77].into()), ..clean() }, &[]);
    finds(Facts { user_agent, address: Some([192, 0, 2, 7].into()), ..clean() }, &[Reason::DataCentre]);
}

#[test]
fn the_eleventh_click_of_a_second_is_flagged_by_user_and_by_address() {
    let (lists, users) = (Folder::new().lists(), [7; 11]);
    let addresses = |n: u8| Some([198, 51, 100, n].into());
    let mut by_user = memory();
    let judged = users.iter().zip(1..).map(|(&user_key, n)| {
        judge_one(&lists, &mut by_user, &Facts { user_key, address: addresses(n), ..clean() })
    });
    assert_eq!(judged.map(Flags::reason).position(|reason| reason == Reason::Activity), Some(10));
    let mut by_address = memory();
    let judged = (1..=11).map(|user_key| judge_one(&lists, &mut by_address, &Facts { user_key, ..clean() }));
    assert_eq!(judged.map(Flags::reason).position(|reason| reason == Reason::Activity), Some(10));
}

#[test]
fn clicks_judged_together_are_judged_as_one_by_one() {
    let folder = Folder::new();
    let (lists, mut together, mut alone) = (folder.lists(), memory(), memory());
    let agents: [&[u8]; 4] = [BROWSER, b"curl/8", b"Firefox/1 bot", b""];
    let clicks: Vec<_> = (0..500_u32)
        .map(|n| Facts {
            address: (n % 7 != 0).then(|| [[198, 51, 100], [192, 0, 2]][(n % 11 == 0) as usize]).map(|net| {
                let [a, b, c] = net;
                [a, b, c, (n % 160) as u8].into()
            }),
            user_agent: UserAgent::Sent(agents[(n % 13 % 4) as usize]),
            country: [*b"DE", *b"FR", [0, 0]][(n % 3) as usize],
            user_key: u64::from(n % 5),
            received_at: UnixMs(NOW.0 + u64::from(n) * 5),
            said: said(n % 17 == 0, n % 19 == 0),
            is_new: n % 23 != 0,
        })
        .collect();
    let mut found = Vec::new();
    clicks.chunks(77).for_each(|clicks| judge(&lists, &mut together, clicks, &mut found));
    let mut expected = Vec::new();
    clicks.iter().for_each(|click| judge(&lists, &mut alone, &[*click], &mut expected));
    assert_eq!(found, expected);
    let seen = found.iter().fold(0, |seen, found| seen | found.flags.bits());
    assert_eq!(seen, u8::MAX, "every reason was there");
}

#[test]
fn a_user_agent_is_judged_anew_under_other_lists() {
    let folder = Folder::new();
    let (settings, mut memory) = (folder.settings(), memory());
    let before = Lists::load(&settings, NOW).unwrap();
    assert!(judge_one(&before, &mut memory, &clean()).is_empty());
    folder.write("robots", "firefox\n");
    let after = Lists::load(&settings, NOW).unwrap();
    assert_eq!(judge_one(&after, &mut memory, &clean()).reason(), Reason::Robot);
    assert!(judge_one(&before, &mut memory, &clean()).is_empty());
}

#[test]
fn tests_prefetches_and_copies_are_no_activity() {
    let (lists, mut activity) = (Folder::new().lists(), memory());
    for n in 0..100 {
        let facts = Facts { said: said(n % 3 == 0, n % 3 == 1), is_new: n % 3 != 2, ..clean() };
        assert!(!judge_one(&lists, &mut activity, &facts).contains(Reason::Activity));
    }
    assert!(judge_one(&lists, &mut activity, &clean()).is_empty());
}

#[test]
fn without_lists_only_activity_and_what_the_sender_says_are_judged() {
    let (lists, mut activity) = (Lists::load(&Settings::default(), NOW).unwrap(), memory());
    let robot = Facts { user_agent: UserAgent::Absent, country: *b"FR", ..clean() };
    assert!(judge_one(&lists, &mut activity, &robot).is_empty());
    assert_eq!(
        judge_one(&lists, &mut activity, &Facts { said: test(), ..robot }).reason(),
        Reason::TestTraffic
    );
    assert_eq!(lists.versions().count(), 0);
}

#[test]
fn each_list_says_which_octets_it_is_and_the_rules_have_a_number() {
    let folder = Folder::new();
    let settings = folder.settings();
    let lists = Lists::load(&settings, NOW).unwrap();
    let names: Vec<_> = lists.versions().map(|version| version.name).collect();
    let all = [
        "forwarders",
        "data_centres",
        "bad_prefixes",
        "bad_actors",
        "valid_agents",
        "robot_agents",
        "browsers",
        "known_robots",
        "robot_addresses",
        "countries",
    ];
    assert_eq!(names, all);
    let files = [
        ("forwarders", "", 1),
        ("data_centres", "7", 1),
        ("bad_prefixes", "", 2),
        ("actors.list", "", 2),
        ("valid_agents", "", 1),
        ("robot_agents", "", 1),
        ("browsers", "", 1),
        ("robots", "", 1),
        ("robot_addresses", "", 1),
        ("countries", "", 1),
    ];
    let keys = crate::config::Config::known_keys();
    for (found, (file, version, entries)) in lists.versions().zip(files) {
        let octets = fs::read(folder.0.path().join(file)).unwrap();
        let (name, crc32c) = (found.name, crc32c::crc32c(&octets));
        let expected = ListVersion { name, version: version.to_owned(), crc32c, entries, activated_at: NOW };
        assert_eq!(*found, expected);
        assert!(keys.contains(&format!("traffic.{name}_file")), "{name} has no key in the config");
    }
    let again = Lists::load(&settings, UnixMs(NOW.0 + 1)).unwrap();
    assert_eq!(again.rules_version(), lists.rules_version(), "the same octets are the same rules");
    let stricter = Limits { per_second: 9, ..Limits::default() };
    let stricter = Settings { activity: stricter, ..settings.clone() };
    assert_ne!(Lists::load(&stricter, NOW).unwrap().rules_version(), lists.rules_version());
    let shorter = Settings { refractory: Refractory(9_999), ..settings.clone() };
    assert_ne!(Lists::load(&shorter, NOW).unwrap().rules_version(), lists.rules_version());
    folder.write("robots", "bot \n");
    assert_ne!(Lists::load(&settings, NOW).unwrap().rules_version(), lists.rules_version());
}

#[test]
fn files_that_cannot_be_used_are_all_named_at_once() {
    let folder = Folder::new();
    let settings =
        Settings { known_robots: Some(Path::new("/nowhere/robots").to_owned()), ..folder.settings() };
    for name in ["data_centres", "actors.filter", "countries"] {
        folder.write(name, "nonsense\n");
    }
    let error = Lists::load(&settings, NOW).unwrap_err().to_string();
    for said in [
        "data_centres cannot be used",
        "actors.filter is no filter",
        "/nowhere/robots",
        "countries cannot be",
    ] {
        assert!(error.contains(said), "{said}: {error}");
    }
}
