//! What a run sends and who sends it, whichever way the clicks go: the settings that the engines share, and the
//! threads that carry them out.
//!
//! It knows no socket and no protocol. Start reading at [`Plan`].

use std::path::PathBuf;
use std::thread::ScopedJoinHandle;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context as _;
use serde::Serialize;
use weir_common::id::{Issuer, KeyId};
use weir_common::siphash::SipKey;

use crate::acked_log::AckedLog;
use crate::clicks::Identity;
use crate::duration::parse_duration;
use crate::key_file::{KeyArgs, read_key};
use crate::kind::Profile;
use crate::report::write_json;

/// The part of an engine's settings that every engine has.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Length of the sending phase.
    pub duration: Duration,
    /// What to send.
    pub profile: Profile,
    /// Who signs.
    pub issuer: Issuer,
    /// With which key.
    pub key_id: KeyId,
    /// The key.
    pub key: SipKey,
    /// Seeds order and contents; ids are new in each run all the same.
    pub seed: u64,
    /// Sending threads.
    pub threads: usize,
    /// The cores they are pinned to, in order; empty for none.
    pub cores: Vec<usize>,
    /// Where to note acknowledged clicks.
    pub acked_log: Option<PathBuf>,
    /// A first send later than this behind plan is late. Over UDP the time that a datagram may take to fill comes
    /// on top.
    pub late_bound: Duration,
    /// The longest wait for the last acks or replies.
    pub drain_max: Duration,
    /// Number of ads.
    pub ads: u32,
    /// Whether the node takes unsigned clicks.
    pub unsigned: bool,
}

/// What every command takes that signs clicks and reports on them.
#[derive(Clone, Debug, clap::Args)]
pub struct RunArgs {
    /// Who signs.
    #[command(flatten)]
    pub key: KeyArgs,
    /// Seeds order and contents
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// Write the report here
    #[arg(long)]
    json: Option<PathBuf>,
}

impl RunArgs {
    /// Writes the report, if that is wanted.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn write_json(&self, report: &impl Serialize) -> anyhow::Result<()> {
        self.json.as_deref().map_or(Ok(()), |path| write_json(path, report))
    }
}

/// A plan on the command line, the number of threads apart.
#[derive(Clone, Debug, clap::Args)]
pub struct PlanArgs {
    /// Length of the sending phase, such as 20s or 500ms
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    duration: Duration,
    /// What to send
    #[arg(long, value_enum, default_value = "clean")]
    profile: Profile,
    /// What it has in common with other commands.
    #[command(flatten)]
    pub run: RunArgs,
    /// Cores to pin the threads to, in order
    #[arg(long, value_delimiter = ',')]
    cores: Vec<usize>,
    /// Write a line for each acknowledged click here
    #[arg(long)]
    acked_log: Option<PathBuf>,
    /// A first send later than this behind plan is late; over 0.1 % of them make the run invalid
    #[arg(long, value_parser = parse_duration, default_value = "10ms")]
    late_bound: Duration,
    /// The longest wait for the last answers
    #[arg(long, value_parser = parse_duration, default_value = "15s")]
    drain: Duration,
    /// Number of ads
    #[arg(long, default_value_t = 1000, value_parser = clap::value_parser!(u32).range(1..))]
    ads: u32,
    /// The node refuses unsigned clicks (`admission.allow_unsigned = false`)
    #[arg(long)]
    unsigned_refused: bool,
}

impl PlanArgs {
    /// The plan, for so many threads.
    ///
    /// # Errors
    /// The key cannot be read.
    pub fn plan(&self, threads: usize) -> anyhow::Result<Plan> {
        Ok(Plan {
            duration: self.duration,
            profile: self.profile,
            issuer: Issuer(self.run.key.issuer),
            key_id: KeyId(self.run.key.key),
            key: read_key(&self.run.key.key_file)?,
            seed: self.run.seed,
            threads,
            cores: self.cores.clone(),
            acked_log: self.acked_log.clone(),
            late_bound: self.late_bound,
            drain_max: self.drain,
            ads: self.ads,
            unsigned: !self.unsigned_refused,
        })
    }
}

/// The time, in ms since 1970.
pub(crate) fn now_ms() -> anyhow::Result<u64> {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).context("the clock is before 1970")?;
    Ok(since.as_millis() as u64)
}

/// Where the sequences of a run begin, so that those of two runs do not meet: 2^20 of them for each millisecond
/// between the starts.
pub(crate) const fn first_sequence(now_ms: u64) -> u64 {
    now_ms << 20
}

impl Plan {
    /// What each thread has of its own: its ids, and its end of the log.
    pub(crate) fn shares(&self) -> anyhow::Result<Vec<(Identity, Option<AckedLog>)>> {
        let run = first_sequence(now_ms()?);
        let log = self.acked_log.as_deref().map(AckedLog::create).transpose().context("acked log")?;
        let share = |thread| {
            let identity = Identity {
                issuer: self.issuer,
                key_id: self.key_id,
                key: self.key,
                run,
                thread: thread as u64,
                threads: self.threads as u64,
                seed: self.seed,
                ads: self.ads,
                hot_share: self.profile.hot_share(),
            };
            (identity, log.as_ref().map(AckedLog::another))
        };
        Ok((0..self.threads).map(share).collect())
    }

    /// Runs each load on a thread of its own, pinned as planned; `watch` looks on. The results, in order.
    pub(crate) fn carry_out<L: Send, T: Send>(
        &self,
        loads: Vec<L>,
        run: impl Fn(usize, L) -> anyhow::Result<T> + Sync,
        watch: impl FnOnce(&[ScopedJoinHandle<'_, anyhow::Result<T>>]),
    ) -> anyhow::Result<Vec<T>> {
        let run = &run;
        std::thread::scope(|scope| {
            let start = |(thread, load)| {
                let core = self.cores.get(thread).copied();
                scope.spawn(move || {
                    if let Some(id) = core {
                        core_affinity::set_for_current(core_affinity::CoreId { id });
                    }
                    run(thread, load)
                })
            };
            let handles: Vec<_> = loads.into_iter().enumerate().map(start).collect();
            watch(&handles);
            let join = |handle: ScopedJoinHandle<'_, anyhow::Result<T>>| {
                handle.join().unwrap_or_else(|_| Err(anyhow::anyhow!("a sending thread panicked")))
            };
            handles.into_iter().map(join).collect()
        })
    }
}
