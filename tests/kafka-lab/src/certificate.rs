//! Certificates of labs and the demo, made with openssl, under an authority that nobody else trusts.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

/// Keys on P-256: as every TLS of today takes them, and made at once.
const KEY: &str = "-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes";

/// Who a certificate is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Holder<'a> {
    /// The host of this name.
    Name(&'a str),
    /// Whoever is at this IP address.
    Address(&'a str),
}

/// A certificate authority in a folder: `ca.pem`, and its key while it lives.
#[derive(Debug)]
pub struct Authority {
    folder: PathBuf,
}

impl Authority {
    /// A fresh one, good for two days.
    ///
    /// # Errors
    /// When openssl is not there or fails.
    pub fn new(folder: &Path) -> Result<Self> {
        let made = Self { folder: folder.to_owned() };
        made.openssl(&format!("req -x509 {KEY} -keyout ca.key -out ca.pem -days 2 -subj /CN=authority"))?;
        Ok(made)
    }

    /// Makes `FILE.key` and the certificate `FILE.pem` beside `ca.pem`, valid for so many days from now. What
    /// stood there is replaced; with no days it is expired a second later.
    ///
    /// # Errors
    /// When openssl or the disk fails.
    pub fn issue(&self, file: &str, holder: Holder<'_>, days: u32) -> Result<()> {
        let (name, alternative) = match holder {
            Holder::Name(name) => (name, format!("DNS:{name}")),
            Holder::Address(address) => (file, format!("IP:{address}")),
        };
        let (request, names) = (format!("{file}.csr"), format!("{file}.names"));
        self.openssl(&format!("req {KEY} -keyout {file}.key -out {request} -subj /CN={name}"))?;
        fs::write(self.folder.join(&names), format!("subjectAltName={alternative}\n"))?;
        // Without a file of serial numbers each is drawn at random.
        let sign = "-CA ca.pem -CAkey ca.key";
        self.openssl(&format!(
            "x509 -req -in {request} {sign} -out {file}.pem -days {days} -extfile {names}"
        ))?;
        for needed_no_more in [request, names] {
            fs::remove_file(self.folder.join(needed_no_more))?;
        }
        Ok(())
    }

    /// Runs openssl in the folder; it must succeed.
    fn openssl(&self, arguments: &str) -> Result<()> {
        let mut openssl = Command::new("openssl");
        openssl.current_dir(&self.folder).args(arguments.split(' '));
        let output = openssl.output().context("openssl, which `cargo xtask setup` installs")?;
        let said = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "openssl {arguments}: {said}");
        Ok(())
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        let _gone_with_the_folder = fs::remove_file(self.folder.join("ca.key"));
    }
}
