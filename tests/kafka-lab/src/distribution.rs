//! The broker's jars, fetched once.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// The release of Apache Kafka, as `pom.xml` names it.
pub const VERSION: &str = "4.1.1";
/// What Maven resolves.
const POM: &str = include_str!("../pom.xml");
/// The jar that says that all are there: it is renamed into place with the folder.
const BROKER_JAR: &str = "kafka_2.13-4.1.1.jar";

/// Apache Kafka on this machine's disk.
#[derive(Clone, Debug)]
pub struct Distribution {
    libs: PathBuf,
}

impl Distribution {
    /// Where a distribution is kept under cargo's target folder.
    #[must_use]
    pub fn folder(target: &Path) -> PathBuf {
        target.join("kafka").join(VERSION)
    }

    /// The distribution under cargo's target folder, if it was fetched.
    #[must_use]
    pub fn find(target: &Path) -> Option<Self> {
        let libs = Self::folder(target).join("libs");
        libs.join(BROKER_JAR).exists().then_some(Self { libs })
    }

    /// Fetches it from Maven Central, about 45 MB, with Maven; finds it when it was fetched before.
    ///
    /// # Errors
    /// When Maven is missing or fails; with what it said.
    pub fn fetch(target: &Path) -> Result<Self> {
        if let Some(found) = Self::find(target) {
            return Ok(found);
        }
        let folder = Self::folder(target);
        let part = folder.join(format!("libs.{}", std::process::id()));
        fs::create_dir_all(&part).with_context(|| format!("cannot make {}", part.display()))?;
        fs::write(folder.join("pom.xml"), POM)?;
        let mut maven = fetch_command(&folder, &part);
        let said = maven.output().context("cannot start mvn; install Maven (package maven)")?;
        if !said.status.success() {
            let _ = fs::remove_dir_all(&part);
            bail!("Maven could not fetch Apache Kafka:\n{}", String::from_utf8_lossy(&said.stdout));
        }
        // Whole or not at all: a fetch that was cut off leaves no folder of this name.
        if fs::rename(&part, folder.join("libs")).is_err() {
            fs::remove_dir_all(&part)?;
        }
        Self::find(target).with_context(|| format!("Maven left no {BROKER_JAR} in {}", folder.display()))
    }

    /// The class path.
    pub(crate) fn class_path(&self) -> OsString {
        self.libs.join("*").into_os_string()
    }
}

/// Maven, told to copy what the POM in `folder` names to `libs`.
fn fetch_command(folder: &Path, libs: &Path) -> Command {
    let mut output = OsString::from("-DoutputDirectory=");
    output.push(libs);
    let mut maven = Command::new("mvn");
    maven.current_dir(folder).args(["--quiet", "--batch-mode", "dependency:copy-dependencies"]);
    maven.arg("-DincludeScope=runtime").arg(output);
    maven
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_one_maven_fetches() {
        assert!(POM.contains(&format!("<version>{VERSION}</version>")));
        assert!(BROKER_JAR.contains(VERSION));
    }
}
