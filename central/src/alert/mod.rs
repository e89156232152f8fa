//! Alerts: campaigns whose traffic is out of the ordinary, kept in the store, told to a webhook and shown
//! on the page.
//!
//! ```text
//! store -> windows by campaign -> series, judge -> store (alert and message, one write) -> webhook
//! ```
//!
//! Two threads: one watches and one tells, so a receiver that is slow delays no judgement. A message is
//! removed when the receiver says that it has it: it comes at least once, always under the same id.
//! Start reading at [`judge`]: it says what is out of the ordinary.

pub mod judge;
pub mod outbox;
pub mod series;
pub mod webhook;

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio::sync::watch;
use weir_common::time::{Minute, UnixMs};

use crate::again::rest;
use crate::merger::Seen;
use crate::span::Span;
use crate::store::{Store, StoreError, View};
use judge::Limits;
use outbox::{Message, Next};
use series::{Alert, Happened, Series, Window};
use webhook::Webhook;

/// How often campaigns are looked at: an alert comes this much later at the most.
const WATCH_EVERY: Duration = Duration::from_secs(5);
/// How often messages are looked for.
const TELL_EVERY: Duration = Duration::from_millis(500);
/// After this a window is taken as it is, though it is not final at every node: one that is away must not
/// end the watch.
const SETTLED_AFTER_MINUTES: u32 = 120;
/// How long alerts are kept.
const KEPT_MINUTES: u32 = 400 * 1440;

/// Why alerts end.
#[derive(Debug, displaydoc::Display, thiserror::Error)]
pub enum AlertError {
    /// {0}
    Store(#[from] StoreError),
    /// threads cannot be had: {0}
    Host(#[from] std::io::Error),
}

/// Counters of both threads.
#[derive(Debug, Default)]
pub struct Counters {
    /// Alerts that were opened.
    pub opened: AtomicU64,
    /// Messages that arrived.
    pub sent: AtomicU64,
    /// Tries that failed.
    pub failed: AtomicU64,
    /// Messages that were given up, or found no room.
    pub given_up: AtomicU64,
}

/// All campaigns.
#[derive(Debug)]
pub struct Watch {
    limits: Limits,
    window_minutes: u32,
    series: HashMap<u32, Series>,
    /// Windows of alerts that are over: no baseline.
    over: HashMap<u32, Vec<std::ops::Range<u32>>>,
    /// Windows before this one are settled.
    settled: Minute,
    /// Windows before this one were judged by an earlier run.
    judged: Minute,
}

/// Clicks by campaign in the windows that begin at these minutes.
type Counted = BTreeMap<Minute, HashMap<u32, u64>>;

impl Watch {
    /// One that goes on where the store is: it knows what alerts are open, and reads its baselines anew.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn open(store: &Store, limits: Limits, window_minutes: u32, now: UnixMs) -> Result<Self, StoreError> {
        let now = now.minute().0;
        store.prune_alerts(Minute(now.saturating_sub(KEPT_MINUTES)))?;
        let history = window_minutes * u32::try_from(limits.history_windows).unwrap_or(u32::MAX);
        let first = now.saturating_sub(history);
        let settled = Minute(first - first % window_minutes);
        let (mut series, mut over) = (HashMap::new(), HashMap::<_, Vec<_>>::new());
        for alert in store.view().alerts() {
            let alert = alert?;
            match alert.closed_minute {
                None => _ = series.insert(alert.campaign_id, Series::with(alert)),
                Some(closed) if closed < settled.0 => {}
                Some(closed) => {
                    over.entry(alert.campaign_id).or_default().push(alert.first_minute..closed + 1)
                }
            }
        }
        let judged = store.alerts_settled()?.unwrap_or(settled);
        Ok(Self { limits, window_minutes, series, over, settled, judged })
    }

    const fn window_of(&self, minute: Minute) -> Minute {
        Minute(minute.0 - minute.0 % self.window_minutes)
    }

    /// Until where windows are settled.
    #[must_use]
    pub const fn settled(&self) -> Minute {
        self.settled
    }

    /// Looks at what is counted by now; what happened to alerts, in order.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub fn turn(
        &mut self,
        view: &View,
        final_before: Option<Minute>,
        now: UnixMs,
    ) -> Result<Vec<(Happened, Alert)>, StoreError> {
        let now = now.minute();
        let old = now.0.saturating_sub(SETTLED_AFTER_MINUTES);
        let is_final = final_before.map_or(0, |minute| minute.0);
        let settled = self.window_of(Minute(is_final.max(old).min(now.0))).max(self.settled);
        let end = Minute(self.window_of(now).0 + self.window_minutes);
        let counted = self.count(view, self.settled..end)?;
        let mut happened = Vec::new();
        for start in (self.settled.0..end.0).step_by(self.window_minutes as usize).map(Minute) {
            let clicks = counted.get(&start);
            if start >= self.judged {
                for (campaign, clicks) in clicks.into_iter().flatten() {
                    let window = Window { start, clicks: *clicks };
                    let series = self.series.entry(*campaign).or_default();
                    happened.extend(series.judge(*campaign, window, &self.limits));
                }
            }
            if start < settled {
                self.settle(start, clicks, &mut happened);
            }
        }
        self.settled = settled;
        self.judged = self.judged.max(settled);
        Ok(happened)
    }

    /// Settles a window of every campaign, those without clicks as well.
    fn settle(
        &mut self,
        start: Minute,
        counted: Option<&HashMap<u32, u64>>,
        happened: &mut Vec<(Happened, Alert)>,
    ) {
        for campaign in counted.into_iter().flat_map(HashMap::keys) {
            self.series.entry(*campaign).or_default();
        }
        for (campaign, series) in &mut self.series {
            let over = self.over.get(campaign).into_iter().flatten();
            if over.clone().any(|minutes| minutes.contains(&start.0)) {
                continue;
            }
            let clicks = counted.and_then(|counted| counted.get(campaign)).copied().unwrap_or(0);
            happened.extend(series.settle(Window { start, clicks }, &self.limits));
        }
        self.series.retain(|_, series| !series.is_idle());
    }

    /// What is counted of each campaign, all traffic, by window.
    fn count(&self, view: &View, minutes: std::ops::Range<Minute>) -> Result<Counted, StoreError> {
        let mut counted = Counted::new();
        let mut campaigns: HashMap<u64, Option<u32>> = HashMap::new();
        for sum in view.tops(Span::Minute, minutes) {
            let (ad, sum) = sum?;
            let campaign = match campaigns.get(&ad) {
                Some(known) => *known,
                None => *campaigns.entry(ad).or_insert(view.campaign_of(ad)?),
            };
            let Some(campaign) = campaign else { continue }; // judged when it is known, a moment later
            let windows = counted.entry(self.window_of(sum.start)).or_default();
            let clicks = windows.entry(campaign).or_default();
            *clicks = clicks.saturating_add(sum.totals.gross());
        }
        Ok(counted)
    }
}

fn now() -> UnixMs {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    UnixMs(since.as_millis() as u64)
}

/// Watches until told to stop. With `tells` each alert becomes messages for a webhook.
///
/// # Errors
/// When the store fails.
pub fn watch(
    store: &Store,
    seen: &watch::Receiver<Seen>,
    (limits, window_minutes, tells): (Limits, u32, bool),
    (counters, stop): (&Counters, &AtomicBool),
) -> Result<(), AlertError> {
    let mut watch = Watch::open(store, limits, window_minutes, now())?;
    let mut settled = watch.settled();
    while !stop.load(Ordering::Acquire) {
        let final_before = seen.borrow().progress.final_before();
        let happened = watch.turn(&store.view(), final_before, now())?;
        for (happened, alert) in &happened {
            let (id, reasons) = (&alert.id, &alert.peak.reasons);
            tracing::warn!(
                id,
                ?happened,
                ?reasons,
                clicks = alert.peak.clicks,
                "a campaign is out of the ordinary"
            );
            counters.opened.fetch_add(u64::from(*happened == Happened::Opened), Ordering::Relaxed);
        }
        if !happened.is_empty() || settled != watch.settled() {
            settled = watch.settled();
            let message = |(happened, alert): &(Happened, Alert)| Message::of(*happened, alert, now());
            let messages: Vec<_> = happened.iter().filter(|_| tells).map(message).collect();
            let lost = store.note_alerts(&happened, &messages, settled)?;
            counters.given_up.fetch_add(lost as u64, Ordering::Relaxed);
        }
        rest(stop, WATCH_EVERY);
    }
    Ok(())
}

/// Tells a webhook what waits, until told to stop.
///
/// # Errors
/// When the store fails.
pub fn tell(
    store: &Store,
    webhook: &Webhook,
    (counters, stop): (&Counters, &AtomicBool),
) -> Result<(), AlertError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    while !stop.load(Ordering::Acquire) {
        let mut due = store.messages()?;
        due.retain(|message| message.due_at_ms <= now().0);
        due.sort_by_key(|message| message.made_at_ms);
        for mut message in due {
            if stop.load(Ordering::Acquire) {
                break;
            }
            match runtime.block_on(webhook.send(&message, now())) {
                Ok(()) => {
                    counters.sent.fetch_add(1, Ordering::Relaxed);
                    store.remove_message(&message)?;
                }
                Err(why) => note_failure(store, &mut message, &why, counters)?,
            }
        }
        rest(stop, TELL_EVERY);
    }
    Ok(())
}

fn note_failure(
    store: &Store,
    message: &mut Message,
    why: &str,
    counters: &Counters,
) -> Result<(), StoreError> {
    counters.failed.fetch_add(1, Ordering::Relaxed);
    if message.fail(now()) == Next::Later {
        tracing::warn!(why, id = message.id, tries = message.tries, "the webhook does not take a message");
        return store.set_message(message);
    }
    counters.given_up.fetch_add(1, Ordering::Relaxed);
    tracing::error!(why, id = message.id, "the webhook did not take a message for a day: it is given up");
    store.remove_message(message)
}
