//! `cargo xtask package`: the Debian package of the node, by cargo-deb. What goes into it stands in
//! `userspace/Cargo.toml` under `package.metadata.deb`.
//!
//! Two packages of one program are the same to the octet: all times in them are that of the last commit.
//! Start reading at [`run`].

mod manual;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};

use crate::{command, root, setup, target};

/// The variable that says how old everything in a package is, as other builds of the same source understand it.
const EPOCH: &str = "SOURCE_DATE_EPOCH";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// The profile that the program is built in
    #[arg(long, value_name = "PROFILE", default_value = "release")]
    profile: String,
    /// Package the program as it was built last
    #[arg(long)]
    no_build: bool,
    /// Where the package goes [default: target/package]
    #[arg(long, value_name = "FOLDER")]
    out: Option<PathBuf>,
    /// Appended to the package's version, such as +2: for a second package of one program
    #[arg(long, value_name = "TEXT", default_value = "")]
    version_suffix: String,
    #[command(flatten)]
    setup: setup::Args,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::ensure_package_tools(&args.setup)?;
    if !args.no_build {
        setup::ensure(&args.setup)?;
        let mut build = command::cargo();
        build.args(["build", "--package", "weir", "--bin", "weir", "--profile", &args.profile]);
        println!("$ {}", command::typed(&build));
        command::run(&mut build)?;
    }
    let epoch = epoch()?;
    let version = format!("{}{}", env!("CARGO_PKG_VERSION"), args.version_suffix);
    let documents = target().join(folder_of(&args.profile)).join("package");
    write_documents(&documents, &version, &epoch)?;
    let out = args.out.clone().unwrap_or_else(|| target().join("package"));
    fs::create_dir_all(&out).with_context(|| format!("cannot make {}", out.display()))?;
    let mut deb = command::cargo();
    deb.args(["deb", "--quiet", "--package", "weir", "--no-build", "--profile", &args.profile]);
    deb.args(["--deb-version", &version, "--output"]).arg(&out).env(EPOCH, &epoch);
    println!("$ {EPOCH}={epoch} {}", command::typed(&deb));
    command::run(&mut deb)?;
    let package = package_in(&out, &version)?;
    print!("{}", command::output(Command::new("sha256sum").arg(&package))?);
    Ok(())
}

/// The folder, under the target folder, of what a profile builds.
fn folder_of(profile: &str) -> &str {
    if profile == "dev" { "debug" } else { profile }
}

/// When the source was changed last: what the environment says, else the last commit's time.
fn epoch() -> Result<String> {
    if let Some(epoch) = std::env::var_os(EPOCH) {
        return epoch.into_string().ok().with_context(|| format!("{EPOCH} is no number of seconds"));
    }
    let last = command::output(Command::new("git").current_dir(root()).args(["log", "-1", "--format=%ct"]));
    let last = last.with_context(|| format!("no commit says how old the source is: set {EPOCH}"))?;
    Ok(last.trim().to_owned())
}

/// Man pages, completions and changelog, afresh: a page of a command that is gone must not stay.
fn write_documents(folder: &Path, version: &str, epoch: &str) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("cannot clear {}", folder.display()))?;
    }
    manual::write(folder).with_context(|| format!("cannot write the manual to {}", folder.display()))?;
    let date = Command::new("date").args(["--utc", "--rfc-email", &format!("--date=@{epoch}")]).output();
    let date = date.context("cannot start date")?.stdout;
    let path = folder.join("changelog");
    let text = changelog(version, String::from_utf8_lossy(&date).trim());
    fs::write(&path, text).with_context(|| format!("cannot write {}", path.display()))?;
    // As Debian has them, and with neither name nor time of the file. cargo-deb does it for files of the tree alone.
    let pages = fs::read_dir(folder.join("man"))?.flatten().map(|entry| entry.path());
    command::run(Command::new("gzip").args(["-9", "--no-name"]).args(pages).arg(path))
}

/// What Debian asks of a package: its version, and when. What changed, the log of the source says.
fn changelog(version: &str, date: &str) -> String {
    format!(
        "weir ({version}) stable; urgency=medium\n\n  * Version {version}.\n\n \
         -- Weir maintainers <maintainers@weir.invalid>  {date}\n"
    )
}

/// The package of this version.
fn package_in(folder: &Path, version: &str) -> Result<PathBuf> {
    let start = format!("weir_{version}_");
    let names = fs::read_dir(folder)?.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned());
    let mut packages = names.filter(|name| name.starts_with(&start) && name.ends_with(".deb"));
    let name =
        packages.next().with_context(|| format!("cargo-deb left no package in {}", folder.display()))?;
    Ok(folder.join(name))
}
