//! What the lab of a POP needs: Ansible in folders of its own, and a small Debian that its hosts are made of. Both are under
//! the target folder and made once; when what they are made of changes, they are made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::environment::{self, shell};
use super::{Args, Tool, apt, install, missing};
use crate::{root, target};

/// What hosts in containers are made, run and reached with.
const TOOLS: [Tool; 3] = [
    Tool {
        program: "systemd-nspawn",
        package: "systemd-container",
        why: "tests install POPs on hosts in containers",
    },
    Tool { program: "mmdebstrap", package: "mmdebstrap", why: "it makes the Debian of these hosts" },
    Tool { program: "ssh", package: "openssh-client", why: "Ansible reaches these hosts by it" },
];

/// The Debian of the hosts, and what is in it beside the least: an init system, what Ansible needs on a host, and the
/// routing daemon that a POP has.
const SUITE: &str = "bookworm";
const PACKAGES: &str = "systemd,systemd-sysv,dbus,udev,python3,openssh-server,iproute2,bird2";
/// What nobody reads in a container: half of the files.
const LEFT_OUT: [&str; 3] = ["/usr/share/man/*", "/usr/share/locale/*", "/usr/share/doc/*"];

/// Folders of Ansible under the target folder, and the files that say what is in each: that of the tests, and the least
/// that the collection takes.
const ANSIBLE: [(&str, &str); 2] =
    [("ansible/tried", "requirements.txt"), ("ansible/least", "requirements-least.txt")];

const WHY: &str = "tests run the collection of a POP with it";

/// Sees to it that a POP can be installed in containers.
pub(crate) fn ensure_pop(args: &Args) -> Result<()> {
    let mut packages = missing(&TOOLS);
    packages.extend(environment::packages());
    let mut commands = apt(&packages);
    for (folder, requirements) in ANSIBLE {
        let requirements = root().join("deploy/ansible").join(requirements);
        commands.extend(environment::make(&target().join(folder), &requirements, WHY)?);
    }
    commands.extend(debian(&target().join("nspawn")));
    install(args, commands)
}

/// Makes the Debian of the hosts, unless there is one of the same packages.
fn debian(folder: &Path) -> Option<Command> {
    let left_out = LEFT_OUT.map(|path| format!("--dpkgopt=path-exclude={path}")).join(" ");
    let made_of = format!("--variant=minbase --include={PACKAGES} {left_out} {SUITE}");
    let (root, mark) = (folder.join("root"), folder.join("made-of"));
    if fs::read_to_string(&mark).is_ok_and(|made| made.trim_end() == made_of) {
        return None;
    }
    println!("set-up: {} is missing (the Debian of hosts in containers; two minutes)", root.display());
    let script = "rm -rf \"$0\" && mkdir -p \"${0%/*}\" && set -f && mmdebstrap --quiet $2 \"$0\" \
                  && printf %s \"$2\" > \"$1\"";
    Some(shell(script, &[&root, &mark, &PathBuf::from(made_of)]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_the_same_is_not_made_again() {
        let folder = tempfile::tempdir().expect("folder");
        let command = debian(folder.path()).expect("not there yet");
        let made_of = command.get_args().last().expect("what it is made of");
        fs::write(folder.path().join("made-of"), made_of.as_encoded_bytes()).expect("written");
        assert!(debian(folder.path()).is_none());
    }
}
