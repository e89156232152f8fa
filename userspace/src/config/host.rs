//! What only the machine can say: which cores are there, what the key files hold.

use std::fmt;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use super::problem::{Problem, Problems};
use super::quantity::size_text;
use super::{Cluster, Config, Cores, Http, Kafka, Key, Secret, Sink};
use crate::rx::http::connection::{INPUT_PAUSE, OUTPUT_PAUSE};
use crate::uring::STREAM_BUFFER_LEN;

/// Bits of a file's mode that let anybody read or write it.
const MODE_OTHERS: u32 = 0o007;
/// A key file holds 32 digits and a newline, a password little more; one much longer is the wrong file.
const SECRET_FILE_BYTES_MAX: u64 = 256;

/// The machine a config is checked against.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host {
    /// Cores this process may run on.
    pub cores: Vec<usize>,
}

impl Host {
    /// This machine.
    #[must_use]
    pub fn this() -> Self {
        let cores = core_affinity::get_core_ids().unwrap_or_default();
        Self { cores: cores.into_iter().map(|core| core.id).collect() }
    }

    /// Checks the config's cores and reads its key files; relative ones stand beside the config.
    pub(super) fn complete(&self, config: &mut Config, folder: &Path) -> Result<(), Problems> {
        let mut problems = Problems::default();
        let mut note = |text| problems.0.push(Problem { line: None, text });
        if let Cores::These(cores) = &config.workers.cores {
            for core in cores.iter().filter(|core| !self.cores.contains(core)) {
                note(format!("workers.cores: core {core} is not there; this machine has {:?}", self.cores));
            }
        }
        for key in &mut config.keys {
            key.file = folder.join(&key.file);
            match read_secret(&key.file) {
                Ok(secret) => key.secret = secret,
                Err(reason) => note(key_problem(key, &reason)),
            }
        }
        let files = [
            ("certificate_file", &mut config.http.certificate_file),
            ("key_file", &mut config.http.key_file),
            ("catalog_file", &mut config.http.catalog_file),
        ];
        complete_files("rx.http", files, folder, &mut note);
        complete_files("traffic", config.traffic.files(), folder, &mut note);
        if let Some(score) = &mut config.score {
            // Not opened: a node without its model goes on, and says so.
            score.model = folder.join(&score.model);
        }
        if config.forward.sink == Sink::Kafka {
            let Kafka { cluster, buckets, .. } = &mut config.kafka;
            complete_cluster("kafka", cluster, folder, &mut note);
            if let Some(buckets) = buckets {
                complete_cluster("kafka.buckets", buckets, folder, &mut note);
            }
        }
        if problems.0.is_empty() { Ok(()) } else { Err(problems) }
    }

    /// The cores that take workers.
    #[must_use]
    pub fn worker_cores(&self, config: &Config) -> Vec<usize> {
        match &config.workers.cores {
            Cores::All => self.cores.clone(),
            Cores::These(cores) => cores.clone(),
        }
    }
}

/// What the HTTP door of a worker may take at the most: its receive buffers, and for each connection a request,
/// what was sent ahead of its answer, responses that are being sent and responses that wait for that.
fn streams_bytes(http: &Http) -> u64 {
    if !http.is_on() {
        return 0;
    }
    let buffers = u64::from(http.buffers_per_worker) * STREAM_BUFFER_LEN as u64;
    let connection = http.limits().connection_bytes_max() + (INPUT_PAUSE + 2 * OUTPUT_PAUSE) as u64;
    buffers + u64::from(http.connections_per_worker) * connection
}

/// Relative files stand beside the config; all can be opened.
fn complete_files<const N: usize>(
    section: &str,
    files: [(&'static str, &mut Option<PathBuf>); N],
    folder: &Path,
    note: &mut impl FnMut(String),
) {
    for (name, file) in files {
        let Some(file) = file else { continue };
        *file = folder.join(&*file);
        if let Err(error) = fs::File::open(&*file) {
            note(format!("{section}.{name}: {} cannot be read: {error}", file.display()));
        }
    }
}

/// Reads the password, and sees that the files which librdkafka will open can be opened.
fn complete_cluster(key: &str, cluster: &mut Cluster, folder: &Path, note: &mut impl FnMut(String)) {
    if let Some(tls) = &mut cluster.settings.tls {
        let files = [
            ("ca_file", &mut tls.ca_file),
            ("certificate_file", &mut tls.certificate_file),
            ("key_file", &mut tls.key_file),
        ];
        complete_files(&format!("{key}.tls"), files, folder, note);
    }
    if let (Some(sasl), Some(file)) = (&mut cluster.settings.sasl, &mut cluster.password_file) {
        *file = folder.join(&*file);
        match read_private(file, "is longer than any password") {
            Ok(text) if text.trim().is_empty() => {
                note(format!("{key}.sasl.password_file: {} is empty", file.display()));
            }
            Ok(text) => text.trim().clone_into(&mut sasl.password),
            Err(reason) => note(format!("{key}.sasl.password_file: {} {reason}", file.display())),
        }
    }
}

fn key_problem(key: &Key, reason: &str) -> String {
    let file: &PathBuf = &key.file;
    format!("keys.file: {} of issuer {} key {}: {reason}", file.display(), key.issuer, key.key)
}

/// The text of a small file that must not be everybody's to read; `too_long` says what a long one
/// is not.
fn read_private(file: &Path, too_long: &str) -> Result<String, String> {
    let metadata = fs::metadata(file).map_err(|error| format!("cannot be read: {error}"))?;
    if metadata.permissions().mode() & MODE_OTHERS != 0 {
        return Err(format!("anybody may read it; run `chmod o-rwx {}`", file.display()));
    }
    if metadata.len() > SECRET_FILE_BYTES_MAX {
        return Err(too_long.to_owned());
    }
    fs::read_to_string(file).map_err(|error| format!("cannot be read: {error}"))
}

/// The key of a key file: 32 hex digits in a file that is not everybody's to read.
///
/// # Errors
/// What is wrong with the file and what would be right; never what it holds.
pub fn read_secret(file: &Path) -> Result<Secret, String> {
    let text = read_private(file, "is no key file; a key is 32 hex digits")?;
    let digits = text.trim();
    let sound = digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit());
    let number = if sound { u128::from_str_radix(digits, 16).ok() } else { None };
    // The first two digits are the key's first byte.
    number.map(|number| Secret(number.to_be_bytes())).ok_or("holds no key; a key is 32 hex digits".to_owned())
}

/// What the tables and buffers of a config take at their bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MemoryEstimate {
    /// The dedupe table, in bytes.
    pub dedupe_bytes: u64,
    /// The buckets, in bytes.
    pub buckets_bytes: u64,
    /// Unique users of open minutes.
    pub uniques_bytes: u64,
    /// Receive buffers and socket buffers, in bytes.
    pub receive_bytes: u64,
    /// Activity of users and addresses, in bytes. Lists come on top, with what their files have.
    pub traffic_bytes: u64,
}

impl MemoryEstimate {
    /// Bytes for one impression of the capacity: 24 in the hash table, where any id has a place, and
    /// 8 of lines for issued ids in sequence.
    const IMPRESSION_BYTES: u64 = 32;
    /// Bytes for one bucket: key, totals, revision and its share of the index.
    const BUCKET_BYTES: u64 = 192;
    /// Bytes for the activity of a user or address: the times of a hundred clicks, and its name.
    const ACTIVITY_KEY_BYTES: u64 = 256;
    /// Bytes for a user and ad: a name, and when its window ends.
    const REFRACTORY_KEY_BYTES: u64 = 16;
    /// Bytes of one receive buffer: a 1,500-byte MTU with the ring's header, as a power of two.
    const RECEIVE_BUFFER_BYTES: u64 = 2048;

    /// The estimate for a config with this many workers.
    #[must_use]
    pub fn of(config: &Config, workers: usize) -> Self {
        let sockets = config.udp.addresses.len() as u64 * config.udp.socket_buffer_bytes as u64;
        let ring = u64::from(config.udp.buffers_per_worker) * Self::RECEIVE_BUFFER_BYTES;
        Self {
            dedupe_bytes: (config.dedupe.capacity as u64).saturating_mul(Self::IMPRESSION_BYTES),
            buckets_bytes: (config.buckets.capacity as u64).saturating_mul(Self::BUCKET_BYTES),
            uniques_bytes: config.forward.uniques_bytes_max,
            traffic_bytes: config.traffic.activity_keys as u64 * Self::ACTIVITY_KEY_BYTES
                + u64::from(config.admission.allow_unsigned)
                    * config.traffic.refractory_keys as u64
                    * Self::REFRACTORY_KEY_BYTES,
            receive_bytes: (workers as u64).saturating_mul(sockets + ring + streams_bytes(&config.http)),
        }
    }

    /// All of it.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        [self.buckets_bytes, self.uniques_bytes, self.receive_bytes, self.traffic_bytes]
            .into_iter()
            .fold(self.dedupe_bytes, u64::saturating_add)
    }
}

impl fmt::Display for MemoryEstimate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mib = |bytes: u64| size_text(bytes.div_ceil(1 << 20) << 20);
        write!(
            f,
            "at most about {}: dedupe {}, buckets {}, uniques {}, receive buffers {}, activity {}",
            mib(self.total_bytes()),
            mib(self.dedupe_bytes),
            mib(self.buckets_bytes),
            mib(self.uniques_bytes),
            mib(self.receive_bytes),
            mib(self.traffic_bytes)
        )
    }
}
