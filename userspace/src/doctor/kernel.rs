//! The kernel: its release, io_uring, BPF.

use std::fmt::Display;
use std::path::Path;

use super::finding::{Read, Unread, Verdict, read_text};
use super::interface::Steered;
use crate::steer::{self, SteerError, Switches};
use crate::uring::{self, Uring};

/// `IORING_SETUP_DEFER_TASKRUN`, without which no worker's ring is set up.
const LEAST: (u32, u32) = (6, 1);
/// Since then rings are charged to the cgroup (BPF maps since 5.11), and not to the limit on locked memory.
const CHARGED_TO_CGROUP: (u32, u32) = (5, 12);
/// What `kernel.io_uring_disabled` says, where the kernel has it (6.6).
const IO_URING_DISABLED: &str = "/proc/sys/kernel/io_uring_disabled";
const BTF: &str = "/sys/kernel/btf/vmlinux";
const BPFFS: &str = "/sys/fs/bpf";
/// `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: u32 = 0xcafe_4a11;

/// The release, as `uname -r` says it.
pub(super) fn release() -> Read<String> {
    read_text("/proc/sys/kernel/osrelease")
}

/// The first two numbers of a release.
fn numbers(release: &str) -> Option<(u32, u32)> {
    let mut parts = release.split(|c: char| !c.is_ascii_digit());
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

fn numbers_read(release: &Read<String>) -> Read<(u32, u32)> {
    let text = release.as_ref().map_err(Clone::clone)?;
    numbers(text).ok_or_else(|| Unread(format!("{text:?} is no release")))
}

pub(super) fn judge_release(release: &Read<String>) -> Verdict {
    let required = format!("Linux {}.{} or newer", LEAST.0, LEAST.1);
    let current = release.as_deref().unwrap_or_default();
    match numbers_read(release) {
        Ok(found) if found >= LEAST => Verdict::ok(required, current),
        Ok(_) => Verdict::fatal(required, current),
        Err(why) => Verdict::unknown(required, &why),
    }
}

/// Sets up a ring, and lets go of it.
pub(super) fn ring(settings: uring::Settings) -> Result<(), String> {
    Uring::new(settings).map(drop).map_err(|error| error.to_string())
}

/// What `kernel.io_uring_disabled` says.
pub(super) fn io_uring_disabled() -> Read<String> {
    read_text(IO_URING_DISABLED)
}

pub(super) fn judge_io_uring(ring: &Result<(), String>, disabled: &Read<String>) -> Verdict {
    let required = "a ring with a worker's flags and buffers";
    match (ring, disabled.as_deref()) {
        (Err(error), _) => Verdict::fatal(required, error),
        (Ok(()), Ok(level)) if level != "0" => {
            let current = format!("set up, by privilege alone: kernel.io_uring_disabled is {level}");
            Verdict::note(required, current).fix(
                "Set `sysctl kernel.io_uring_disabled=0`, unless the node runs with the same privileges.",
            )
        }
        (Ok(()), _) => Verdict::ok(required, "one was set up"),
    }
}

/// Loads the programs and lets go of them.
pub(super) fn programs(switches: Switches) -> Result<(), String> {
    steer::probe(switches).map_err(|error: SteerError| without_verifiers_words(&error.to_string()))
}

/// An error without the thousands of lines that the verifier may say of a program.
fn without_verifiers_words(error: &str) -> String {
    match error.split_once("Verifier output:") {
        Some((before, _)) => format!("{before}`weir run` logs what the verifier says"),
        None => error.to_owned(),
    }
}

pub(super) fn judge_programs(loaded: &Result<(), String>, steered: Steered) -> Verdict {
    let required = "the kernel takes the BPF programs";
    match loaded {
        Ok(()) => Verdict::ok(required, "loaded, and let go again"),
        Err(why) => Verdict::new(steered.severity_without(), required, why),
    }
}

/// Whether a path is there.
fn exists(path: &str) -> Read<bool> {
    Path::new(path).try_exists().map_err(super::finding::unread(path))
}

/// Whether the kernel's types are there.
pub(super) fn btf() -> Read<bool> {
    // Where nothing of /sys can be seen, its absence says nothing.
    if exists("/sys/kernel")? { exists(BTF) } else { Err(Unread("/sys is not mounted".to_owned())) }
}

pub(super) fn judge_btf(found: &Read<bool>) -> Verdict {
    let required = format!("{BTF}, for tools");
    match found {
        Ok(true) => Verdict::ok(required, "there"),
        Ok(false) => Verdict::note(required, "not there"),
        Err(why) => Verdict::unknown(required, why),
    }
}

/// The kind of the file system on the place of bpffs.
pub(super) fn bpffs() -> Read<u32> {
    let failed = |error: rustix::io::Errno| super::finding::unread(BPFFS)(error.into());
    // The kind is a word; some platforms widen it with its sign.
    rustix::fs::statfs(BPFFS).map(|found| found.f_type as u32).map_err(failed)
}

pub(super) fn judge_bpffs(kind: &Read<u32>) -> Verdict {
    let required = format!("bpf mounted on {BPFFS}, for tools");
    match kind {
        Ok(kind) if *kind == BPF_FS_MAGIC => Verdict::ok(required, "mounted"),
        Ok(_) => Verdict::note(required, "not mounted"),
        Err(why) => Verdict::unknown(required, why),
    }
}

pub(super) fn judge_memlock(release: &Read<String>, limit: Option<u64>) -> Verdict {
    let current = |limit: &dyn Display| format!("at most {limit} bytes");
    let current = limit.map_or("unlimited".to_owned(), |bytes| current(&bytes));
    match numbers_read(release) {
        Ok(found) if found >= CHARGED_TO_CGROUP => {
            Verdict::ok("any: rings and maps are charged to the cgroup", current)
        }
        Ok(_) if limit.is_none() => Verdict::ok("unlimited", current),
        Ok(_) => Verdict::warning("unlimited", current),
        Err(why) => Verdict::unknown("unlimited, before Linux 5.12", &why),
    }
}

#[cfg(test)]
mod tests {
    use super::super::finding::Severity::{Fatal, Note, Ok as Fine, Unknown, Warning};
    use super::super::finding::unreadable;
    use super::*;

    fn release_is(text: &str) -> Read<String> {
        Ok(text.to_owned())
    }

    #[test]
    fn a_kernel_is_judged_by_its_first_two_numbers() {
        for (text, severity) in [
            ("6.1.0-21-amd64", Fine),
            ("6.18.44", Fine),
            ("10.0", Fine),
            ("6.0.19", Fatal),
            ("5.15.0-105-generic", Fatal),
            ("linux", Unknown),
            ("", Unknown),
        ] {
            assert_eq!(judge_release(&release_is(text)).severity, severity, "{text}");
        }
        assert_eq!(judge_release(&unreadable()).current, "it is hidden");
        assert_eq!(judge_release(&unreadable()).severity, Unknown);
    }

    #[test]
    fn a_ring_that_cannot_be_set_up_is_fatal_with_the_kernels_word() {
        let refused = judge_io_uring(&Err("not permitted".to_owned()), &release_is("2"));
        assert_eq!((refused.severity, refused.current.as_str()), (Fatal, "not permitted"));
        assert_eq!(judge_io_uring(&Ok(()), &release_is("0")).severity, Fine);
        // A kernel that has no such switch has not turned it off.
        assert_eq!(judge_io_uring(&Ok(()), &unreadable()).severity, Fine);
        assert_eq!(judge_io_uring(&Ok(()), &release_is("1")).severity, Note);
    }

    #[test]
    fn programs_that_do_not_load_weigh_as_much_as_the_config_wants_them() {
        let refused = Err("no".to_owned());
        for (steered, severity) in
            [(Steered::Demanded, Fatal), (Steered::Wished, Warning), (Steered::Off, Note)]
        {
            assert_eq!(judge_programs(&refused, steered).severity, severity);
            assert_eq!(judge_programs(&Ok(()), steered).severity, Fine);
        }
    }

    #[test]
    fn a_verifiers_words_are_left_out() {
        let told = without_verifiers_words("refused: EPERM. Verifier output: 0: R1=ctx()\n1: (b4)\n; more");
        assert_eq!(told, "refused: EPERM. `weir run` logs what the verifier says");
        assert_eq!(without_verifiers_words("no BPF"), "no BPF");
    }

    #[test]
    fn what_tools_want_is_a_note_and_what_is_hidden_is_unknown() {
        assert_eq!(judge_btf(&Ok(true)).severity, Fine);
        assert_eq!(judge_btf(&Ok(false)).severity, Note);
        assert_eq!(judge_btf(&unreadable()).severity, Unknown);
        assert_eq!(judge_bpffs(&Ok(BPF_FS_MAGIC)).severity, Fine);
        assert_eq!(judge_bpffs(&Ok(0x6265_6572)).severity, Note);
        assert_eq!(judge_bpffs(&unreadable()).severity, Unknown);
    }

    #[test]
    fn locked_memory_counts_only_on_kernels_that_charge_it() {
        assert_eq!(judge_memlock(&release_is("6.1.0"), Some(65_536)).severity, Fine);
        assert_eq!(judge_memlock(&release_is("5.10.0"), Some(65_536)).severity, Warning);
        assert_eq!(judge_memlock(&release_is("5.10.0"), None).severity, Fine);
        assert_eq!(judge_memlock(&unreadable(), None).severity, Unknown);
    }
}
