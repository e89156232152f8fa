use super::*;

const CHROME: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/141.0.0.0 Safari/537.36";
const FIREFOX: &str = "Mozilla/5.0 (X11; Linux x86_64; rv:144.0) Gecko/20100101 Firefox/144.0";
const SAFARI: &str = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_6 like Mac OS X) AppleWebKit/605.1.15 (KHTML, like Gecko) \
                      Version/18.6 Mobile/15E148 Safari/604.1";
const EDGE: &str = "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) \
                    Chrome/141.0.0.0 Safari/537.36 Edg/141.0.0.0";
const CUBOT: &str = "Mozilla/5.0 (Linux; Android 13; CUBOT KINGKONG 9) AppleWebKit/537.36 (KHTML, like Gecko) \
                     Chrome/140.0.0.0 Mobile Safari/537.36";
const APP: &str = "Dalvik/2.1.0 (Linux; U; Android 15; SM-S921B Build/AP3A.240905.015)";

fn patterns(text: &str) -> Result<PatternList, ListError> {
    PatternList::read("test", &Source::from_bytes(Path::new("a.list"), text.into()).unwrap(), UnixMs(0))
}

/// The lists that are shipped.
fn shipped() -> Robots {
    let load = |name, file: &str| {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/lists").join(file);
        Some(PatternList::load(name, &path, UnixMs(0)).unwrap())
    };
    Robots {
        browsers: load("browsers", "browsers.list"),
        known_robots: load("robots", "robots.list"),
        ..Robots::default()
    }
}

/// One click's verdict, as the room comes to it.
fn judge(robots: &Robots, address: Option<IpAddr>, user_agent: UserAgent<'_>) -> Verdict {
    robots.with_address(robots.judge_agent(user_agent), address)
}

fn judged(robots: &Robots, user_agent: &str) -> Verdict {
    judge(robots, None, UserAgent::Sent(user_agent.as_bytes()))
}

#[test]
fn browsers_and_apps_pass_the_shipped_lists() {
    let robots = shipped();
    for user_agent in [CHROME, FIREFOX, SAFARI, EDGE, CUBOT, APP] {
        assert_eq!(judged(&robots, user_agent), Verdict::Valid, "{user_agent}");
    }
}

#[test]
fn robots_that_pretend_to_be_browsers_fail_the_second_pass_of_the_shipped_lists() {
    let robots = shipped();
    for user_agent in [
        "Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko; compatible; ExampleBot/2.1; +http://www.example.com/bot.html) \
         Chrome/141.0.0.0 Safari/537.36",
        "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) HeadlessChrome/141.0.0.0 Safari/537.36",
        "Mozilla/5.0 (compatible; Example-Crawler; Chrome/100)",
        "MOZILLA/5.0 (COMPATIBLE; EXAMPLE SPIDER; FIREFOX/99)",
    ] {
        assert_eq!(judged(&robots, user_agent), Verdict::KnownRobot, "{user_agent}");
    }
}

#[test]
fn what_is_no_browser_fails_the_first_pass_of_the_shipped_lists() {
    let robots = shipped();
    for user_agent in ["curl/8.5.0", "python-requests/2.32.3", "Go-http-client/2.0", "Java/21.0.1", "example"]
    {
        assert_eq!(judged(&robots, user_agent), Verdict::NoBrowser, "{user_agent}");
    }
}

#[test]
fn who_could_send_a_user_agent_and_does_not_is_no_browser_and_who_was_not_asked_is() {
    let robots = shipped();
    for user_agent in [UserAgent::Absent, UserAgent::Sent(b""), UserAgent::Sent(b" "), UserAgent::Sent(b"-")]
    {
        assert_eq!(judge(&robots, None, user_agent), Verdict::NoUserAgent, "{user_agent:?}");
    }
    assert_eq!(judge(&robots, None, UserAgent::Unasked), Verdict::Valid);
    assert_eq!(judge(&Robots::default(), None, UserAgent::Absent), Verdict::Valid, "no list asks for one");
}

#[test]
fn the_first_list_with_an_answer_decides_in_the_order_of_the_field() {
    let prefixes = Source::from_bytes(Path::new("a"), b"192.0.2.0/24".to_vec()).unwrap();
    let mut robots = Robots {
        custom_valid: Some(patterns("acme\n").unwrap()),
        custom_robots: Some(patterns("acme\nevil\n").unwrap()),
        addresses: Some(PrefixList::read("addresses", &prefixes, UnixMs(0)).unwrap()),
        browsers: Some(patterns("acme\nevil\nchrome\n").unwrap()),
        known_robots: Some(patterns("chrome\ncurl\n").unwrap()),
    };
    let (listed, other) = (Some([192, 0, 2, 7].into()), Some([198, 51, 100, 7].into()));
    let judge_text =
        |robots: &Robots, address, text: &str| judge(robots, address, UserAgent::Sent(text.as_bytes()));
    assert_eq!(judge_text(&robots, listed, "acme evil chrome"), Verdict::CustomValid);
    assert_eq!(judge_text(&robots, listed, "evil chrome"), Verdict::CustomRobot);
    assert_eq!(judge_text(&robots, listed, ""), Verdict::RobotAddress);
    assert_eq!(judge(&robots, listed, UserAgent::Unasked), Verdict::RobotAddress);
    assert_eq!(judge_text(&robots, other, ""), Verdict::NoUserAgent);
    assert_eq!(judge_text(&robots, other, "curl"), Verdict::NoBrowser);
    assert_eq!(judge_text(&robots, other, "chrome"), Verdict::KnownRobot);
    robots.known_robots = None;
    assert_eq!(judge_text(&robots, other, "chrome"), Verdict::Valid);
    robots.browsers = None;
    assert_eq!(judge_text(&robots, other, "curl"), Verdict::Valid);
}

#[test]
fn only_two_verdicts_are_of_valid_traffic() {
    use Verdict::{CustomRobot, CustomValid, KnownRobot, NoBrowser, NoUserAgent, RobotAddress, Valid};
    assert!([CustomValid, Valid].iter().all(|verdict| !verdict.is_robot()));
    assert!(
        [CustomRobot, RobotAddress, NoUserAgent, NoBrowser, KnownRobot]
            .iter()
            .all(|verdict| verdict.is_robot())
    );
}

#[test]
fn a_pattern_matches_in_any_case_at_the_start_or_unless_an_exception_is_there() {
    let list =
        patterns("# a comment\nExample\n^Java/\nbot | cubot, robotic\n^app | apple\nmulti word\n").unwrap();
    let matches = |text: &str| list.matches(text.as_bytes());
    assert!(
        matches("an eXaMpLe here") && matches("java/21") && matches("OtherBot/1") && matches("Multi Word")
    );
    assert!(
        !matches("not java/21") && !matches("CUBOT phone") && !matches("ROBOTIC") && !matches("multiword")
    );
    assert!(matches("app/1") && !matches("Apple/1") && !matches("an app/1"));
    assert!(!matches("a comment") && !matches(""));
    assert_eq!(list.version().entries, 5);
}

#[test]
fn patterns_that_overlap_are_all_found() {
    let list = patterns("abcd | never\nbc | xx\n^ab | bc\n").unwrap();
    assert!(list.matches(b"abcdxx"), "the first, though an exception of the second is there");
    assert!(list.matches(b"zabcxy") && !list.matches(b"zabcxx") && list.matches(b"abxx"));
}

#[test]
fn a_user_agent_is_looked_at_as_far_as_its_bound() {
    let robots = Robots { known_robots: Some(patterns("evil\n").unwrap()), ..Robots::default() };
    let at = |start: usize| format!("{}evil", "x".repeat(start));
    assert_eq!(judged(&robots, &at(USER_AGENT_LEN_MAX - 4)), Verdict::KnownRobot);
    assert_eq!(judged(&robots, &at(USER_AGENT_LEN_MAX - 3)), Verdict::Valid);
}

#[test]
fn a_list_of_patterns_past_its_bounds_is_refused_with_line_and_remedy() {
    let long = format!("fine\n\nx\n{}\nfine too | y\n", "x".repeat(PATTERN_LEN_MAX + 1));
    let error = patterns(&long).unwrap_err().to_string();
    assert!(error.contains("line 3: \"x\" is too short for a pattern; it would match"), "{error}");
    assert!(error.contains("line 4: ") && error.contains("longer than 128 octets; a part of it"), "{error}");
    assert!(error.contains("line 5: \"y\" is too short"), "{error}");
    let many = "pattern\n".repeat(PATTERNS_MAX + 1);
    assert!(patterns(&many).unwrap_err().to_string().contains("has at least 10001 entries, more than 10000"));
}
