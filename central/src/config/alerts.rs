//! `[alerts]`: what is out of the ordinary, and who is told.

use std::path::PathBuf;

use serde::Deserialize;

use crate::alert::judge::Limits;

/// `[alerts]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Alerts {
    /// How long a window is.
    pub window_minutes: u32,
    /// Standard deviations over the mean of the windows before.
    pub z_score: f64,
    /// Times that mean.
    pub times: f64,
    /// No window with fewer clicks is out of the ordinary.
    pub least_clicks: u64,
    /// Nothing is before a campaign had so many windows.
    pub least_windows: usize,
    /// Windows of a baseline.
    pub history_windows: usize,
    /// Who is told.
    pub webhook: Option<Webhook>,
}

/// `[alerts.webhook]`
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Webhook {
    /// Where messages are posted.
    pub url: String,
    /// A file with the secret they are signed with; relative to the config.
    pub secret_file: PathBuf,
}

impl Default for Alerts {
    fn default() -> Self {
        Self {
            // Short enough to act upon, long enough for some clicks of most campaigns.
            window_minutes: 5,
            z_score: 3.0,
            times: 5.0,
            least_clicks: 100,
            // An hour: of less, a deviation says nothing.
            least_windows: 12,
            // A day: so that each hour of it has its share.
            history_windows: 288,
            webhook: None,
        }
    }
}

/// The most windows of a baseline: a week of minutes is read at the start.
const HISTORY_MINUTES_MAX: usize = 7 * 1440;

impl Alerts {
    /// What is out of the ordinary.
    #[must_use]
    pub const fn limits(&self) -> Limits {
        Limits {
            z_score: self.z_score,
            times: self.times,
            least_clicks: self.least_clicks,
            least_windows: self.least_windows,
            history_windows: self.history_windows,
        }
    }

    pub(super) fn check(&self) -> Result<(), (&'static str, String)> {
        let is_positive = |number: f64| number.is_finite() && number > 0.0;
        if ![1, 5, 10, 15, 30, 60].contains(&self.window_minutes) {
            return Err(("alerts.window_minutes", "1, 5, 10, 15, 30 or 60".to_owned()));
        }
        if !is_positive(self.z_score) || !is_positive(self.times) {
            return Err(("alerts.z_score, alerts.times", "numbers above 0".to_owned()));
        }
        let longest = HISTORY_MINUTES_MAX / self.window_minutes as usize;
        if !(2..=longest).contains(&self.history_windows) {
            return Err(("alerts.history_windows", format!("from 2 to {longest}: at most a week")));
        }
        if !(2..=self.history_windows).contains(&self.least_windows) {
            return Err(("alerts.least_windows", "from 2 to alerts.history_windows".to_owned()));
        }
        let Some(webhook) = &self.webhook else { return Ok(()) };
        let is_here = |url: &str| {
            let hosts = ["http://127.0.0.1", "http://[::1]", "http://localhost"];
            let rest = hosts.iter().find_map(|host| url.strip_prefix(host));
            rest.is_some_and(|rest| rest.starts_with([':', '/']))
        };
        if !webhook.url.starts_with("https://") && !is_here(&webhook.url) {
            let why = "an address that begins with https://; http:// only on this machine".to_owned();
            return Err(("alerts.webhook.url", why));
        }
        Ok(())
    }
}
