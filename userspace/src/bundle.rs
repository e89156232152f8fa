//! `weir bundle`: what somebody who is to help with a node needs to see of it, in one file.
//!
//! Config, what the doctor says, status, log, names and sizes of the data: never a key, a salt, a certificate or a
//! row, and of who was logged the network alone. It asks a running node for its status, reads, and changes nothing.
//! Start reading at [`run`]; what may leave the node is decided in [`crate::redact`].

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::cli::BundleArgs;
use crate::config::{self, Host};
use crate::control::{FINAL_STATUS_NAME, SOCKET_NAME, fetch};
use crate::{doctor, redact, top};

/// The end of the log, in lines: some hours of a node in trouble.
const LOG_LINES: usize = 5_000;
/// More than those lines have.
const LOG_BYTES_MAX: u64 = 4 << 20;
/// Files whose names are told of a folder with its folders.
const ENTRIES_MAX: usize = 20_000;
/// Larger than any of these files of /proc.
const PROC_BYTES_MAX: u64 = 1 << 20;
/// The bundle and its parts are their owner's alone.
const PART_MODE: u32 = 0o600;
/// What the kernel says of the machine.
const PROC: [&str; 7] =
    ["version", "cmdline", "meminfo", "interrupts", "softirqs", "net/softnet_stat", "net/snmp"];

/// Why there is no bundle.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum BundleError {
    /// cannot write {path}: {source}
    Write {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// Writes the bundle, and says of each part what is in it.
///
/// # Errors
/// When it cannot be written. What cannot be read is told in the bundle.
pub fn run(args: &BundleArgs, told: &mut impl Write) -> Result<(), BundleError> {
    let failed = |source| BundleError::Write { path: args.out.clone(), source };
    let mut options = File::options();
    // It is the operator's to say who else may see it.
    let file = options.write(true).create_new(true).mode(PART_MODE).open(&args.out).map_err(failed)?;
    let mut bundle = Bundle { tar: tar::Builder::new(GzEncoder::new(file, Compression::default())), told };
    write_parts(args, &mut bundle).map_err(failed)?;
    let file = bundle.tar.into_inner().and_then(GzEncoder::finish).map_err(failed)?;
    file.sync_all().map_err(failed)
}

struct Bundle<'a, W> {
    tar: tar::Builder<GzEncoder<File>>,
    told: &'a mut W,
}

impl<W: Write> Bundle<'_, W> {
    /// Adds a part, or in its place why it is not there.
    fn add(&mut self, name: &str, text: Result<String, String>) -> io::Result<()> {
        let (said, text) = match text {
            Ok(text) => (format!("{} bytes", text.len()), text),
            Err(why) => (format!("not there: {why}"), format!("not there: {why}\n")),
        };
        // Nobody may be listening.
        let _closed = writeln!(self.told, "{name:<24} {said}");
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(PART_MODE);
        header.set_mtime(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()));
        header.set_cksum();
        self.tar.append_data(&mut header, Path::new("weir-bundle").join(name), text.as_bytes())
    }
}

fn write_parts<W: Write>(args: &BundleArgs, bundle: &mut Bundle<'_, W>) -> io::Result<()> {
    let file = &args.config.config;
    let version = concat!("weir ", env!("CARGO_PKG_VERSION"), "\n");
    bundle.add("version.txt", Ok(version.to_owned()))?;
    let text = read(file, PROC_BYTES_MAX);
    let is_no_toml = || "it is no TOML, so nobody can tell what is secret in it".to_owned();
    bundle.add("config.toml", text.and_then(|text| redact::config(&text).ok_or_else(is_no_toml)))?;
    let host = Host::this();
    match config::load(file, &host) {
        Err(error) => bundle.add("config-faults.txt", Ok(format!("{error}\n")))?,
        Ok(config) => {
            bundle.add("doctor.txt", Ok(doctor::examine(file, &config, &host).text()))?;
            let run_dir = &config.node.run_dir;
            add_status(bundle, &run_dir.join(SOCKET_NAME))?;
            bundle.add("final-status.json", read(&run_dir.join(FINAL_STATUS_NAME), LOG_BYTES_MAX))?;
            bundle.add("data.txt", Ok(names_and_sizes(&config.node.data_dir)))?;
        }
    }
    bundle.add("log.txt", log(args.log.as_deref()).map(|log| redacted(&log)))?;
    for name in PROC {
        let part = format!("proc/{}.txt", name.replace('/', "-"));
        bundle.add(&part, read(&Path::new("/proc").join(name), PROC_BYTES_MAX))?;
    }
    Ok(())
}

fn add_status<W: Write>(bundle: &mut Bundle<'_, W>, socket: &Path) -> io::Result<()> {
    let status = fetch(socket).map_err(|error| error.to_string());
    let json = |status| serde_json::to_string_pretty(status).map_err(|error| error.to_string());
    bundle.add("status.json", status.as_ref().map_err(Clone::clone).and_then(json))?;
    bundle.add("status.txt", status.map(|status| top::text(&status)))
}

/// A text, as far as so many bytes.
fn read(path: &Path, bytes_max: u64) -> Result<String, String> {
    let mut bytes = Vec::new();
    let read = File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut bytes));
    read.map_err(|error| format!("{}: {error}", path.display()))?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

/// The end of the log: of the file that is named, or of the unit's journal.
fn log(file: Option<&Path>) -> Result<String, String> {
    let text = match file {
        Some(path) => end_of(path).map_err(|error| format!("{}: {error}", path.display()))?,
        None => {
            let lines = LOG_LINES.to_string();
            let journal =
                Command::new("journalctl").args(["--unit=weir", "--no-pager", "--lines", &lines]).output();
            let output = journal.map_err(|error| format!("journalctl: {error}; name a file by --log"))?;
            if !output.status.success() {
                let why = String::from_utf8_lossy(&output.stderr);
                return Err(format!("journalctl: {}; name a file by --log", why.trim()));
            }
            String::from_utf8_lossy(&output.stdout).into_owned()
        }
    };
    let lines: Vec<_> = text.lines().collect();
    Ok(lines[lines.len().saturating_sub(LOG_LINES)..].join("\n"))
}

fn end_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let len = file.metadata()?.len();
    io::Seek::seek(&mut file, io::SeekFrom::Start(len.saturating_sub(LOG_BYTES_MAX)))?;
    let mut bytes = Vec::new();
    file.take(LOG_BYTES_MAX).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

fn redacted(log: &str) -> String {
    log.lines().map(|line| redact::log_line(line) + "\n").collect()
}

/// What is in a folder and its folders, by name: bytes, and seconds since each was written.
fn names_and_sizes(folder: &Path) -> String {
    let mut text = String::from("bytes, seconds since it was written, name\n");
    let mut folders = vec![folder.to_owned()];
    let mut entries = 0;
    while let Some(folder) = folders.pop() {
        let listed = match fs::read_dir(&folder) {
            Ok(listed) => listed,
            Err(error) => {
                text.push_str(&format!("{}: {error}\n", folder.display()));
                continue;
            }
        };
        for entry in listed.flatten() {
            entries += 1;
            if entries > ENTRIES_MAX {
                text.push_str("and more\n");
                return text;
            }
            let Ok(metadata) = entry.metadata() else { continue };
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            let age =
                metadata.modified().ok().and_then(|at| at.elapsed().ok()).map_or(0, |age| age.as_secs());
            text.push_str(&format!("{:>14} {age:>9} {}\n", metadata.len(), entry.path().display()));
        }
    }
    text
}
