//! Ansible as an operator runs it: the collection of the tree, built and installed, against hosts that are given.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::nspawn::{Pop, target};

/// The collection in the tree.
#[must_use]
pub fn collection() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/ansible")
}

/// Its sample of an inventory.
#[must_use]
pub fn sample() -> PathBuf {
    collection().join("inventory/sample.yml")
}

/// An Ansible that `cargo xtask setup` made.
#[derive(Clone, Debug)]
pub struct Ansible {
    programs: PathBuf,
    home: PathBuf,
}

impl Ansible {
    /// The one that everything is tried with, or why there is none.
    ///
    /// # Errors
    /// When it was not made.
    pub fn tried(home: &Path) -> Result<Self> {
        Self::of("tried", home)
    }

    /// The least that the collection takes.
    ///
    /// # Errors
    /// When it was not made.
    pub fn least(home: &Path) -> Result<Self> {
        Self::of("least", home)
    }

    fn of(name: &str, home: &Path) -> Result<Self> {
        let folder = target().join("ansible").join(name);
        ensure!(folder.join("made-of").exists(), "there is no Ansible: `cargo xtask setup` makes it");
        // Empty, so that no other is looked for.
        fs::write(home.join("ansible.cfg"), "")?;
        Ok(Self { programs: folder.join("bin"), home: home.to_path_buf() })
    }

    /// Builds the collection and installs it, as one would who has no network.
    ///
    /// # Errors
    /// When either fails.
    pub fn install_collection(&self) -> Result<()> {
        let built = self.home.join("built");
        let build = ["collection", "build", "--force", "--output-path"];
        succeed(self.command("ansible-galaxy").args(build).arg(&built).arg(collection()))?;
        let archive = fs::read_dir(&built)?.flatten().next().context("an archive")?.path();
        let install = ["collection", "install", "--offline", "--force", "--collections-path"];
        succeed(self.command("ansible-galaxy").args(install).arg(self.home.join("collections")).arg(archive))
            .map(drop)
    }

    /// One of its programs, with nothing of the user's own config.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new(self.programs.join(program));
        self.surround(&mut command);
        command
    }

    fn surround(&self, command: &mut Command) {
        let path = std::env::var("PATH").unwrap_or_default();
        command.env("PATH", format!("{}:{path}", self.programs.display()));
        command.env("ANSIBLE_HOME", &self.home).env("ANSIBLE_CONFIG", self.home.join("ansible.cfg"));
        command.env("ANSIBLE_COLLECTIONS_PATH", self.home.join("collections"));
        command.env("ANSIBLE_NOCOLOR", "1").env("ANSIBLE_PIPELINING", "1").env("LC_ALL", "C.UTF-8");
        command.env("ANSIBLE_SSH_CONTROL_PATH_DIR", self.home.join("cp"));
        command.env("ANSIBLE_LOCALHOST_WARNING", "0").env_remove("ANSIBLE_FORCE_COLOR");
    }

    /// A playbook of the installed collection against the hosts of a POP, with the sample's inventory and one more.
    #[must_use]
    pub fn playbook(&self, pop: &Pop, name: &str, inventory: &Path) -> Command {
        let (key, known) = pop.ssh_files();
        let mut command = pop.bound(&self.programs.join("ansible-playbook"));
        self.surround(&mut command);
        let ssh = "-F none -o ControlMaster=auto -o ControlPersist=10s -o ServerAliveInterval=5";
        command.env("ANSIBLE_SSH_ARGS", format!("{ssh} -o UserKnownHostsFile={}", known.display()));
        command.args(["--inventory"]).arg(sample()).arg("--inventory").arg(inventory);
        command.arg("--private-key").arg(key).arg(format!("weir.pop.{name}"));
        command
    }
}

/// What a run of a playbook did.
#[derive(Clone, Debug)]
pub struct Run {
    /// Whether all went well.
    pub is_success: bool,
    /// Everything it printed.
    pub text: String,
}

impl Run {
    /// Runs it to its end.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn of(command: &mut Command) -> Result<Self> {
        let output = command.output().context("ansible-playbook")?;
        let text =
            format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        Ok(Self { is_success: output.status.success(), text })
    }

    /// Itself, if it went well.
    ///
    /// # Errors
    /// When it did not, with what it printed.
    pub fn well(self) -> Result<Self> {
        ensure!(self.is_success, "the playbook failed:\n{}", self.text);
        Ok(self)
    }

    /// The tasks that changed something, or would have, by host and in order.
    #[must_use]
    pub fn changes(&self) -> BTreeMap<String, Vec<String>> {
        let mut changes = BTreeMap::<String, Vec<String>>::new();
        let mut task = "";
        for line in self.text.lines() {
            let begins = ["TASK [", "RUNNING HANDLER ["].iter().find_map(|start| line.strip_prefix(start));
            if let Some(name) = begins.and_then(|rest| rest.rsplit_once(']')) {
                task = name.0;
            } else if let Some(host) =
                line.strip_prefix("changed: [").and_then(|rest| rest.split([']', ' ']).next())
            {
                // A loop has a line for each turn, and with some releases one more.
                let tasks = changes.entry(host.to_owned()).or_default();
                if tasks.last().is_none_or(|last| last != task) {
                    tasks.push(task.to_owned());
                }
            }
        }
        changes
    }
}

fn succeed(command: &mut Command) -> Result<String> {
    let output = command.output().with_context(|| format!("{command:?}"))?;
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{command:?}: {}\n{said}{errors}", output.status);
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_are_told_by_host_and_task() {
        let text = "TASK [weir.pop.kernel : Write] ****\nchanged: [pop-1]\nok: [pop-2]\n\
                    RUNNING HANDLER [weir.pop.kernel : Set] ***\nskipping: [pop-1]\n\
                    TASK [Files] ***\nchanged: [pop-2] => (item=a)\nchanged: [pop-2 -> localhost]\n\
                    PLAY RECAP ***\npop-1 : ok=1 changed=1\n";
        let changes = Run { is_success: true, text: text.to_owned() }.changes();
        assert_eq!(changes["pop-1"], ["weir.pop.kernel : Write"]);
        assert_eq!(changes["pop-2"], ["Files"]);
        assert_eq!(changes.len(), 2);
    }
}
