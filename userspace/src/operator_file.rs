//! A file that the operator names: read whole, if it is one and no larger than it can rightly be.
//!
//! A path may lead anywhere. A pipe that nobody writes to is not waited for, and a file far too large is not
//! taken into memory before somebody finds it wrong. Never on a worker: disks take their time.
//!
//! Start reading at [`read`]. What the octets mean is said by the room that they are for.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::Path;

use rustix::fs::OFlags;

/// Why there is nothing to read; whose file it is, its room says.
#[derive(Debug, thiserror::Error, displaydoc::Display)]
pub enum FileFault {
    /// {0}
    Io(#[from] io::Error),
    /// it is no file
    NoFile,
    /// it has more than {mib} MiB
    TooLarge {
        /// How many it may have.
        mib: u64,
    },
    /// it is not UTF-8
    NotUtf8,
}

/// Opens a regular file.
///
/// # Errors
/// [`FileFault::Io`], or [`FileFault::NoFile`] for a folder, a pipe, a socket or a device.
pub fn open(path: &Path) -> Result<File, FileFault> {
    // Without this flag opening a pipe waits for a writer; of a file it changes nothing (open(2)).
    let nonblock = OFlags::NONBLOCK.bits().cast_signed();
    let file = OpenOptions::new().read(true).custom_flags(nonblock).open(path)?;
    if file.metadata()?.is_file() { Ok(file) } else { Err(FileFault::NoFile) }
}

/// Reads a file of at most `mib_max` MiB.
///
/// # Errors
/// As [`open`], and [`FileFault::TooLarge`].
pub fn read(path: &Path, mib_max: u64) -> Result<Vec<u8>, FileFault> {
    let (file, bytes_max) = (open(path)?, mib_max << 20);
    // One more than is taken tells that there is more. The length is no more than a hint: a file can
    // grow meanwhile, and those of /proc have none.
    let taken = bytes_max + 1;
    let mut bytes = Vec::with_capacity(file.metadata()?.len().min(taken) as usize);
    file.take(taken).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > bytes_max { Err(FileFault::TooLarge { mib: mib_max }) } else { Ok(bytes) }
}

/// Reads a text of at most `mib_max` MiB.
///
/// # Errors
/// As [`read`], and [`FileFault::NotUtf8`].
pub fn read_text(path: &Path, mib_max: u64) -> Result<String, FileFault> {
    String::from_utf8(read(path, mib_max)?).map_err(|_| FileFault::NotUtf8)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_of_the_largest_size_is_read_and_a_larger_one_is_told() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        for (bytes, fits) in [(0, true), (1 << 20, true), ((1 << 20) + 1, false), (1 << 22, false)] {
            std::fs::write(&path, vec![b'x'; bytes]).expect("written");
            match read(&path, 1) {
                Ok(found) => assert!(fits && found.len() == bytes, "{bytes}"),
                Err(fault) => assert!(!fits && fault.to_string() == "it has more than 1 MiB", "{fault}"),
            }
        }
    }

    #[test]
    fn what_is_no_file_is_told_and_not_waited_for() {
        let folder = tempfile::tempdir().expect("a folder");
        let pipe = folder.path().join("pipe");
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, &pipe, rustix::fs::FileType::Fifo, mode, 0).expect("a pipe");
        let (done, is_done) = std::sync::mpsc::channel();
        std::thread::spawn(move || {
            for path in [&pipe, folder.path(), Path::new("/dev/zero")] {
                assert_eq!(read(path, 1).expect_err("no file").to_string(), "it is no file");
            }
            done.send(()).expect("somebody waits");
        });
        // Opening a pipe that nobody writes to has no end; a refusal takes microseconds.
        is_done.recv_timeout(std::time::Duration::from_secs(30)).expect("a refusal");
        let fault = read(Path::new("/nowhere/file"), 1).expect_err("nothing");
        assert!(fault.to_string().starts_with("No such file"), "{fault}");
    }

    #[test]
    fn a_text_is_utf_8() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("file");
        std::fs::write(&path, "Straße").expect("written");
        assert_eq!(read_text(&path, 1).expect("a text"), "Straße");
        std::fs::write(&path, b"Stra\xdfe").expect("written");
        assert_eq!(read_text(&path, 1).expect_err("no text").to_string(), "it is not UTF-8");
    }
}
