//! The node's heartbeat: a line every 50 ms to each who listens, that clicks should come here, or why not.
//!
//! It is for who announces the node's addresses: a node that dies falls silent, and its connection ends when the kernel
//! has freed its memory and closes its sockets; one that is frozen falls silent after a beat. What is said is what
//! [`Readiness`] says, and that every worker has turned of late: one that hangs takes no clicks, whatever the rest of the
//! node believes.
//!
//! While nobody listens it sleeps. Start reading at [`serve`].

use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::UnixListener;
use tokio::time::{MissedTickBehavior, interval};

use super::readiness::Readiness;
use super::turning::Turning;
use super::{Sources, State};

/// Name of the socket in the run folder.
pub const HEARTBEAT_NAME: &str = "heartbeat.sock";
/// Between two beats. A listener that gives a node up after four of them does so within a fifth of a second.
pub const BEAT: Duration = Duration::from_millis(50);
/// Beats without a turn after which a worker hangs: half a second, in which one that idles turns fifty times. A host
/// with two to four times the work it has cores for kept a sound worker from turning for up to 450 ms, now and then, and a node
/// that is withdrawn for that is away for longer than it was late, as are all others of a POP that is as busy.
const STILL_BEATS_MAX: u32 = 10;
/// Listeners at once: one announces; the others look.
const LISTENERS_MAX: usize = 16;
/// What the kernel keeps for a listener that does not read: some forty beats, or two seconds.
const UNREAD_BYTES_MAX: usize = 16 << 10;
/// A reason is a few words.
const REASON_CHARS_MAX: usize = 200;

/// What a beat says while clicks should come here.
const READY_LINE: &str = "1\n";

pub(super) async fn serve(listener: UnixListener, sources: Arc<Sources>) {
    let mut listeners = Vec::with_capacity(LISTENERS_MAX);
    let mut turning = Turning::new(sources.workers.len(), STILL_BEATS_MAX);
    let mut beats = interval(BEAT);
    // Beats that were missed are not made up for: what they would have said is over.
    beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
    // Out of descriptors, most likely: nobody is let in before the next beat, rather than spin.
    let mut is_full = false;
    loop {
        tokio::select! {
            accepted = listener.accept(), if !is_full => match accepted.and_then(|(stream, _)| blocking_not(stream)) {
                // The one too many is closed, and sees that.
                Ok(stream) if listeners.len() < LISTENERS_MAX => {
                    if listeners.is_empty() {
                        turning = Turning::new(sources.workers.len(), STILL_BEATS_MAX);
                        beats.reset_immediately();
                    }
                    listeners.push(stream);
                }
                Ok(_) => {}
                Err(_) => is_full = true,
            },
            _ = beats.tick(), if is_full || !listeners.is_empty() => {
                is_full = false;
                let line = line(&sources, &mut turning);
                // One that is gone, or does not read, is dropped; nobody waits for it.
                listeners.retain_mut(|listener| listener.write(line.as_bytes()).is_ok_and(|len| len == line.len()));
            }
        }
    }
}

/// A listener that is written to directly, so that a beat goes out at once or not at all.
fn blocking_not(stream: tokio::net::UnixStream) -> std::io::Result<UnixStream> {
    rustix::net::sockopt::set_socket_send_buffer_size(&stream, UNREAD_BYTES_MAX)?;
    // It stays as it is, which is not blocking.
    stream.into_std()
}

/// What this beat says.
fn line(sources: &Sources, turning: &mut Turning) -> String {
    let readiness = Readiness::read(sources);
    // Before and after that, workers may do other things than turn.
    let hangs = sources.state.get() == State::Running
        && turning.hanging(sources.workers.iter().map(|worker| worker.turns.get())).is_some();
    match readiness.fault() {
        Some(fault) => refusal(fault),
        None if hangs => refusal("a worker hangs"),
        None => READY_LINE.to_owned(),
    }
}

/// A beat that says why clicks should not come here: one line, whatever the reason holds.
fn refusal(reason: &str) -> String {
    let plain = reason.chars().map(|letter| if letter.is_control() { ' ' } else { letter });
    format!("0 {}\n", plain.take(REASON_CHARS_MAX).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_and_not_a_long_one() {
        assert_eq!(refusal("the journal is full"), "0 the journal is full\n");
        assert_eq!(refusal("drained:\n1\n"), "0 drained: 1 \n");
        assert_eq!(refusal(&"x".repeat(1000)).len(), "0 \n".len() + REASON_CHARS_MAX);
    }
}
