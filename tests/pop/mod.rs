//! A POP with the playbooks at hand: what its labs share.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use weir_labs::ansible::{Ansible, Run, sample};
use weir_labs::nspawn::{ANYCAST, BFD_INTERVAL_MS, BFD_MULTIPLIER, Pop};
use weir_labs::{Aim, Generator, Load, binary, is_built};

/// Whatever a lab waits for is so within this.
const SOON: Duration = Duration::from_secs(60);
/// Clicks a second: enough for each node to have some in hand at any time.
pub(crate) const RATE: u32 = 400;
/// How long one run of the sender is.
const SPELL: Duration = Duration::from_secs(10);
/// One POP at a time: each is a machine's worth of work.
static ONE: Mutex<()> = Mutex::new(());

/// Two packages of one program.
pub(crate) struct Packages {
    pub(crate) first: PathBuf,
    pub(crate) next: PathBuf,
    _folder: tempfile::TempDir,
}

pub(crate) static PACKAGES: LazyLock<Result<Packages, String>> = LazyLock::new(|| {
    for name in ["xtask", "weir", "weir-bench"] {
        if !is_built(name) {
            return Err(format!("{name} is not built; run `cargo build -p xtask -p weir -p weir-bench`"));
        }
    }
    let folder = tempfile::tempdir().expect("folder");
    let [first, next] = ["", "+next"].map(|suffix| {
        say(&format!("a package of version ...{suffix}"));
        let out = folder.path().join(if suffix.is_empty() { "first" } else { "next" });
        let mut task = Command::new(binary("xtask"));
        task.args(["package", "--no-install", "--no-build", "--profile", "dev", "--version-suffix", suffix]);
        let made = task.arg("--out").arg(&out).output().expect("xtask");
        assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
        fs::read_dir(&out).expect("folder").flatten().next().expect("a package").path()
    });
    Ok(Packages { first, next, _folder: folder })
});

/// A line of progress.
pub(crate) fn say(what: &str) {
    static BEGUN: LazyLock<Instant> = LazyLock::new(Instant::now);
    println!("[{:>3} s] {what}", BEGUN.elapsed().as_secs());
}

/// Three hosts with nothing on them, and Ansible.
pub(crate) struct Lab {
    pub(crate) pop: Pop,
    ansible: Ansible,
    least: Ansible,
    inventory: PathBuf,
    home: tempfile::TempDir,
    _one: MutexGuard<'static, ()>,
}

impl Lab {
    /// One, or the reason why there is none.
    pub(crate) fn new() -> Option<Self> {
        let one = ONE.lock().unwrap_or_else(PoisonError::into_inner);
        let home = tempfile::tempdir().expect("folder");
        let both = Ansible::tried(home.path()).and_then(|tried| Ok((tried, Ansible::least(home.path())?)));
        let (ansible, least) = match (Pop::unavailable(), both, PACKAGES.as_ref()) {
            (None, Ok(both), Ok(_)) => both,
            (why, both, packages) => {
                let ansible = both.err().map(|error| format!("{error:#}"));
                eprintln!("skipped: {}", why.or(ansible).or(packages.err().cloned()).unwrap_or_default());
                return None;
            }
        };
        ansible.install_collection().expect("the collection");
        say("three hosts boot");
        let pop = Pop::boot(3).expect("hosts");
        let inventory = home.path().join("lab.yml");
        fs::write(&inventory, lab_inventory(home.path()).to_string()).expect("written");
        Some(Self { pop, ansible, least, inventory, home, _one: one })
    }

    /// Runs a playbook.
    pub(crate) fn run(&self, playbook: &str, arguments: &[&str]) -> Run {
        self.run_by(&self.ansible, playbook, arguments)
    }

    /// Runs a playbook by the oldest Ansible that the collection takes.
    pub(crate) fn run_by_least(&self, playbook: &str, arguments: &[&str]) -> Run {
        self.run_by(&self.least, playbook, arguments)
    }

    fn run_by(&self, ansible: &Ansible, playbook: &str, arguments: &[&str]) -> Run {
        let begun = Instant::now();
        let mut command = ansible.playbook(&self.pop, playbook, &self.inventory);
        let run = Run::of(command.args(arguments)).expect(playbook);
        let spent = begun.elapsed().as_secs();
        say(&format!("{playbook} {}: {spent} s", arguments.first().unwrap_or(&"")));
        run
    }

    /// Runs a playbook while clicks are sent, from before its beginning until after its end; all of them have to be
    /// acknowledged. How many there were.
    pub(crate) fn run_under_load(&self, playbook: &str, arguments: &[&str]) -> (Run, u64) {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let mut load = self.load(RATE, SPELL);
            let sender = scope.spawn(|| {
                let mut clicks = 0;
                loop {
                    clicks += self.all_answered(load);
                    if is_over.load(Ordering::Relaxed) {
                        return clicks;
                    }
                    load = self.load(RATE, SPELL);
                }
            });
            let run = self.run(playbook, arguments);
            is_over.store(true, Ordering::Relaxed);
            (run, sender.join().expect("clicks with answers"))
        })
    }

    /// Runs a playbook that has to go well and to change nothing.
    #[track_caller]
    pub(crate) fn nothing_changes(&self, playbook: &str, arguments: &[&str]) {
        let run = self.run(playbook, arguments).well().expect(playbook);
        assert!(run.changes().is_empty(), "{:?}\n{}", run.changes(), run.text);
    }

    /// Whether a file is on a host.
    pub(crate) fn has(&self, node: usize, path: &str) -> bool {
        self.pop.on(node, &format!("test -e {path} && echo there || true")).expect("a look") == "there\n"
    }

    /// What a node says of itself.
    pub(crate) fn status(&self, node: usize) -> Value {
        let text = self.pop.on(node, "weir status --json").expect("a status");
        serde_json::from_str(&text).expect("JSON")
    }

    /// The process of a node.
    pub(crate) fn process(&self, node: usize) -> String {
        self.pop.on(node, "systemctl show --property=MainPID --value weir").expect("systemctl")
    }

    /// How many sockets of a node systemd keeps.
    pub(crate) fn sockets_kept(&self, node: usize) -> u32 {
        let asked = "systemctl show --property=NFileDescriptorStore --value weir";
        self.pop.on(node, asked).expect("systemctl").trim().parse().expect("a number")
    }

    /// The version of the package on a node.
    pub(crate) fn version(&self, node: usize) -> String {
        self.pop.on(node, "dpkg-query --show --showformat='${Version}' weir").expect("dpkg-query")
    }

    /// Starts to send clicks to the address of the POP.
    pub(crate) fn load(&self, rate: u32, duration: Duration) -> Generator {
        let (key, target) = (self.home.path().join("key"), format!("{ANYCAST}:4500"));
        let load = Load { profile: "clean", rate, duration, seed: rand::random() };
        Generator::aimed(Aim { target: &target, key: &key, threads: 6 }, self.home.path(), load)
            .expect("a generator")
    }

    /// Waits for the end of a load; every click has to be acknowledged. How many there were.
    pub(crate) fn all_answered(&self, load: Generator) -> u64 {
        let (report, acked) = load.finish(Duration::from_secs(150)).expect("a valid run");
        let lines = fs::read_to_string(acked).expect("acks").lines().count() as u64;
        say(&format!("the sender: {}", report["acks"]));
        assert!(lines > 0, "{report}");
        lines
    }

    /// Waits until a node counts clicks, and says which: the hash of the router chooses, so it may be any.
    pub(crate) fn one_that_counts(&self) -> usize {
        let received = |node: usize| self.status(node)["clicks"]["received"].as_u64();
        let before = [1, 2, 3].map(received);
        let deadline = Instant::now() + SOON;
        loop {
            let counting = [1, 2, 3].into_iter().find(|node| received(*node) > before[node - 1]);
            if let Some(node) = counting {
                return node;
            }
            assert!(Instant::now() < deadline, "no node gets clicks");
        }
    }

    /// Stops a node, and counts the clicks in its store.
    pub(crate) fn stored(&self, node: usize) -> u64 {
        let audit =
            "systemctl stop weir && runuser -u weir -- weir audit --json --config /etc/weir/weir.toml";
        let audit: Value =
            serde_json::from_str(&self.pop.on(node, audit).expect("a sound store")).expect("JSON");
        let rows = audit["audit"]["rows"].as_u64().expect("rows");
        say(&format!("node {node}: {rows} clicks in its store"));
        rows
    }
}

/// What this lab has otherwise than the sample: its clock is the machine's, who watches and who sends is this process, and
/// the canary is not watched for long.
fn lab_inventory(home: &Path) -> Value {
    let packages = PACKAGES.as_ref().expect("packages");
    let key = home.join("key");
    let text = fs::read_to_string(sample()).expect("the sample");
    let secret = text.lines().find_map(|line| line.trim().strip_prefix("secret: ")).expect("its key");
    fs::write(&key, secret).expect("written");
    let here =
        json!({"ansible_connection": "local", "ansible_python_interpreter": "{{ ansible_playbook_python }}"});
    json!({"all": {
        "vars": {
            "ansible_user": "root",
            "weir_package": packages.first,
            "host_check_time_sync": false,
            "upgrade_canary_s": 2,
            "anycast_bfd_interval_ms": BFD_INTERVAL_MS,
            "anycast_bfd_multiplier": BFD_MULTIPLIER,
            "observability_rules_folder": home.join("rules"),
            "observability_targets_folder": home.join("targets"),
            "observability_dashboards_folder": home.join("dashboards"),
            "loadtest_program": binary("weir-bench"),
            "loadtest_target": format!("{ANYCAST}:4500"),
            "loadtest_key_file": key,
            "loadtest_clicks_per_s": 500,
            "loadtest_duration_s": 4,
            "loadtest_threads": 8,
            // What else this machine does is no matter here.
            "loadtest_late_bound": "60s",
            "loadtest_report": home.join("loadtest.json"),
        },
        "hosts": {"monitoring": here, "load": here},
    }})
}
