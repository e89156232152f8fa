//! The Debian package: what is in it, that it is the same twice, and what it does to a system. The program in it is
//! that of the tests; nothing is installed outside a scratch folder.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::LazyLock;

/// What two runs of the task made, or why none can be made here.
struct Made {
    folder: tempfile::TempDir,
    packages: [PathBuf; 2],
}

static MADE: LazyLock<Result<Made, String>> = LazyLock::new(|| {
    let cargo = |arguments: &[&str]| Command::new(env!("CARGO")).args(arguments).output();
    if !cargo(&["deb", "--version"]).is_ok_and(|output| output.status.success()) {
        return Err("cargo-deb is not there; `cargo xtask setup` installs it".to_owned());
    }
    if !beside_the_task("weir").exists() {
        return Err("weir is not built; run `cargo build -p weir`".to_owned());
    }
    let folder = tempfile::tempdir().expect("folder");
    let packages = ["first", "second"].map(|name| {
        let out = folder.path().join(name);
        let mut task = Command::new(env!("CARGO_BIN_EXE_xtask"));
        task.args(["package", "--no-install", "--no-build", "--profile", "dev", "--out"]).arg(&out);
        succeed(&mut task);
        let mut packages =
            fs::read_dir(&out).expect("the folder").map(|entry| entry.expect("an entry").path());
        packages.next().expect("a package")
    });
    Ok(Made { folder, packages })
});

/// The package as both runs made it; without one, says why.
fn made() -> Option<&'static Made> {
    MADE.as_ref().map_err(|why| eprintln!("skipped: {why}")).ok()
}

fn beside_the_task(name: &str) -> PathBuf {
    Path::new(env!("CARGO_BIN_EXE_xtask")).with_file_name(name)
}

#[track_caller]
fn succeed(command: &mut Command) -> String {
    let Output { status, stdout, stderr } = command.output().expect("a program");
    let said = String::from_utf8_lossy(&stdout).into_owned();
    assert!(status.success(), "{command:?}: {status}\n{said}{}", String::from_utf8_lossy(&stderr));
    said
}

fn tree(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

/// The package laid out in a folder of its own, without running any of its scripts.
fn unpacked(made: &Made, name: &str) -> PathBuf {
    let root = made.folder.path().join(name);
    succeed(Command::new("dpkg-deb").arg("-x").arg(&made.packages[0]).arg(&root));
    root
}

#[test]
fn two_packages_of_one_program_are_the_same_to_the_octet() {
    let Some(made) = made() else { return };
    let [first, second] = made.packages.each_ref().map(|path| fs::read(path).expect("a package"));
    assert!(first == second, "{:?} differ", made.packages);
    let version = concat!("weir_", env!("CARGO_PKG_VERSION"), "_");
    let name = made.packages[0].file_name().and_then(|name| name.to_str()).expect("a name");
    assert!(name.starts_with(version) && name.ends_with(".deb"), "{name}");
}

/// What a package must hold, and how open each is.
const FILES: [(&str, &str); 19] = [
    ("usr/bin/weir", "-rwxr-xr-x"),
    ("etc/weir/weir.toml", "-rw-r--r--"),
    ("usr/lib/systemd/system/weir.service", "-rw-r--r--"),
    ("usr/lib/systemd/system/weir-announce.service", "-rw-r--r--"),
    ("usr/lib/sysusers.d/weir.conf", "-rw-r--r--"),
    ("usr/lib/tmpfiles.d/weir.conf", "-rw-r--r--"),
    ("usr/share/weir/lists/browsers.list", "-rw-r--r--"),
    ("usr/share/weir/lists/robots.list", "-rw-r--r--"),
    ("usr/share/weir/prometheus/weir.rules.yml", "-rw-r--r--"),
    ("usr/share/weir/grafana/weir.json", "-rw-r--r--"),
    ("usr/share/weir/bird/weir.conf", "-rw-r--r--"),
    ("usr/share/man/man1/weir.1.gz", "-rw-r--r--"),
    ("usr/share/man/man1/weir-announce.1.gz", "-rw-r--r--"),
    ("usr/share/man/man1/weir-actors-build.1.gz", "-rw-r--r--"),
    ("usr/share/bash-completion/completions/weir", "-rw-r--r--"),
    ("usr/share/zsh/vendor-completions/_weir", "-rw-r--r--"),
    ("usr/share/fish/vendor_completions.d/weir.fish", "-rw-r--r--"),
    ("usr/share/doc/weir/copyright", "-rw-r--r--"),
    ("usr/share/doc/weir/changelog.gz", "-rw-r--r--"),
];

#[test]
fn the_package_holds_what_an_operator_needs_and_nothing_that_others_may_write() {
    let Some(made) = made() else { return };
    let listing = succeed(Command::new("dpkg-deb").arg("-c").arg(&made.packages[0]));
    let mut modes = BTreeMap::new();
    for line in listing.lines() {
        let words: Vec<_> = line.split_whitespace().collect();
        let (mode, owner, path) = (words[0], words[1], words[5].trim_start_matches("./"));
        assert_eq!(owner, "0/0", "{path}");
        assert!(matches!(mode, "drwxr-xr-x" | "-rwxr-xr-x" | "-rw-r--r--"), "{mode} {path}");
        modes.insert(path, mode);
    }
    for (path, mode) in FILES {
        assert_eq!(modes.get(path), Some(&mode), "{path}");
    }
    let executable: Vec<_> = modes.iter().filter(|(_, mode)| **mode == "-rwxr-xr-x").collect();
    assert_eq!(executable, [(&"usr/bin/weir", &"-rwxr-xr-x")]);
    let conffiles = succeed(Command::new("dpkg-deb").arg("-I").arg(&made.packages[0]).arg("conffiles"));
    assert_eq!(conffiles, "/etc/weir/weir.toml\n");
}

#[test]
fn the_packaged_program_takes_the_packaged_config_and_lists() {
    let Some(made) = made() else { return };
    let root = unpacked(made, "config");
    let config = root.join("etc/weir/weir.toml");
    let program = || Command::new(root.join("usr/bin/weir"));
    assert!(succeed(program().arg("check-config").arg(&config)).starts_with("ok\n"));
    assert_eq!(succeed(program().arg("print-config")), fs::read_to_string(&config).expect("the config"));
    // The two files that an operator would name first.
    let lists = root.join("usr/share/weir/lists");
    let text = fs::read_to_string(&config).expect("the config");
    let with = |text: String, key: &str, list: &str| {
        text.replace(&format!("{key} = \"\""), &format!("{key} = {:?}", lists.join(list)))
    };
    let listed =
        with(with(text.clone(), "browsers_file", "browsers.list"), "known_robots_file", "robots.list");
    assert_ne!(listed, text);
    fs::write(&config, listed).expect("written");
    assert!(succeed(program().arg("check-config").arg(&config)).starts_with("ok\n"));
}

/// The values of a key of the unit, in order.
fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    unit.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect()
}

#[test]
fn every_path_that_the_unit_names_is_packaged_or_made_before_it_is_used() {
    let Some(made) = made() else { return };
    let root = unpacked(made, "paths");
    let unit = fs::read_to_string(root.join("usr/lib/systemd/system/weir.service")).expect("the unit");
    // Made by systemd at the start, for the user of the unit.
    let state = values(&unit, "StateDirectory").into_iter().map(|name| format!("/var/lib/{name}"));
    let run = values(&unit, "RuntimeDirectory").into_iter().map(|name| format!("/run/{name}"));
    let at_start: Vec<_> = state.chain(run).collect();
    let settings = unit.lines().filter(|line| !line.starts_with('#'));
    let words = settings.flat_map(|line| line.split(['=', ' ', '"']));
    let paths: Vec<_> = words.filter(|word| word.starts_with('/') && *word != "/bin/sh").collect();
    assert!(paths.contains(&"/usr/bin/weir") && paths.contains(&"/etc/weir/weir.toml"), "{paths:?}");
    for path in &paths {
        let packaged = root.join(path.trim_start_matches('/')).exists();
        assert!(packaged || at_start.iter().any(|made| made == path), "{path} is nowhere");
    }
    // The folders of the packaged config are, but for one, the only ones that the node may write to.
    let config = fs::read_to_string(root.join("etc/weir/weir.toml")).expect("the config");
    for folder in &at_start {
        assert!(config.contains(&format!("_dir = {folder:?}")), "{folder}");
    }
    // And that of the pinned XDP program, where there is a BPF file system.
    assert_eq!(values(&unit, "ReadWritePaths"), ["/var/lib/weir -/sys/fs/bpf/weir"]);
    assert!(config.contains("pin_dir = \"/sys/fs/bpf/weir\""));
    let made = fs::read_to_string(root.join("usr/lib/tmpfiles.d/weir.conf")).expect("folders");
    assert!(made.contains("d /sys/fs/bpf/weir 0700 weir weir -\n"), "{made}");
    let user = values(&unit, "User");
    let users = fs::read_to_string(root.join("usr/lib/sysusers.d/weir.conf")).expect("users");
    assert!(users.lines().any(|line| line.starts_with(&format!("u {} ", user[0]))), "{users}");
    for page in values(&unit, "Documentation").iter().flat_map(|pages| pages.split(' ')) {
        let name = page.trim_start_matches("man:").replace("(1)", ".1.gz");
        assert!(root.join("usr/share/man/man1").join(&name).exists(), "{page}");
    }
}

/// The units, and what each may be exposed at the most, in tenths of systemd's scale from 0 to 10.
const EXPOSURES_MAX: [(&str, &str); 2] = [("weir.service", "20"), ("weir-announce.service", "5")];

#[test]
fn the_unit_is_exposed_at_most_two_of_ten_and_has_no_mistake() {
    let (unit, exposure_max) = EXPOSURES_MAX[0];
    look_at_unit(unit, exposure_max);
}

#[test]
fn the_announcers_unit_is_exposed_at_most_half_of_ten_and_has_no_mistake() {
    let (unit, exposure_max) = EXPOSURES_MAX[1];
    look_at_unit(unit, exposure_max);
}

#[track_caller]
fn look_at_unit(name: &str, exposure_max: &str) {
    if Command::new("systemd-analyze").arg("--version").output().is_err() {
        return eprintln!("skipped: there is no systemd-analyze to measure the unit with");
    }
    let unit = tree("deploy/systemd").join(name);
    let mut security = Command::new("systemd-analyze");
    security.args(["security", "--offline=yes", "--no-pager", "--threshold", exposure_max]);
    succeed(security.arg(&unit));
    // Without the program it would be a mistake that it is not there.
    let text = fs::read_to_string(&unit).expect("the unit");
    let folder = tempfile::tempdir().expect("folder");
    let copy = folder.path().join(name);
    fs::write(&copy, text.replace("/usr/bin/weir", "/bin/true")).expect("written");
    let mut verify = Command::new("systemd-analyze");
    let output = verify.args(["verify", "--man=no"]).arg(&copy).output().expect("systemd-analyze");
    let said = String::from_utf8_lossy(&output.stderr);
    let own: Vec<_> = said.lines().filter(|line| line.contains("weir")).collect();
    assert!(output.status.success() && own.is_empty(), "{said}");
}

#[test]
fn the_announcer_may_do_nothing_but_speak_to_two_sockets_and_a_stop_withdraws_the_node_before_it() {
    let unit = fs::read_to_string(tree("deploy/systemd/weir-announce.service")).expect("the unit");
    let one = |key: &str| values(&unit, key).join("; ");
    assert_eq!((one("User"), one("SupplementaryGroups")), ("weir".to_owned(), "bird".to_owned()));
    assert_eq!(
        (one("CapabilityBoundingSet"), one("RestrictAddressFamilies")),
        (String::new(), "AF_UNIX".to_owned())
    );
    // Units stop in the order that is the reverse of their start: node, announcer, BIRD.
    assert_eq!((one("Before"), one("After")), ("weir.service".to_owned(), "bird.service".to_owned()));
    assert_eq!((one("Restart"), one("StartLimitIntervalSec")), ("always".to_owned(), "0".to_owned()));
    // What an operator writes into the file that the unit reads, as its first lines say it.
    assert_eq!(one("EnvironmentFile"), one("ConditionPathExists"));
    let sample = unit.lines().find_map(|line| line.trim_start_matches(['#', ' ']).strip_prefix("PROTOCOLS="));
    let arguments = sample.expect("a sample").trim_matches('"').split(' ');
    let bird = fs::read_to_string(tree("deploy/bird/weir.conf")).expect("BIRD's config");
    for protocol in arguments.filter(|word| *word != "--protocol") {
        let start = format!("protocol static {protocol} {{\n    disabled;\n");
        assert!(bird.contains(&start), "{protocol} has to be in BIRD's config, and disabled");
    }
}

/// A scratch root that dpkg installs into, its scripts run outside of it and told where it is. What they could tell a
/// running systemd is kept from them: `/run` is empty, or says that there is one, of stand-ins that write down what
/// they are asked.
struct Root(PathBuf);

/// What the scripts ask of a running systemd. The node runs; whether it would take its config, a file says.
const STAND_IN: &str = "#!/bin/sh
echo \"$(basename \"$0\") $*\" >> \"$STAND_INS/asked\"
[ \"$(basename \"$0\")\" != runuser ] || [ ! -e \"$STAND_INS/refuses\" ]
";

impl Root {
    fn new(made: &Made, name: &str) -> Self {
        let root = made.folder.path().join(name);
        for folder in ["var/lib/dpkg/info", "var/lib/dpkg/updates", "etc", "stand-ins"] {
            fs::create_dir_all(root.join(folder)).expect("folder");
        }
        fs::write(root.join("var/lib/dpkg/status"), "").expect("status");
        for program in ["systemctl", "runuser", "deb-systemd-invoke", "systemd-tmpfiles"] {
            let path = root.join("stand-ins").join(program);
            fs::write(&path, STAND_IN).expect("written");
            fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("a mode");
        }
        Self(root)
    }

    /// dpkg on this root; with `booted`, beside a systemd of stand-ins.
    fn dpkg(&self, booted: bool, arguments: &[&str]) -> Command {
        let run = if booted { "mkdir -p /run/systemd/system &&" } else { "" };
        let script = format!(
            "mount --make-rprivate / && mount -t tmpfs tmpfs /run && {run} PATH=$OWN_PATH exec \"$@\""
        );
        let root = format!("--root={}", self.0.display());
        let mut dpkg = Command::new("unshare");
        dpkg.args(["--mount", "sh", "-c", &script, "sh", "dpkg", &root, "--force-script-chrootless"]);
        // What it depends on is not there, and is not looked at here.
        dpkg.args(["--force-depends", "--log=/dev/null"]).args(arguments);
        let path = std::env::var("PATH").expect("a path");
        let stand_ins = self.path("stand-ins");
        let own = if booted { format!("{}:{path}", stand_ins.display()) } else { path };
        dpkg.env("STAND_INS", &stand_ins).env("OWN_PATH", own);
        dpkg
    }

    /// What the scripts asked of systemd since the last look.
    fn asked(&self) -> String {
        let path = self.path("stand-ins/asked");
        let asked = fs::read_to_string(&path).unwrap_or_default();
        fs::write(path, "").expect("written");
        asked
    }

    fn path(&self, path: &str) -> PathBuf {
        self.0.join(path)
    }
}

/// A root of this name, where one can be made.
fn root(name: &str) -> Option<(&'static Made, Root)> {
    let made = made()?;
    let mut probe = Command::new("unshare");
    if !probe.args(["--mount", "true"]).output().is_ok_and(|output| output.status.success()) {
        eprintln!("skipped: only root can install a package");
        return None;
    }
    Some((made, Root::new(made, name)))
}

#[test]
fn removing_keeps_config_and_clicks_and_purging_keeps_neither() {
    let Some((made, root)) = root("removed") else { return };
    let package = made.packages[0].to_str().expect("a path");
    succeed(&mut root.dpkg(false, &["-i", package]));
    let users = fs::read_to_string(root.path("etc/passwd")).expect("users");
    assert!(users.lines().any(|line| line.starts_with("weir:")), "{users}");

    let config = root.path("etc/weir/weir.toml");
    let changed = fs::read_to_string(&config).expect("config").replace("id = 1", "id = 7");
    fs::write(&config, &changed).expect("written");
    let clicks = root.path("var/lib/weir/journal/0");
    fs::create_dir_all(clicks.parent().expect("a folder")).expect("folder");
    fs::write(&clicks, "acknowledged").expect("written");
    succeed(&mut root.dpkg(false, &["-i", package]));
    assert_eq!(fs::read_to_string(&config).expect("config"), changed, "an upgrade keeps the config");

    succeed(&mut root.dpkg(false, &["-r", "weir"]));
    assert!(!root.path("usr/bin/weir").exists());
    assert_eq!(fs::read_to_string(&config).expect("config"), changed, "a removal keeps the config");
    assert!(clicks.exists(), "a removal keeps what may not be forwarded yet");
    succeed(&mut root.dpkg(false, &["-P", "weir"]));
    assert!(
        !config.exists() && !root.path("var/lib/weir").exists(),
        "a purge keeps nothing of the package's"
    );
}

#[test]
fn a_node_is_not_started_by_its_installation_and_restarted_by_an_upgrade_that_takes_its_config() {
    let Some((made, root)) = root("upgraded") else { return };
    let package = made.packages[0].to_str().expect("a path");
    succeed(&mut root.dpkg(true, &["-i", package]));
    let asked = root.asked();
    assert!(!asked.contains(" start ") && !asked.contains("restart"), "{asked}");
    let wanted = root.path("etc/systemd/system/multi-user.target.wants");
    assert!(!wanted.exists(), "an operator looks at the config before the node starts");
    assert!(!root.path("etc/weir/announce.env").exists(), "nobody has said what to announce");

    let refuses = root.path("stand-ins/refuses");
    fs::write(&refuses, "").expect("written");
    let refused = root.dpkg(true, &["-i", package]).output().expect("dpkg");
    let (asked, said) = (root.asked(), String::from_utf8_lossy(&refused.stderr).into_owned());
    assert!(!refused.status.success() && said.contains("the node goes on with the old one"), "{said}");
    assert!(asked.contains("runuser -u weir -- /usr/bin/weir check-config /etc/weir/weir.toml"), "{asked}");
    assert!(!asked.contains("restart"), "{asked}");

    fs::remove_file(&refuses).expect("removed");
    succeed(&mut root.dpkg(true, &["--configure", "weir"]));
    let asked = root.asked();
    // What does not run is not restarted either: it is `try-restart`.
    for unit in ["weir.service", "weir-announce.service"] {
        let restarts = asked.lines().filter(|line| line.contains("restart") && line.contains(unit));
        let restarts: Vec<_> = restarts.collect();
        assert!(!restarts.is_empty() && restarts.iter().all(|line| line.contains("try-restart")), "{asked}");
    }
}

#[test]
fn a_removal_drains_the_node_before_it_stops_who_withdraws_it() {
    let Some((made, root)) = root("drained") else { return };
    let package = made.packages[0].to_str().expect("a path");
    succeed(&mut root.dpkg(true, &["-i", package]));
    root.asked();
    succeed(&mut root.dpkg(true, &["-r", "weir"]));
    let asked = root.asked();
    let stops: Vec<_> =
        asked.lines().filter_map(|line| line.split_once(" stop ")).map(|(_, unit)| unit).collect();
    assert_eq!(stops, ["weir.service", "weir-announce.service"], "{asked}");
}
