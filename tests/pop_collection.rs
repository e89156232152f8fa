//! The collection itself, without a host: its rules of style, its syntax for the oldest and the newest Ansible it takes, and
//! that what is given to its roles is judged.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use weir_labs::ansible::{Ansible, collection, sample};

/// Files of a folder of the collection, by their stems.
fn stems(folder: &Path) -> BTreeSet<String> {
    let entries = fs::read_dir(folder).expect("a folder").flatten().map(|entry| entry.path());
    let files = entries.filter(|path| folder.ends_with("roles") || path.is_file());
    files.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect()
}

/// An Ansible with the collection, or the reason why there is none.
fn ansible(of: fn(&Path) -> anyhow::Result<Ansible>, home: &Path) -> Option<Ansible> {
    let made = of(home).map_err(|error| eprintln!("skipped: {error:#}")).ok()?;
    made.install_collection().expect("the collection");
    Some(made)
}

fn said(command: &mut Command) -> (bool, String) {
    let output = command.output().expect("a program of Ansible");
    let text = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned());
    (output.status.success(), text.concat())
}

#[test]
fn the_linter_of_the_strictest_profile_finds_nothing_and_skips_nothing() {
    let home = tempfile::tempdir().expect("folder");
    let Some(ansible) = ansible(Ansible::tried, home.path()) else { return };
    // Where a collection has to be for its own names to be found.
    let copy = home.path().join("linted/ansible_collections/weir/pop");
    fs::create_dir_all(copy.parent().expect("a folder")).expect("folder");
    let copied = Command::new("cp").arg("-rL").arg(collection()).arg(&copy).status().expect("cp");
    assert!(copied.success());
    let mut lint = ansible.command("ansible-lint");
    lint.args(["--offline", "--strict", "--profile", "production", "--nocolor"]).current_dir(&copy);
    let (is_clean, text) = said(lint.env("ANSIBLE_COLLECTIONS_PATH", home.path().join("linted")));
    assert!(is_clean && text.contains("Passed: 0 failure(s), 0 warning(s)"), "{text}");
    let grep =
        Command::new("grep").args(["-rnE", "noqa|skip_list|warn_list"]).arg(&copy).output().expect("grep");
    assert_eq!(String::from_utf8_lossy(&grep.stdout), "", "a rule is skipped");
}

#[test]
fn every_playbook_is_understood_by_the_oldest_and_the_newest_ansible() {
    for of in [Ansible::tried as fn(&Path) -> _, Ansible::least] {
        let home = tempfile::tempdir().expect("folder");
        let Some(ansible) = ansible(of, home.path()) else { return };
        let playbooks = stems(&collection().join("playbooks"));
        let expected = ["drain", "loadtest", "rollback", "site", "undrain", "upgrade", "verify"];
        assert_eq!(playbooks.iter().map(String::as_str).collect::<Vec<_>>(), expected);
        for playbook in playbooks {
            let mut check = ansible.command("ansible-playbook");
            check.args(["--syntax-check", "--inventory"]).arg(sample()).arg(format!("weir.pop.{playbook}"));
            let (is_sound, text) = said(&mut check);
            // The oldest says of every playbook of a collection that it is one.
            let warnings = text.replace("[WARNING]: running playbook inside collection", "").contains("WARN");
            assert!(is_sound && !warnings, "{playbook}: {text}");
        }
    }
}

/// A value that each role has to refuse, and what it says.
const REFUSED: [(&str, &str, &str); 6] = [
    ("host_check", "{\"host_check_free_mib_min\": \"much\"}", "host_check_free_mib_min"),
    (
        "kernel",
        "{\"kernel_transparent_hugepages\": \"maybe\"}",
        "must be one of: madvise, always, never, keep",
    ),
    (
        "nic",
        "{\"nic_links\": [{\"name\": \"a\", \"match\": {\"Driver\": \"b\"}, \"link\": {\"RxBuffer\": 1}}]}",
        "RxBuffer",
    ),
    ("weir", "{\"weir_ready_s\": 1}", "missing required arguments: weir_package"),
    ("anycast", "{\"anycast_local_as\": \"many\"}", "anycast_local_as"),
    ("observability", "{\"observability_metrics_port\": \"all\"}", "observability_metrics_port"),
];

#[test]
fn every_role_says_what_it_takes_and_refuses_another_value_by_name() {
    let roles = stems(&collection().join("roles"));
    assert_eq!(roles, REFUSED.iter().map(|(role, ..)| (*role).to_owned()).collect());
    for of in [Ansible::tried as fn(&Path) -> _, Ansible::least] {
        let home = tempfile::tempdir().expect("folder");
        let Some(ansible) = ansible(of, home.path()) else { return };
        for (role, value, words) in REFUSED {
            let play = home.path().join("play.yml");
            let text = format!("- {{hosts: localhost, gather_facts: false, roles: [weir.pop.{role}]}}\n");
            fs::write(&play, text).expect("written");
            let mut run = ansible.command("ansible-playbook");
            run.args(["--connection", "local", "--inventory", "localhost,", "--extra-vars", value]);
            let (is_taken, text) = said(run.arg(&play));
            assert!(!is_taken && text.contains("Validation of arguments failed"), "{role}: {text}");
            assert!(text.contains(words), "{role}: {text}");
        }
    }
}

#[test]
fn every_variable_of_a_role_is_described_with_its_type_and_in_the_manual() {
    let manual = fs::read_to_string(collection().join("README.md")).expect("the manual");
    for role in stems(&collection().join("roles")) {
        let read = |path: &str| -> String {
            let path: PathBuf = collection().join("roles").join(&role).join(path);
            fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
        };
        let specs = read("meta/argument_specs.yml");
        let defaults = read("defaults/main.yml");
        let names = defaults.lines().filter_map(|line| line.split_once(':').map(|(name, _)| name));
        for name in names.filter(|name| name.starts_with(&role)) {
            assert!(specs.contains(&format!("      {name}:\n")), "{name} is not described");
            assert!(manual.contains(&format!("`{name}`")), "{name} is not in the manual");
        }
        let options = specs.matches("\n        type: ").count();
        let described = specs.matches("\n        description: ").count();
        assert!(options > 0 && options == described, "{role}: {options} types, {described} descriptions");
    }
}
