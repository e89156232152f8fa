use std::fs;
use std::net::{IpAddr, Ipv4Addr};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use tempfile::TempDir;
use weir_common::time::UnixMs;

use super::*;

struct Place {
    folder: TempDir,
}

impl Place {
    fn new() -> Self {
        Self { folder: tempfile::tempdir().unwrap() }
    }

    fn list(&self) -> PathBuf {
        self.folder.path().join("actors.list")
    }

    fn filter(&self) -> PathBuf {
        self.folder.path().join("actors.filter")
    }

    fn build(&self, list: &str) -> Result<Summary, BuildError> {
        fs::write(self.list(), list).unwrap();
        build(&self.list(), &self.filter(), UnixMs(7), &mut |_| {})
    }

    fn open(&self) -> Result<ActorFilter, FilterError> {
        ActorFilter::open("bad actors", &self.filter(), UnixMs(9))
    }

    fn names(&self) -> Vec<String> {
        let entries = fs::read_dir(self.folder.path()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }
}

fn user(key: u64) -> ActorKey {
    ActorKey::user(key).unwrap()
}

#[test]
fn who_is_listed_is_found_by_address_and_by_user_key() {
    let place = Place::new();
    let list = "# version: 2026-11-22\n192.0.2.7\n2001:db8::7 # a host\n\n0xfedc\n12345\n12345\n192.0.2.7\n";
    let summary = place.build(list).unwrap();
    assert_eq!((summary.lines, summary.actors), (6, 4));
    assert_eq!(summary.bytes, fs::metadata(place.filter()).unwrap().len());
    let filter = place.open().unwrap();
    for actor in ["192.0.2.7", "::ffff:192.0.2.7", "2001:db8::ffff", "0xfedc", "12345"] {
        assert!(filter.contains(&ActorKey::read(actor).unwrap()), "{actor}");
    }
    assert!(filter.contains_address("192.0.2.7".parse().unwrap()));
    for actor in ["192.0.2.8", "2001:db8:0:1::7", "0xfedd", "12346"] {
        assert!(!filter.contains(&ActorKey::read(actor).unwrap()), "{actor}");
    }
    let version = filter.version();
    assert_eq!((version.version.as_str(), version.entries), ("2026-11-22", 4));
    assert_eq!(version.crc32c, crc32c::crc32c(list.as_bytes()));
    assert_eq!((filter.built_at(), version.activated_at), (UnixMs(7), UnixMs(9)));
    assert_eq!(place.names(), ["actors.filter", "actors.list"], "nothing is left beside it");
}

#[test]
fn an_empty_list_makes_a_filter_that_finds_nobody() {
    let place = Place::new();
    assert_eq!(place.build("# nobody\n").unwrap().actors, 0);
    let filter = place.open().unwrap();
    let found = (1..100_000).filter(|&key| filter.contains(&user(key))).count();
    assert!(found < 100, "only what looks listed by chance: {found}");
}

#[test]
fn a_list_always_gives_the_same_octets() {
    let (one, other) = (Place::new(), Place::new());
    let list: String = (1..5_000).map(|key| format!("{key}\n")).collect();
    one.build(&list).unwrap();
    other.build(&list).unwrap();
    assert!(fs::read(one.filter()).unwrap() == fs::read(other.filter()).unwrap());
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn nobody_who_is_listed_is_missed(keys in prop::collection::vec(1..u64::MAX, 0..3_000), addresses in any::<[u32; 20]>()) {
        let place = Place::new();
        let addresses = addresses.map(|bits| IpAddr::V4(Ipv4Addr::from_bits(bits)));
        let mut list: String = keys.iter().map(|key| format!("{key:#x}\n")).collect();
        list.extend(addresses.iter().map(|address| format!("{address}\n")));
        place.build(&list).unwrap();
        let filter = place.open().unwrap();
        prop_assert!(keys.iter().all(|&key| filter.contains(&user(key))));
        prop_assert!(addresses.iter().all(|&address| filter.contains_address(address)));
    }
}

#[test]
fn a_list_of_many_shards_that_names_everybody_thrice_is_built_like_a_small_one() {
    let place = Place::new();
    let mut list: String = (0..3).flat_map(|_| 1..=100_000).map(|key| format!("{key}\n")).collect();
    // So often that one shard has far more lines than are gathered at once.
    list.push_str(&"7\n".repeat(40_000));
    fs::write(place.list(), list).unwrap();
    let mut steps = Vec::new();
    let mut told = |progress| steps.push(progress);
    let summary =
        super::build::build_in_shards(&place.list(), &place.filter(), UnixMs(7), &mut told, 5_000).unwrap();
    assert_eq!((summary.lines, summary.actors), (340_000, 100_000));
    assert_eq!(steps.last(), Some(&Progress::Built { shards: 128, of: 128 }));
    let filter = place.open().unwrap();
    assert!((1..=100_000).all(|key| filter.contains(&user(key))));
    let wrong = (100_001..=1_100_000).filter(|&key| filter.contains(&user(key))).count();
    assert!(wrong < 500, "{wrong} of a million; 244 are to be expected");
}

#[test]
fn of_a_million_none_is_missed_and_of_ten_million_others_at_most_one_in_a_thousand_is_taken_for_one() {
    const LISTED: u64 = 1_000_000;
    const OTHERS: u64 = 10_000_000;
    let place = Place::new();
    let list: String = (1..=LISTED).map(|key| format!("{key}\n")).collect();
    let summary = place.build(&list).unwrap();
    assert_eq!(summary.actors, LISTED);
    let bits = summary.bytes as f64 * 8.0 / LISTED as f64;
    assert!(bits <= 14.4, "{bits} bits a key are more than 180 MB for a hundred million");
    let filter = place.open().unwrap();
    assert!((1..=LISTED).all(|key| filter.contains(&user(key))));
    let wrong = (LISTED + 1..=LISTED + OTHERS).filter(|&key| filter.contains(&user(key))).count() as u64;
    // One in 4,096 is 2,441; the bound is one in a thousand.
    assert!(wrong * 1_000 <= OTHERS && (2_000..3_000).contains(&wrong), "{wrong} of {OTHERS}");
}

#[test]
fn every_flipped_bit_and_every_cut_is_refused_with_what_to_do() {
    let place = Place::new();
    place.build("# version: 1\n192.0.2.7\n12345\n").unwrap();
    let sound = fs::read(place.filter()).unwrap();
    for bit in 0..sound.len() * 8 {
        let mut damaged = sound.clone();
        damaged[bit / 8] ^= 1 << (bit % 8);
        fs::write(place.filter(), damaged).unwrap();
        let error = place.open().expect_err("a flipped bit").to_string();
        assert!(error.contains("build it again") || error.contains("weir actors build"), "{bit}: {error}");
    }
    for len in 0..sound.len() {
        fs::write(place.filter(), &sound[..len]).unwrap();
        let error = place.open().expect_err("a cut").to_string();
        assert!(error.contains("should have") || error.contains("is no filter"), "{len}: {error}");
    }
    fs::write(place.filter(), [&sound[..], b"x"].concat()).unwrap();
    assert!(matches!(place.open(), Err(FilterError::Length { .. })));
}

#[test]
fn a_file_of_another_version_and_one_that_is_no_filter_are_told_apart() {
    let place = Place::new();
    place.build("12345\n").unwrap();
    let mut newer = fs::read(place.filter()).unwrap();
    newer[8] = 2;
    fs::write(place.filter(), newer).unwrap();
    let error = place.open().unwrap_err().to_string();
    assert!(error.contains("has version 2, this program reads version 1; build it again"), "{error}");
    fs::write(place.filter(), "192.0.2.7\n").unwrap();
    let error = place.open().unwrap_err().to_string();
    assert!(error.contains("is no filter of known-bad actors; build one with"), "{error}");
    let gone = ActorFilter::open("bad actors", Path::new("/nowhere"), UnixMs(0)).unwrap_err().to_string();
    assert!(gone.starts_with("cannot read the filter /nowhere: No such file"), "{gone}");
}

#[test]
fn a_filter_whose_path_leads_to_no_file_is_told() {
    let place = Place::new();
    fs::create_dir(place.filter()).unwrap();
    let error = place.open().unwrap_err().to_string();
    assert!(error.contains("actors.filter: it is no file"), "{error}");
}

#[test]
fn a_build_that_is_interrupted_anywhere_leaves_the_old_filter_as_it_was() {
    let place = Place::new();
    place.build("12345\n").unwrap();
    let old = fs::read(place.filter()).unwrap();
    let list: String = (1..10_000).map(|key| format!("{key}\n")).collect();
    fs::write(place.list(), list).unwrap();
    for stop in 1..=2 {
        let mut steps = 0;
        let interrupted = catch_unwind(AssertUnwindSafe(|| {
            build(&place.list(), &place.filter(), UnixMs(8), &mut |_| {
                steps += 1;
                assert!(steps < stop, "interrupted");
            })
        }));
        assert!(interrupted.is_err(), "step {stop} was reached");
        assert!(fs::read(place.filter()).unwrap() == old);
        assert_eq!(place.names(), ["actors.filter", "actors.list"]);
    }
    // What a build that was killed leaves behind is in nobody's way.
    fs::write(place.folder.path().join("actors.filter.partial"), vec![1; 1 << 20]).unwrap();
    build(&place.list(), &place.filter(), UnixMs(8), &mut |_| {}).unwrap();
    assert_eq!(place.open().unwrap().version().entries, 9_999);
    assert_eq!(place.names(), ["actors.filter", "actors.list"]);
}

#[test]
fn a_list_with_wrong_lines_is_refused_whole_with_each_of_them() {
    let place = Place::new();
    place.build("12345\n").unwrap();
    let old = fs::read(place.filter()).unwrap();
    let error = place.build("192.0.2.7\n192.0.2.0/24\n\nexample.com\n0\n").unwrap_err().to_string();
    for said in [
        "actors.list cannot be used",
        "line 2: \"192.0.2.0/24\" is a prefix",
        "line 4: ",
        "line 5: user key 0",
    ] {
        assert!(error.contains(said), "{said}: {error}");
    }
    assert!(fs::read(place.filter()).unwrap() == old);
    let long = format!("1\n{}", "2".repeat(3_000_000));
    let error = place.build(&long).unwrap_err().to_string();
    assert!(error.contains("line 2: has more than 1024 octets"), "{error}");
}

#[test]
fn two_builds_to_one_place_do_not_mix() {
    let place = Place::new();
    fs::write(place.list(), "1\n2\n").unwrap();
    let mut inner = None;
    build(&place.list(), &place.filter(), UnixMs(1), &mut |_| {
        let second = build(&place.list(), &place.filter(), UnixMs(2), &mut |_| {});
        inner.get_or_insert(second);
    })
    .unwrap();
    let error = inner.unwrap().unwrap_err().to_string();
    assert!(error.contains("another build is writing"), "{error}");
    assert_eq!(place.open().unwrap().built_at(), UnixMs(1));
}
