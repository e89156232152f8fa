//! The system clock: whether it can be right, and who keeps it so.
//!
//! Of the time daemons two say so without being asked for a change: systemd-timesyncd by a file, chronyd
//! by a datagram. The kernel's own word (`adjtimex`) would take a system call that nothing safe offers.

use std::net::{Ipv4Addr, UdpSocket};
use std::path::Path;
use std::time::Duration;

use super::finding::{Read, Unread, Verdict};
use crate::clock::{Doubt, NodeClock, Settings, Watch};
use crate::control::Status;

/// Made by systemd-timesyncd when it first has the time, at each boot (systemd-timesyncd.service(8)).
const TIMESYNCD: &str = "/run/systemd/timesync";
/// Where chronyd answers anybody on this host (`cmdport` of chrony.conf(5)).
const CHRONYD_PORT: u16 = 323;
/// It is on this host.
const CHRONYD_WAIT: Duration = Duration::from_millis(500);
/// chronyd's protocol 6, `candm.h`: a request for `tracking` is as long as its answer.
const TRACKING_LEN: usize = 104;
const VERSION: u8 = 6;
const REQUEST: u8 = 1;
const ANSWER: u8 = 2;
const TRACKING: [u8; 2] = 33_u16.to_be_bytes();
const TRACKING_ANSWER: [u8; 2] = 5_u16.to_be_bytes();
/// The leap status stands behind the header (28), the reference (4), its address (20) and its stratum (2).
const LEAP_AT: usize = 54;
const LEAP_UNSYNCHRONISED: u16 = 3;

/// Who keeps the clock, and whether it has the time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Keeper {
    pub(super) name: &'static str,
    pub(super) is_synchronised: bool,
}

/// What speaks against the clock: as a start would judge it, or as the node that runs does.
pub(super) fn doubt(settings: Settings, running: Option<&Status>) -> Option<Doubt> {
    if let Some(status) = running {
        let name = status.time.doubt.as_deref()?;
        return Doubt::ALL.iter().copied().find(|doubt| doubt.name() == name);
    }
    let clock = NodeClock::default();
    let _watch = Watch::begin(&clock, settings, None, false);
    clock.read().doubt
}

/// Asks who keeps the clock.
pub(super) fn keeper() -> Read<Keeper> {
    if let Some(is_synchronised) = ask_chronyd(CHRONYD_PORT) {
        return Ok(Keeper { name: "chronyd", is_synchronised });
    }
    if Path::new(TIMESYNCD).is_dir() {
        let is_synchronised = Path::new(TIMESYNCD).join("synchronized").exists();
        return Ok(Keeper { name: "systemd-timesyncd", is_synchronised });
    }
    Err(Unread(
        "neither chronyd nor systemd-timesyncd answers; `timedatectl` says what the kernel knows".to_owned(),
    ))
}

/// Whether chronyd has the time; none when nobody answers there.
fn ask_chronyd(port: u16) -> Option<bool> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    socket.connect((Ipv4Addr::LOCALHOST, port)).ok()?;
    socket.set_read_timeout(Some(CHRONYD_WAIT)).ok()?;
    socket.send(&tracking_request()).ok()?;
    let mut answer = [0; TRACKING_LEN];
    let len = socket.recv(&mut answer).ok()?;
    leap_status(&answer[..len]).map(|leap| leap != LEAP_UNSYNCHRONISED)
}

fn tracking_request() -> [u8; TRACKING_LEN] {
    let mut request = [0; TRACKING_LEN];
    (request[0], request[1]) = (VERSION, REQUEST);
    request[4..6].copy_from_slice(&TRACKING);
    request
}

fn leap_status(answer: &[u8]) -> Option<u16> {
    let is_ours = answer.len() == TRACKING_LEN && answer[..2] == [VERSION, ANSWER];
    let is_tracking = is_ours && answer[6..8] == TRACKING_ANSWER && answer[8..10] == [0, 0];
    is_tracking.then(|| u16::from_be_bytes([answer[LEAP_AT], answer[LEAP_AT + 1]]))
}

pub(super) fn judge_clock(doubt: Option<Doubt>, keeper: &Read<Keeper>) -> Verdict {
    let required = "a plausible time, kept by a time daemon";
    if let Some(doubt) = doubt {
        return Verdict::fatal(required, format!("{}: {}", doubt.name(), doubt.cause())).fix(doubt.remedy());
    }
    match keeper {
        Ok(Keeper { name, is_synchronised: true }) => {
            Verdict::ok(required, format!("{name} is synchronised"))
        }
        Ok(Keeper { name, .. }) => Verdict::warning(required, format!("{name} has no source to go by yet")),
        Err(why) => Verdict::unknown(required, why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Fatal, Ok as Fine, Unknown, Warning};
    use super::*;

    fn answer(leap: u16) -> Vec<u8> {
        let mut answer = vec![0; TRACKING_LEN];
        answer[..8].copy_from_slice(&[6, 2, 0, 0, 0, 33, 0, 5]);
        answer[54..56].copy_from_slice(&leap.to_be_bytes());
        answer
    }

    #[test]
    fn a_clock_nobody_vouches_for_is_unknown_and_one_in_doubt_fatal() {
        let keeper = |is_synchronised| Ok(Keeper { name: "chronyd", is_synchronised });
        let nobody = Err(Unread("nobody".to_owned()));
        assert_eq!(judge_clock(None, &keeper(true)).severity, Fine);
        assert_eq!(judge_clock(None, &keeper(false)).severity, Warning);
        assert_eq!(judge_clock(None, &nobody).severity, Unknown);
        let doubted = judge_clock(Some(Doubt::Implausible), &keeper(true));
        assert_eq!((doubted.severity, doubted.fix.as_str()), (Fatal, Doubt::Implausible.remedy()));
    }

    #[test]
    fn chronyds_answer_says_whether_it_has_the_time() {
        assert_eq!(leap_status(&answer(0)), Some(0));
        assert_eq!(leap_status(&answer(3)), Some(LEAP_UNSYNCHRONISED));
        assert_eq!(leap_status(&answer(3)[..100]), None);
        let mut refused = answer(0);
        refused[9] = 2;
        assert_eq!(leap_status(&refused), None);
    }

    #[test]
    fn chronyd_is_asked_with_a_request_as_long_as_its_answer() {
        let chronyd = UdpSocket::bind("127.0.0.1:0").expect("a socket");
        let port = chronyd.local_addr().expect("an address").port();
        let serving = std::thread::spawn(move || {
            let mut request = [0; 256];
            let (len, from) = chronyd.recv_from(&mut request).expect("a request");
            chronyd.send_to(&answer(1), from).expect("sent");
            (len, request[..6].to_vec())
        });
        assert_eq!(ask_chronyd(port), Some(true));
        assert_eq!(serving.join().expect("served"), (TRACKING_LEN, vec![6, 1, 0, 0, 0, 33]));
    }
}
