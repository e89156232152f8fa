//! What the lab of a POP needs: Ansible in folders of its own, and a small Debian that its hosts are made of. Both are under
//! the target folder and made once; when what they are made of changes, they are made anew.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;

use super::{Args, Tool, apt, install, missing};
use crate::{command, root, target};

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

/// Sees to it that a POP can be installed in containers.
pub(crate) fn ensure_pop(args: &Args) -> Result<()> {
    let mut packages = missing(&TOOLS);
    let can_make = ["-c", "import ensurepip, venv"];
    if command::output(Command::new("python3").args(can_make)).is_err() {
        println!("set-up: python3 cannot make environments (Ansible gets one of its own)");
        packages.push("python3-venv");
    }
    let mut commands = apt(&packages);
    for (folder, requirements) in ANSIBLE {
        let requirements = root().join("deploy/ansible").join(requirements);
        commands.extend(environment(&target().join(folder), &requirements)?);
    }
    commands.extend(debian(&target().join("nspawn")));
    install(args, commands)
}

/// Makes an environment of Python with what a file names, unless there is one of the same file.
fn environment(folder: &Path, requirements: &Path) -> Result<Option<Command>> {
    let asked = fs::read_to_string(requirements)?;
    if fs::read_to_string(folder.join("made-of")).is_ok_and(|made| made == asked) {
        return Ok(None);
    }
    println!("set-up: {} is missing (tests run the collection of a POP with it)", folder.display());
    let script = "rm -rf \"$0\" && python3 -m venv \"$0\" && \"$0/bin/pip\" install --quiet --requirement \"$1\" \
                  && cp \"$1\" \"$0/made-of\"";
    Ok(Some(shell(script, &[folder, requirements])))
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

fn shell(script: &str, arguments: &[&Path]) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-ec", script]).args(arguments);
    shell
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_made_of_the_same_is_not_made_again() {
        let folder = tempfile::tempdir().expect("folder");
        let requirements = folder.path().join("requirements");
        fs::write(&requirements, "one==1\n").expect("written");
        let made = folder.path().join("made");
        assert!(environment(&made, &requirements).expect("read").is_some());
        fs::create_dir(&made).expect("folder");
        fs::copy(&requirements, made.join("made-of")).expect("copied");
        assert!(environment(&made, &requirements).expect("read").is_none());
        fs::write(&requirements, "one==2\n").expect("written");
        assert!(environment(&made, &requirements).expect("read").is_some());

        let command = debian(folder.path()).expect("not there yet");
        let made_of = command.get_args().last().expect("what it is made of");
        fs::write(folder.path().join("made-of"), made_of.as_encoded_bytes()).expect("written");
        assert!(debian(folder.path()).is_none());
    }
}
