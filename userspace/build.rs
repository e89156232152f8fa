//! Builds the eBPF program and puts the object where the daemon embeds it from.

use std::path::Path;
use std::{env, fs, process};

#[path = "../xdp-ebpf/toolchain.rs"]
mod toolchain;

/// What the object depends on, seen from this folder.
const SOURCES: [&str; 7] = [
    "../xdp-ebpf/src",
    "../xdp-ebpf/Cargo.toml",
    "../xdp-ebpf/Cargo.lock",
    "../xdp-ebpf/.cargo/config.toml",
    "../xdp-ebpf/toolchain.rs",
    "../common/src",
    "../common/Cargo.toml",
];

fn main() {
    for source in SOURCES {
        println!("cargo::rerun-if-changed={source}");
    }
    if let Err(message) = build() {
        for line in message.lines() {
            println!("cargo::error={line}");
        }
        process::exit(1);
    }
}

fn build() -> Result<(), String> {
    let variable = |name| env::var_os(name).ok_or_else(|| format!("cargo did not set {name}"));
    let ebpf_dir = Path::new(&variable("CARGO_MANIFEST_DIR")?).join("../xdp-ebpf");
    let features: &[&str] = if env::var_os("CARGO_FEATURE_EBPF_TRACE").is_some() { &["trace"] } else { &[] };
    let (object, toolchain) = toolchain::build(&ebpf_dir, features)?;
    println!("cargo::rerun-if-changed={}", toolchain.linker.display());
    let embedded = Path::new(&variable("OUT_DIR")?).join(toolchain::OBJECT);
    fs::copy(&object, &embedded)
        .map_err(|e| format!("copy {} to {}: {e}", object.display(), embedded.display()))?;
    Ok(())
}
