//! Keeps BIRD's protocols as they were decided, whatever happens to BIRD.
//!
//! A decision is told at once, and again every second: a BIRD that was restarted, or whose config was read again, has
//! its protocols as the config says, which is disabled. Only the last decision counts; one that could not be told is
//! not made up for. Start reading at [`keep`].

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::sleep;

use super::bird::{BirdError, Connection, Switch};

/// Between two attempts to reach a BIRD that is away: it is told within a tenth of a second of its return.
const CONNECT_EVERY: Duration = Duration::from_millis(100);
/// Between two assertions of the same decision. Each costs BIRD a command a protocol.
const ASSERT_EVERY: Duration = Duration::from_secs(1);

/// Who is told what.
#[derive(Clone, Debug)]
pub(super) struct Speaker {
    /// BIRD's control socket.
    pub(super) bird: PathBuf,
    /// The protocols, by name.
    pub(super) protocols: Vec<String>,
}

/// Tells BIRD what was decided, for as long as somebody may decide; `is_told` says whether it knows.
pub(super) async fn keep(
    speaker: Speaker,
    mut wanted: watch::Receiver<Option<Switch>>,
    is_told: watch::Sender<bool>,
) {
    // What was logged and is still so.
    let mut complaint = String::new();
    loop {
        let Err(error) = session(&speaker, &mut wanted, &is_told, &mut complaint).await else { return };
        is_told.send_replace(false);
        complain(&mut complaint, &error.to_string());
        sleep(CONNECT_EVERY).await;
    }
}

/// One connection, for as long as it lasts; it ends without an error when nobody decides any more.
async fn session(
    speaker: &Speaker,
    wanted: &mut watch::Receiver<Option<Switch>>,
    is_told: &watch::Sender<bool>,
    complaint: &mut String,
) -> Result<(), BirdError> {
    let mut connection = Connection::open(&speaker.bird).await?;
    let mut told = None;
    loop {
        let switch = *wanted.borrow_and_update();
        if let Some(switch) = switch {
            let is_again = told == Some(switch);
            assert(speaker, &mut connection, switch, is_again, complaint)
                .await
                .map(|all| is_told.send_replace(all))?;
            told = Some(switch);
        }
        tokio::select! {
            changed = wanted.changed() => if changed.is_err() { return Ok(()) },
            error = connection.ended() => return Err(error),
            () = sleep(ASSERT_EVERY), if switch.is_some() => {}
        }
    }
}

/// Switches all protocols; whether all are so now. What BIRD refuses for one keeps it from none of the others.
async fn assert(
    speaker: &Speaker,
    connection: &mut Connection,
    switch: Switch,
    is_again: bool,
    complaint: &mut String,
) -> Result<bool, BirdError> {
    let mut refusals = BTreeSet::new();
    for protocol in &speaker.protocols {
        match connection.tell(switch, protocol).await {
            Ok(true) if is_again => {
                tracing::warn!(protocol, ?switch, "BIRD did not have it as it was told; it was told again");
            }
            Ok(true) => tracing::info!(protocol, ?switch, "BIRD was told"),
            Ok(false) => {}
            Err(error @ BirdError::Refused { .. }) => drop(refusals.insert(error.to_string())),
            Err(error) => return Err(error),
        }
    }
    let all = refusals.is_empty();
    if all {
        if !complaint.is_empty() {
            tracing::info!("BIRD takes what it is told again");
            complaint.clear();
        }
    } else {
        complain(complaint, &refusals.into_iter().collect::<Vec<_>>().join("; "));
    }
    Ok(all)
}

/// Logs what is wrong, once for as long as it is the same.
fn complain(complaint: &mut String, error: &str) {
    if complaint != error {
        tracing::error!(error, "BIRD could not be told; it is tried again for as long as it takes");
        error.clone_into(complaint);
    }
}
