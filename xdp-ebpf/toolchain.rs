//! Finds a compiler that can build the eBPF program, and builds it.
//!
//! Included by path into the daemon's build script and into `xtask`, so it uses nothing but std.
//! The program needs what stable Rust does not give: an own `core` for the BPF target. The
//! ladder, first rung that works wins:
//!
//! 1. a rustup nightly with `rust-src`, and a `bpf-linker` that reads its LLVM's bitcode;
//! 2. Debian's `/usr/bin/rustc` with its `rust-src` or `rust-web-src`, unlocked by
//!    `RUSTC_BOOTSTRAP`, and a `bpf-linker` built against the same LLVM.
//!
//! Whether linker and compiler agree on an LLVM shows only when they build, so a rung that fails
//! to build hands over to the next, and its words stand in the error if none is left.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::{env, fmt, fs};

/// The target triple of the program.
pub(crate) const TARGET: &str = "bpfel-unknown-none";
/// The name of the object in the target's folder.
pub(crate) const OBJECT: &str = "weir-ebpf";

/// A compiler, its cargo and a linker that may be able to build the program.
#[derive(Debug)]
pub(crate) struct Toolchain {
    /// What to call it in messages.
    pub(crate) name: &'static str,
    cargo: PathBuf,
    rustc: PathBuf,
    /// Unlocks nightly features of a stable compiler.
    bootstrap: bool,
    /// The `bpf-linker` it will use.
    pub(crate) linker: PathBuf,
}

/// Why a rung of the ladder cannot be used.
#[derive(Debug)]
pub(crate) struct Miss {
    /// The rung.
    pub(crate) name: &'static str,
    /// What is missing, or what its build said.
    pub(crate) why: String,
}

impl fmt::Display for Miss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.name, self.why.trim_end())
    }
}

/// The rungs, each with its toolchain or with what it lacks.
pub(crate) fn ladder() -> [Result<Toolchain, Miss>; 2] {
    [
        rustup_nightly().map_err(|why| Miss { name: "rustup nightly", why }),
        system().map_err(|why| Miss { name: "/usr/bin/rustc", why }),
    ]
}

/// Builds the program in `ebpf_dir`, with these of its features, with the first rung that can;
/// returns the object and the toolchain that made it.
///
/// # Errors
/// A text for the user: what each rung lacks, and the command that sets one up.
pub(crate) fn build(ebpf_dir: &Path, features: &[&str]) -> Result<(PathBuf, Toolchain), String> {
    let mut misses = Vec::new();
    for rung in ladder() {
        match rung.and_then(|toolchain| Ok((toolchain.build(ebpf_dir, features)?, toolchain))) {
            Ok(built) => return Ok(built),
            Err(miss) => misses.push(miss.to_string()),
        }
    }
    Err(format!(
        "no toolchain can build the eBPF program in {}:\n{}\nRun `cargo xtask setup` to install one.",
        ebpf_dir.display(),
        misses.join("\n")
    ))
}

impl Toolchain {
    /// `cargo SUBCOMMAND` in `ebpf_dir`, free of what an outer cargo put into the environment.
    ///
    /// Clippy must be this compiler's own. It is called where it stands beside it: cargo itself
    /// would take the first on the search path, which may lint with another compiler.
    pub(crate) fn cargo(&self, ebpf_dir: &Path, subcommand: &str) -> Command {
        let clippy = self.cargo.with_file_name("cargo-clippy");
        let mut command = Command::new(if subcommand == "clippy" { &clippy } else { &self.cargo });
        command.arg(subcommand).arg("--release").current_dir(ebpf_dir);
        for (name, _) in env::vars_os() {
            if name.to_str().is_some_and(leaks) {
                command.env_remove(&name);
            }
        }
        command.env("CARGO", &self.cargo).env("RUSTC", &self.rustc);
        command.env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &self.linker);
        if self.bootstrap {
            command.env("RUSTC_BOOTSTRAP", "1");
        }
        command
    }

    fn build(&self, ebpf_dir: &Path, features: &[&str]) -> Result<PathBuf, Miss> {
        let miss = |why| Miss { name: self.name, why };
        let output =
            self.cargo(ebpf_dir, "build").args(features.iter().map(|name| format!("-F{name}"))).output();
        let output = output.map_err(|e| miss(format!("{} did not start: {e}", self.cargo.display())))?;
        if !output.status.success() {
            return Err(miss(String::from_utf8_lossy(&output.stderr).into_owned()));
        }
        let object = ebpf_dir.join("target").join(TARGET).join("release").join(OBJECT);
        if is_file(&object) { Ok(object) } else { Err(miss(format!("it built no {}", object.display()))) }
    }
}

/// Whether a variable is the outer build's own affair. Where cargo's home is and how it reaches
/// the network holds for both.
fn leaks(name: &str) -> bool {
    let shared = name == "CARGO_HOME" || name.starts_with("CARGO_NET_") || name.starts_with("CARGO_HTTP_");
    let outer = ["CARGO", "RUSTC", "RUSTDOC", "RUSTFLAGS", "RUSTUP_TOOLCHAIN", "RUSTDOCFLAGS"];
    !shared && outer.iter().any(|prefix| name.starts_with(prefix))
}

fn rustup_nightly() -> Result<Toolchain, String> {
    let which = |tool| {
        let output = Command::new("rustup").args(["which", "--toolchain", "nightly", tool]).output();
        stdout(output)
            .map(PathBuf::from)
            .ok_or_else(|| format!("`rustup which --toolchain nightly {tool}` failed"))
    };
    let (cargo, rustc) = (which("cargo")?, which("rustc")?);
    has_source(&rustc, "rustup component add rust-src --toolchain nightly")?;
    Ok(Toolchain { name: "rustup nightly", cargo, rustc, bootstrap: false, linker: linker()? })
}

fn system() -> Result<Toolchain, String> {
    let (cargo, rustc) = (PathBuf::from("/usr/bin/cargo"), PathBuf::from("/usr/bin/rustc"));
    if !cargo.exists() || !rustc.exists() {
        return Err("not installed".to_owned());
    }
    has_source(&rustc, "apt install rust-web-src, or rust-src")?;
    Ok(Toolchain { name: "/usr/bin/rustc", cargo, rustc, bootstrap: true, linker: linker()? })
}

/// Whether the source of `core` stands beside the compiler.
fn has_source(rustc: &Path, remedy: &str) -> Result<(), String> {
    let sysroot =
        stdout(Command::new(rustc).args(["--print", "sysroot"]).env_remove("RUSTUP_TOOLCHAIN").output());
    let sysroot = sysroot.ok_or_else(|| format!("`{} --print sysroot` failed", rustc.display()))?;
    let core = Path::new(&sysroot).join("lib/rustlib/src/rust/library/core");
    if core.exists() { Ok(()) } else { Err(format!("no {} ({remedy})", core.display())) }
}

/// `bpf-linker`, from the search path or where cargo installs.
fn linker() -> Result<PathBuf, String> {
    let cargo_home = env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = env::var_os("HOME").map(|home| Path::new(&home).join(".cargo"));
    let cargo_bin = cargo_home.or(home).map(|home| home.join("bin"));
    let path = env::var_os("PATH").unwrap_or_default();
    let found =
        env::split_paths(&path).chain(cargo_bin).map(|dir| dir.join("bpf-linker")).find(|file| is_file(file));
    found.ok_or_else(|| "no bpf-linker (cargo install bpf-linker)".to_owned())
}

fn is_file(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.is_file())
}

fn stdout(output: std::io::Result<Output>) -> Option<String> {
    let output = output.ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok().map(|text| text.trim().to_owned())
}
