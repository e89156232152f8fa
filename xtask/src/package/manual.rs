//! Man pages and completions of `weir`, made from the definition of its command line.

use std::fs;
use std::io;
use std::path::Path;

use clap::CommandFactory;
use clap_complete::Shell;

// The daemon's own file: what is documented is what can be typed.
#[path = "../../../userspace/src/cli/arguments.rs"]
#[expect(unreachable_pub, reason = "a library elsewhere; here it is only looked at")]
mod arguments;

/// Writes `man/` and `completions/` into a folder.
pub(super) fn write(folder: &Path) -> io::Result<()> {
    let (man, completions) = (folder.join("man"), folder.join("completions"));
    fs::create_dir_all(&man)?;
    fs::create_dir_all(&completions)?;
    clap_mangen::generate_to(arguments::Cli::command(), &man)?;
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        clap_complete::generate_to(shell, &mut arguments::Cli::command(), "weir", &completions)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// All commands there are, as in "weir actors build".
    fn commands() -> Vec<(String, clap::Command)> {
        let mut waiting = vec![("weir".to_owned(), arguments::Cli::command())];
        let mut all = Vec::new();
        while let Some((name, command)) = waiting.pop() {
            let below =
                command.get_subcommands().map(|sub| (format!("{name} {}", sub.get_name()), sub.clone()));
            waiting.extend(below);
            all.push((name, command));
        }
        all
    }

    #[test]
    fn every_command_has_a_page_with_all_its_options() {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path()).expect("written");
        assert!(commands().len() > 10, "{:?}", commands());
        for (name, command) in commands() {
            let page = folder.path().join("man").join(format!("{}.1", name.replace(' ', "-")));
            // How roff writes a hyphen that is no dash, and an apostrophe that is no quotation mark.
            let text = fs::read_to_string(&page).expect(&name).replace("\\-", "-").replace("\\*(Aq", "'");
            for option in command.get_arguments().filter_map(|argument| argument.get_long()) {
                assert!(text.contains(&format!("--{option}")), "{name} --{option}");
            }
            assert!(text.contains(&command.get_about().expect(&name).to_string()), "{name}");
        }
    }

    #[test]
    fn every_shell_completes_every_command() {
        let folder = tempfile::tempdir().expect("folder");
        write(folder.path()).expect("written");
        for file in ["weir.bash", "_weir", "weir.fish"] {
            let text = fs::read_to_string(folder.path().join("completions").join(file)).expect(file);
            for (name, _) in commands() {
                let word = name.rsplit(' ').next().expect("a name");
                assert!(text.contains(word), "{file}: {name}");
            }
        }
    }
}
