//! Programs that come as packages of Python, each in an environment of its own under the target folder. One is made once; when what
//! it is made of changes, it is made anew.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::command;

/// The packages without which no environment can be made.
pub(super) fn packages() -> Option<&'static str> {
    let can_make = ["-c", "import ensurepip, venv"];
    if command::output(Command::new("python3").args(can_make)).is_ok() {
        return None;
    }
    println!("set-up: python3 cannot make environments (Ansible and Schemathesis get one each)");
    Some("python3-venv")
}

/// Makes an environment with what a file names, unless there is one of the same file.
pub(super) fn make(folder: &Path, requirements: &Path, why: &str) -> Result<Option<Command>> {
    let asked = fs::read_to_string(requirements)?;
    if fs::read_to_string(folder.join("made-of")).is_ok_and(|made| made == asked) {
        return Ok(None);
    }
    println!("set-up: {} is missing ({why})", folder.display());
    let script = "rm -rf \"$0\" && python3 -m venv \"$0\" && \"$0/bin/pip\" install --quiet --requirement \"$1\" \
                  && cp \"$1\" \"$0/made-of\"";
    Ok(Some(shell(script, &[folder, requirements])))
}

pub(super) fn shell(script: &str, arguments: &[&Path]) -> Command {
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
        assert!(make(&made, &requirements, "why").expect("read").is_some());
        fs::create_dir(&made).expect("folder");
        fs::copy(&requirements, made.join("made-of")).expect("copied");
        assert!(make(&made, &requirements, "why").expect("read").is_none());
        fs::write(&requirements, "one==2\n").expect("written");
        assert!(make(&made, &requirements, "why").expect("read").is_some());
    }
}
