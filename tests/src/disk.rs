//! Small file systems of a lab's own: one that gets full, one whose device fails.
//!
//! All of them are gone when dropped, also when the lab fails; what a killed run left is removed
//! by the next. A loop device detaches itself when its file system is unmounted.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};

/// How every folder of this module begins; the process and a number follow.
const PREFIX: &str = "weir-disk-";

/// A file system to fill or to break.
#[derive(Debug)]
pub struct SmallDisk {
    // The order in which they go: what is mounted on a file before the file.
    top: Mount,
    backing: Option<Mount>,
}

/// A folder that something is mounted on.
#[derive(Debug)]
struct Mount {
    path: PathBuf,
}

impl SmallDisk {
    /// An ext4 of about so many bytes on a loop device.
    ///
    /// # Errors
    /// When it cannot be made: see [`SmallDisk::unavailable`].
    pub fn ext4(bytes: u64) -> Result<Self> {
        sweep();
        let backing = Mount::folder("image")?;
        let image = backing.path.join("image");
        make_ext4(&image, bytes)?;
        let top = Mount::folder("ext4")?;
        top.mount(&["-o", "loop"], &image)?;
        Ok(Self { top, backing: Some(backing) })
    }

    /// A tmpfs of so many bytes.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn tmpfs(bytes: u64) -> Result<Self> {
        sweep();
        let top = Mount::folder("tmpfs")?;
        top.mount(&["-t", "tmpfs", "-o", &format!("size={bytes}")], Path::new("weir-lab"))?;
        Ok(Self { top, backing: None })
    }

    /// An ext4 of `bytes` on a device that fails every write once it holds `bytes_true`, as an
    /// overcommitted volume does: the file system has space, its device has not. Writes, syncs
    /// and the file system's own journal get EIO, then it turns read-only.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn overcommitted(bytes: u64, bytes_true: u64) -> Result<Self> {
        sweep();
        let backing = Mount::folder("backing")?;
        backing.mount(&["-t", "tmpfs", "-o", &format!("size={bytes_true}")], Path::new("weir-lab"))?;
        let image = backing.path.join("image");
        make_ext4(&image, bytes)?;
        let top = Mount::folder("ext4")?;
        top.mount(&["-o", "loop"], &image)?;
        Ok(Self { top, backing: Some(backing) })
    }

    /// Gives an overcommitted device what it lacks, and mounts the file system anew, as after a
    /// repair. Nothing may be open on it.
    ///
    /// # Errors
    /// When the device does not come back.
    pub fn mend(&self, bytes: u64) -> Result<()> {
        let Some(backing) = &self.backing else { bail!("only an overcommitted device can be mended") };
        run(Command::new("mount").args(["-o", &format!("remount,size={bytes}")]).arg(&backing.path))?;
        run(Command::new("umount").arg(&self.top.path))?;
        self.top.mount(&["-o", "loop"], &backing.path.join("image"))
    }

    /// Its folder.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.top.path
    }

    /// Takes all its space with one file; dropped, the space is free again.
    ///
    /// # Errors
    /// When even an empty file is refused.
    pub fn fill(&self) -> Result<Ballast> {
        let path = self.path().join("ballast");
        fs::File::create(&path)?;
        let ballast = Ballast { path };
        // `fallocate` takes all of what is asked or nothing, so ask for less and less.
        let mut step = 64 << 20;
        let mut bytes = 0_u64;
        while step >= 4096 {
            let more = (bytes + step).to_string();
            let taken = Command::new("fallocate").args(["-l", &more]).arg(&ballast.path).output()?;
            if taken.status.success() { bytes += step } else { step /= 2 }
        }
        Ok(ballast)
    }

    /// Why this machine has no such disks, if it has none; a lab prints it and is skipped.
    #[must_use]
    pub fn unavailable() -> Option<String> {
        Self::ext4(4 << 20).err().map(|error| {
            format!("no file system of its own can be mounted here: {error:#} (needs root, mkfs.ext4, /dev/loop-control)")
        })
    }
}

/// A file that takes up space.
#[derive(Debug)]
pub struct Ballast {
    path: PathBuf,
}

impl Drop for Ballast {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl Mount {
    /// A fresh folder for it; nothing is mounted yet.
    fn folder(what: &str) -> Result<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("{PREFIX}{}-{number}-{what}", std::process::id()));
        fs::create_dir(&path)?;
        Ok(Self { path })
    }

    fn mount(&self, options: &[&str], what: &Path) -> Result<()> {
        run(Command::new("mount").args(options).arg(what).arg(&self.path))
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        unmount(&self.path);
    }
}

/// Unmounts what is there, whoever still uses it, and removes the folder with what lies in it.
fn unmount(path: &Path) {
    let is_mounted = |table: String| table.lines().any(|line| line.split(' ').nth(1) == path.to_str());
    if fs::read_to_string("/proc/self/mounts").is_ok_and(is_mounted)
        && run(Command::new("umount").arg(path)).is_err()
        && let Err(error) = run(Command::new("umount").arg("-l").arg(path))
    {
        println!("{} stays mounted: {error:#}", path.display());
        return;
    }
    let _ = fs::remove_dir_all(path);
}

/// Removes what earlier runs left that were killed before they could.
fn sweep() {
    let Ok(folder) = fs::read_dir(std::env::temp_dir()) else { return };
    let mut left: Vec<PathBuf> = Vec::new();
    for entry in folder.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let process = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
        if process.is_some_and(|process| !Path::new("/proc").join(process).exists()) {
            left.push(entry.path());
        }
    }
    // What is mounted on a file has the higher number than the folder of the file.
    left.sort();
    left.iter().rev().for_each(|path| unmount(path));
}

fn make_ext4(image: &Path, bytes: u64) -> Result<()> {
    fs::File::create_new(image)?.set_len(bytes)?;
    // No reserve for root, which a node in a lab runs as; nothing written before it is needed.
    let options = ["-q", "-m", "0", "-E", "lazy_itable_init=1,lazy_journal_init=1,nodiscard"];
    run(Command::new("mkfs.ext4").args(options).arg(image))
}

fn run(command: &mut Command) -> Result<()> {
    let output = command.output().with_context(|| format!("cannot start {command:?}"))?;
    if !output.status.success() {
        bail!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
