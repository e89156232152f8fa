//! `cargo xtask setup`: what building and testing need, installed if it is not there.
//!
//! A second run finds everything and installs nothing.

mod environment;
mod pop;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Result, bail};

use weir_kafka_lab::{Distribution, VERSION};

pub(crate) use pop::ensure_pop;

use crate::toolchain;
use crate::{command, target};

/// A `bpf-linker` release that reads the bitcode of LLVM 22, the LLVM of Debian 12's newest rustc.
const BPF_LINKER_VERSION: &str = "0.13.0";
const LLVM: &str = "22";

#[derive(clap::Args, Clone, Default)]
#[group(id = "setup")]
pub(crate) struct Args {
    /// Install nothing: print the commands instead
    #[arg(long)]
    pub(crate) no_install: bool,
}

/// A program or header that a build, a test or the demo needs, and the package it comes in.
struct Tool {
    program: &'static str,
    package: &'static str,
    why: &'static str,
}

const TOOLS: [Tool; 7] = [
    Tool { program: "cc", package: "gcc", why: "Rust links with it" },
    Tool { program: "ip", package: "iproute2", why: "the demo and the tests build networks of namespaces" },
    Tool {
        program: "ethtool",
        package: "ethtool",
        why: "veth leaves checksums unfinished, which XDP cannot steer",
    },
    Tool { program: "make", package: "make", why: "librdkafka, the Kafka client, is built with it" },
    Tool { program: "pkg-config", package: "pkg-config", why: "it finds OpenSSL for librdkafka" },
    Tool { program: "/usr/include/openssl/ssl.h", package: "libssl-dev", why: "TLS and SCRAM to Kafka" },
    Tool { program: "openssl", package: "openssl", why: "it makes the certificates of demo and labs" },
];

/// What a broker of Apache Kafka needs.
const KAFKA_TOOLS: [Tool; 2] = [
    Tool {
        program: "java",
        package: "openjdk-17-jre-headless",
        why: "Apache Kafka, which tests need, runs on it",
    },
    Tool { program: "mvn", package: "maven", why: "it fetches Apache Kafka from Maven Central" },
];

/// What tests watch and load a node with, which nobody here wrote.
const TEST_TOOLS: [Tool; 8] = [
    Tool { program: "strace", package: "strace", why: "tests see with it what is synced, and when" },
    Tool { program: "curl", package: "curl", why: "tests send clicks with it" },
    Tool { program: "wrk", package: "wrk", why: "a test loads the door with it" },
    Tool {
        program: "chromium",
        package: "chromium",
        why: "tests open a page that sends beacons and follows links",
    },
    Tool {
        program: "bird",
        package: "bird2",
        why: "a test announces nodes to a router with it; its service is not needed",
    },
    Tool {
        program: "sysctl",
        package: "procps",
        why: "the router of that test forwards, and spreads flows over the nodes",
    },
    Tool {
        program: "promtool",
        package: "prometheus",
        why: "tests hold metrics, alert rules and dashboard against it; its service is not needed",
    },
    Tool {
        program: "/usr/lib/postgresql/15/bin/initdb",
        package: "postgresql-15",
        why: "tests bill days into clusters of their own with it; its service is not needed",
    },
];

/// The release of cargo-deb that packages are made with: another one may order or compress them in another way.
const CARGO_DEB_VERSION: &str = "3.8.0";

/// What a package is made and looked at with, beside cargo-deb.
const PACKAGE_TOOLS: [Tool; 3] = [
    Tool {
        program: "dpkg-shlibdeps",
        package: "dpkg-dev",
        why: "it finds the libraries that the package depends on",
    },
    Tool { program: "strip", package: "binutils", why: "the packaged program goes without debug symbols" },
    Tool { program: "systemd-analyze", package: "systemd", why: "a test measures the unit with it" },
];

/// What the eBPF program is built and linted with where rustup has no nightly.
const EBPF_PACKAGES: [&str; 7] = [
    "rustc-web",
    "cargo-web",
    "rust-web-src",
    "rust-web-clippy",
    "llvm-22-dev",
    "libpolly-22-dev",
    "libzstd-dev",
];

pub(crate) fn run(args: &Args) -> Result<()> {
    ensure(args)?;
    ensure_kafka(args)?;
    ensure_test_tools(args)?;
    ensure_package_tools(args)?;
    ensure_pop(args)?;
    println!("set-up: all there");
    Ok(())
}

/// Sees to it that a broker can be started: a JRE, and Apache Kafka under the target folder. A
/// cluster that `WEIR_TEST_KAFKA` names needs neither.
pub(crate) fn ensure_kafka(args: &Args) -> Result<()> {
    let is_there = || KAFKA_TOOLS.iter().all(|tool| command::has(tool.program));
    if std::env::var_os("WEIR_TEST_KAFKA").is_some() || Distribution::find(&target()).is_some() && is_there()
    {
        return Ok(());
    }
    install(args, apt(&missing(&KAFKA_TOOLS)))?;
    // Under the target folder, as the crates that cargo fetches: no installation.
    println!("set-up: fetching Apache Kafka {VERSION} from Maven Central, the broker of the tests");
    Distribution::fetch(&target()).map(drop)
}

/// Programs of Python that tests run, by the name of the file that says what they are made of, and why.
const ENVIRONMENTS: [(&str, &str); 4] = [
    ("schemathesis", "a test asks the central tier with it what its OpenAPI document allows and what not"),
    ("pyarrow", "a test reads the archive of the central tier with it"),
    ("chdb", "tests put ClickHouse as a library behind HTTP with it"),
    ("pyspark", "a test counts a day again with it, as a cluster would"),
];

/// Sees to it that tests find what they watch and load a node with.
pub(crate) fn ensure_test_tools(args: &Args) -> Result<()> {
    let mut packages = missing(&TEST_TOOLS);
    packages.extend(environment::packages());
    let mut commands = apt(&packages);
    for (name, why) in ENVIRONMENTS {
        let requirements = crate::root().join("tests").join(name).with_extension("txt");
        commands.extend(environment::make(&target().join(name), &requirements, why)?);
    }
    install(args, commands)
}

/// Sees to it that a package can be made.
pub(crate) fn ensure_package_tools(args: &Args) -> Result<()> {
    let mut commands = apt(&missing(&PACKAGE_TOOLS));
    if command::output(command::cargo().args(["deb", "--version"])).is_err() {
        println!("set-up: cargo-deb is missing (it makes the Debian package)");
        let mut install = command::cargo();
        install.args(["install", "cargo-deb", "--version", CARGO_DEB_VERSION, "--locked"]);
        commands.push(install);
    }
    install(args, commands)
}

/// The packages of the tools that are not there.
fn missing(tools: &[Tool]) -> Vec<&'static str> {
    let missing = tools.iter().filter(|tool| !command::has(tool.program));
    let say = |tool: &Tool| println!("set-up: {} is missing ({})", tool.program, tool.why);
    missing.inspect(|tool| say(tool)).map(|tool| tool.package).collect()
}

/// Sees to it that everything is there that building and testing need, a broker apart.
pub(crate) fn ensure(args: &Args) -> Result<()> {
    let packages = missing(&TOOLS);
    let mut commands = apt(&packages);
    if let Some(misses) = ebpf_misses() {
        println!("set-up: {misses}");
        let mut with_ebpf = packages;
        with_ebpf.extend(EBPF_PACKAGES);
        commands = apt(&with_ebpf);
        commands.push(install_bpf_linker());
    }
    if commands.is_empty() {
        return Ok(());
    }
    install(args, commands)?;
    match ebpf_misses() {
        None => Ok(()),
        Some(misses) => bail!("{misses}"),
    }
}

/// Runs these commands, or prints them where nothing may be installed.
fn install(args: &Args, mut commands: Vec<Command>) -> Result<()> {
    let total = commands.len();
    if args.no_install && total > 0 {
        println!("set-up: --no-install was given; these commands install it, as root:");
        commands.iter().for_each(|command| println!("  {}", command::typed(command)));
        bail!("set-up is not complete");
    }
    for (index, command) in commands.iter_mut().enumerate() {
        println!("[{}/{total}] {}", index + 1, command::typed(command));
        command::run(command)?;
    }
    Ok(())
}

/// Why the eBPF program cannot be built, or nothing when it was: whether a compiler and a linker
/// fit together shows only then. What was built before is not built again.
fn ebpf_misses() -> Option<String> {
    let ebpf = ebpf_crate()?;
    if !ebpf.join("target").exists() {
        println!("set-up: building the eBPF program for the first time, its core library with it");
    }
    toolchain::build(&ebpf, &[]).err()
}

/// The crate of the eBPF program. Where it is none, cargo would walk up and take the workspace
/// around it for one.
pub(crate) fn ebpf_crate() -> Option<PathBuf> {
    let ebpf = crate::root().join("xdp-ebpf");
    ebpf.join("Cargo.toml").exists().then_some(ebpf)
}

fn apt(packages: &[&str]) -> Vec<Command> {
    if packages.is_empty() {
        return Vec::new();
    }
    let mut update = Command::new("apt-get");
    update.args(["update", "--quiet"]);
    let mut install = Command::new("apt-get");
    install.args(["install", "--yes", "--quiet", "--no-install-recommends"]).args(packages);
    install.env("DEBIAN_FRONTEND", "noninteractive");
    vec![update, install]
}

fn install_bpf_linker() -> Command {
    let llvm = Path::new("/usr/lib").join(format!("llvm-{LLVM}")).join("bin");
    let path = std::env::var_os("PATH").unwrap_or_default();
    let path = std::env::join_paths(std::iter::once(llvm).chain(std::env::split_paths(&path)));
    let mut install = command::cargo();
    install.args(["install", "bpf-linker", "--version", BPF_LINKER_VERSION, "--locked"]);
    install.args(["--no-default-features", "--features", &format!("llvm-{LLVM}")]);
    // A path that cannot be joined has a colon in it, which no search path has.
    install.env("PATH", path.unwrap_or_default());
    install
}
