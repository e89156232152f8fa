//! The XDP program across a restart: its link is pinned in a BPF file system, so it stays attached while no process
//! runs, and the next one puts its own program in the old one's place, between two packets.
//!
//! Attaching and detaching stops many a NIC for a moment; nothing of that happens then. Start reading at
//! [`Pin::take_over`].

use std::path::{Path, PathBuf};
use std::{fs, io};

use aya::programs::links::{FdLink, LinkError, PinnedLink};
use aya::programs::xdp::{XdpLink, XdpLinkId};
use aya::programs::{ProgramError, Xdp};
use rustix::fs::statfs;

use super::Rung;

/// `BPF_FS_MAGIC` of linux/magic.h.
const BPF_FS_MAGIC: u64 = 0xcafe_4a11;
/// What the names of a node's links begin with: the folder may hold what other programs pinned.
const PREFIX: &str = "weir-xdp-";

/// Why a link is not pinned, or not taken over.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub(super) enum PinError {
    /// {0} is on no BPF file system; mount one (`mount -t bpf bpf /sys/fs/bpf`) and make the folder
    NotBpffs(PathBuf),
    /// the kernel does not pin {path}: {source}; make the folder and give it to the node's user
    Pin {
        /// What was to be its name.
        path: PathBuf,
        /// What the kernel said.
        source: aya::pin::PinError,
    },
    /// the link {path} cannot be read: {source}
    Link {
        /// Its name.
        path: PathBuf,
        /// What the kernel said.
        source: LinkError,
    },
    /// the program behind {path} cannot be replaced: {source}
    Replace {
        /// The link's name.
        path: PathBuf,
        /// What the kernel said.
        source: ProgramError,
    },
}

/// The name of a link in a BPF file system.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pin(PathBuf);

impl Pin {
    /// Where the link of this interface and rung is pinned.
    pub(super) fn of(folder: &Path, interface: &str, rung: Rung) -> Self {
        let rung = match rung {
            Rung::Native => "native",
            Rung::Generic => "generic",
            Rung::None => "none",
        };
        // A BPF file system takes no dots in names.
        Self(folder.join(format!("{PREFIX}{}-{rung}", interface.replace('.', "_"))))
    }

    /// Whether there is something under this name.
    pub(super) fn is_there(&self) -> bool {
        self.0.exists()
    }

    /// Puts this program in the place of the one whose link is pinned.
    pub(super) fn take_over(&self, xdp: &mut Xdp) -> Result<XdpLinkId, PinError> {
        let link = |source| PinError::Link { path: self.0.clone(), source };
        let replace = |source| PinError::Replace { path: self.0.clone(), source };
        let pinned = PinnedLink::from_pin(&self.0).map_err(link)?;
        let own = XdpLink::try_from(FdLink::from(pinned)).map_err(link)?;
        xdp.attach_to_link(own).map_err(replace)
    }

    /// Pins a link of this program. On an error the link is gone, and the program detached.
    pub(super) fn keep(&self, xdp: &mut Xdp, link: XdpLinkId) -> Result<XdpLinkId, PinError> {
        let replace = |source| PinError::Replace { path: self.0.clone(), source };
        let own = xdp.take_link(link).map_err(replace)?;
        let own = FdLink::try_from(own).map_err(|source| PinError::Link { path: self.0.clone(), source })?;
        own.pin(&self.0).map_err(|source| PinError::Pin { path: self.0.clone(), source })?;
        // By its name it is the program's again, which for the kernel is no change.
        self.take_over(xdp)
    }

    /// Takes the name away: the link goes with the process.
    pub(super) fn remove(&self) {
        match fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(path = %self.0.display(), %error, "the XDP program stays attached; remove this file");
            }
            _ => {}
        }
    }
}

/// Whether links can be pinned in this folder.
///
/// # Errors
/// When it is not there, or of another kind.
pub(super) fn check(folder: &Path) -> Result<(), PinError> {
    let is_bpffs = statfs(folder).is_ok_and(|found| found.f_type as u64 == BPF_FS_MAGIC);
    if is_bpffs { Ok(()) } else { Err(PinError::NotBpffs(folder.to_owned())) }
}

/// Removes the links of nodes that are pinned in this folder but for one: those of an interface or a rung that is not
/// used any more. What has another name is another program's.
pub(super) fn clear(folder: &Path, but: Option<&Pin>) {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let is_ours = entry.file_name().to_str().is_some_and(|name| name.starts_with(PREFIX));
        let pin = Pin(entry.path());
        if is_ours && Some(&pin) != but {
            pin.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_has_a_name_that_a_bpf_file_system_takes_and_a_folder_elsewhere_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let pin = Pin::of(folder.path(), "eth0.100", Rung::Native);
        assert_eq!(pin.0.file_name().unwrap(), "weir-xdp-eth0_100-native");
        let error = check(folder.path()).unwrap_err().to_string();
        assert!(error.contains("mount -t bpf"), "{error}");
    }

    #[test]
    fn what_is_not_used_any_more_goes_and_what_others_pinned_stays() {
        let folder = tempfile::tempdir().unwrap();
        let [old, new] = [Rung::Generic, Rung::Native].map(|rung| Pin::of(folder.path(), "eth0", rung));
        for pin in [&old, &new] {
            fs::write(&pin.0, "").unwrap();
        }
        let others =
            ["xdp-eth0-native", "tc-weir-xdp-eth0", "cilium_xdp"].map(|name| folder.path().join(name));
        for other in &others {
            fs::write(other, "").unwrap();
        }
        clear(folder.path(), Some(&new));
        assert_eq!((old.is_there(), new.is_there()), (false, true));
        clear(folder.path(), None);
        assert!(!new.is_there());
        assert!(others.iter().all(|other| other.exists()), "other programs' links");
        fs::write(&new.0, "").unwrap();
        new.remove();
        new.remove();
        assert!(!new.is_there());
    }
}
