//! `weir doctor` as an operator runs it: the real program on real configs, on this machine, whatever that is.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::net::UdpSocket;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use serde_json::Value;
use weir::doctor::{Condition, Severity};
use weir_labs::{NodeFolder, Setup, SmallDisk, binary};

const FIELDS: [&str; 6] = ["condition", "subject", "required", "current", "severity", "fix"];

fn doctor(config: &Path, more: &[&str]) -> Output {
    Command::new(binary("weir"))
        .arg("doctor")
        .arg("--config")
        .arg(config)
        .args(more)
        .output()
        .expect("weir runs")
}

/// Its JSON and its exit code.
fn report(folder: &NodeFolder) -> (Value, Option<i32>) {
    let Output { status, stdout, stderr } = doctor(&folder.config(), &["--json"]);
    let json = serde_json::from_slice(&stdout)
        .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
    (json, status.code())
}

fn findings(report: &Value) -> &[Value] {
    report["findings"].as_array().expect("a list")
}

/// The findings of one condition.
fn of(report: &Value, condition: Condition) -> Vec<&Value> {
    findings(report).iter().filter(|found| found["condition"] == condition.name()).collect()
}

/// The severities of one condition.
fn severities(report: &Value, condition: Condition) -> Vec<&str> {
    of(report, condition).iter().filter_map(|found| found["severity"].as_str()).collect()
}

/// Everything in a folder, with what a change of it would change.
fn tree(folder: &Path) -> BTreeMap<PathBuf, (u64, std::time::SystemTime)> {
    let mut found = BTreeMap::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).expect("listed").flatten() {
            let metadata = entry.metadata().expect("looked at");
            if metadata.is_dir() {
                folders.push(entry.path());
            }
            found.insert(entry.path(), (metadata.len(), metadata.modified().expect("a time")));
        }
    }
    found
}

#[test]
fn every_condition_is_judged_with_every_field_and_the_exit_code_says_the_worst() {
    let folder = NodeFolder::new("").expect("a folder");
    let (report, code) = report(&folder);
    let names: BTreeSet<_> =
        findings(&report).iter().filter_map(|found| found["condition"].as_str()).collect();
    let known: BTreeSet<_> = Condition::ALL.iter().map(|condition| condition.name()).collect();
    assert_eq!(names, known);
    let severities: Vec<_> = Severity::ALL.iter().map(|severity| severity.name()).collect();
    for found in findings(&report) {
        let keys: BTreeSet<_> = found.as_object().expect("a finding").keys().map(String::as_str).collect();
        assert_eq!(keys, BTreeSet::from(FIELDS));
        let severity = found["severity"].as_str().expect("text");
        assert!(severities.contains(&severity), "{found}");
        assert!(!found["required"].as_str().expect("text").is_empty(), "{found}");
        assert!(!found["current"].as_str().expect("text").is_empty(), "{found}");
        assert_eq!(found["fix"].as_str().expect("text").is_empty(), severity == "ok", "{found}");
    }
    assert_eq!(code, Some(i32::from(report["worst"] == "fatal")));
    assert_eq!(
        (&report["running"], report["config"].as_str()),
        (&Value::Bool(false), folder.config().to_str())
    );
}

#[test]
fn a_look_leaves_nothing_behind_and_changes_no_file() {
    let folder = NodeFolder::new("").expect("a folder");
    let before = tree(folder.path());
    for arguments in [&[][..], &["--json"]] {
        let told = doctor(&folder.config(), arguments);
        assert!(String::from_utf8_lossy(&told.stdout).contains("fsync"), "{told:?}");
    }
    assert_eq!(tree(folder.path()), before);
    // In a data folder that is there, a file comes and goes: only the folder's own time may tell.
    folder.start_ready().expect("ready").drain().expect("drained");
    let files =
        |folder: &Path| tree(folder).into_iter().filter(|(path, _)| path.is_file()).collect::<Vec<_>>();
    let before = files(folder.path());
    let (report, _) = report(&folder);
    assert_ne!(severities(&report, Condition::Fsync), ["unknown"]);
    assert_eq!(files(folder.path()), before);
}

#[test]
fn an_interface_that_is_missing_is_fatal_and_nothing_of_it_is_ok() {
    let folder = NodeFolder::new("[steer]\ninterface = \"weir-none\"\n").expect("a folder");
    let (report, code) = report(&folder);
    assert_eq!(code, Some(1));
    assert_eq!(severities(&report, Condition::Interface), ["fatal"]);
    assert_eq!(of(&report, Condition::Interface)[0]["subject"], "weir-none");
    for condition in [Condition::Driver, Condition::Queues, Condition::Rings, Condition::Rss, Condition::Xdp]
    {
        assert_eq!(severities(&report, condition), ["unknown"], "{condition:?}");
    }
}

#[test]
fn a_disk_without_room_for_the_segments_is_fatal() {
    if let Some(why) = SmallDisk::unavailable() {
        println!("skipped: {why}");
        return;
    }
    let disk = SmallDisk::ext4(16 << 20).expect("a disk");
    let folder = NodeFolder::with(Setup { data: Some(disk.path()), ..Setup::default() }).expect("a folder");
    let (found, code) = report(&folder);
    assert_eq!((code, severities(&found, Condition::Space)), (Some(1), vec!["fatal"]));
    assert_eq!(severities(&found, Condition::Filesystem), ["ok"]);
    let before = tree(disk.path());
    let _ballast = disk.fill().expect("filled");
    let (full, code) = report(&folder);
    assert_eq!((code, severities(&full, Condition::Fsync)), (Some(1), vec!["fatal"]));
    assert_eq!(tree(disk.path()).len(), before.len() + 1, "only what fills it is there");
}

#[test]
fn a_journal_in_memory_is_fatal() {
    let disk = match SmallDisk::tmpfs(64 << 20) {
        Ok(disk) => disk,
        Err(error) => {
            println!("skipped: no tmpfs can be mounted here: {error:#}");
            return;
        }
    };
    let folder = NodeFolder::with(Setup { data: Some(disk.path()), ..Setup::default() }).expect("a folder");
    let (report, code) = report(&folder);
    assert_eq!((code, severities(&report, Condition::Filesystem)), (Some(1), vec!["fatal"]));
    assert_eq!(fs::read_dir(disk.path()).expect("listed").count(), 0);
}

#[test]
fn a_port_that_somebody_holds_is_fatal_and_the_nodes_own_is_not() {
    let folder = NodeFolder::new("").expect("a folder");
    let holder = UdpSocket::bind(("127.0.0.1", folder.port())).expect("the port is free");
    let (held, code) = report(&folder);
    assert_eq!((code, severities(&held, Condition::Ports)), (Some(1), vec!["fatal"]));
    assert_eq!(of(&held, Condition::Ports)[0]["subject"], format!("udp 127.0.0.1:{}", folder.port()));
    drop(holder);
    let (free, _) = report(&folder);
    assert_eq!((severities(&free, Condition::Ports), &free["running"]), (vec!["ok"], &Value::Bool(false)));
    let mut node = folder.start_ready().expect("ready");
    let (own, _) = report(&folder);
    assert_eq!((severities(&own, Condition::Ports), &own["running"]), (vec!["ok"], &Value::Bool(true)));
    assert!(node.ended().expect("looked at").is_none(), "the node goes on");
    node.drain().expect("drained");
}

#[test]
fn a_broker_that_is_away_is_named_and_is_a_warning() {
    // A port that was free a moment ago, and that nobody listens on.
    let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let config = format!("[forward]\nsink = \"kafka\"\n[kafka]\nbrokers = [\"{free}\"]\n");
    let folder = NodeFolder::new(&config).expect("a folder");
    let (report, _) = report(&folder);
    let kafka = of(&report, Condition::Kafka);
    assert_eq!((kafka.len(), &kafka[0]["severity"]), (1, &"warning".into()));
    assert!(kafka[0]["current"].as_str().expect("text").contains(&free.to_string()), "{kafka:?}");
}

#[test]
fn files_that_cannot_be_used_and_secrets_that_others_may_read_are_told() {
    let folder = NodeFolder::new("[traffic]\nbad_prefixes_file = \"list\"\n").expect("a folder");
    folder.write_private("list", "not a prefix\n").expect("written");
    let mode = std::os::unix::fs::PermissionsExt::from_mode;
    fs::set_permissions(folder.key(), mode(0o660)).expect("a mode");
    let (found, code) = report(&folder);
    assert_eq!((code, severities(&found, Condition::Lists)), (Some(1), vec!["fatal"]));
    assert_eq!(severities(&found, Condition::SigningKeys), ["warning"]);
    assert!(of(&found, Condition::SigningKeys)[0]["fix"].as_str().expect("text").contains("chmod 640"));
    folder.write_private("list", "203.0.113.0/24 label\n").expect("written");
    fs::set_permissions(folder.key(), mode(0o640)).expect("a mode");
    let (mended, _) = report(&folder);
    assert_eq!(severities(&mended, Condition::Lists), ["ok"]);
    assert_eq!(severities(&mended, Condition::SigningKeys), ["ok"]);
}

#[test]
fn a_config_that_is_wrong_is_told_as_ever_and_looked_at_no_further() {
    let folder = NodeFolder::new("[journal_]\n").expect("a folder");
    let told = doctor(&folder.config(), &["--json"]);
    let checked =
        Command::new(binary("weir")).arg("check-config").arg(folder.config()).output().expect("weir runs");
    assert_eq!((told.status.code(), checked.status.code()), (Some(2), Some(2)));
    assert_eq!(
        (String::from_utf8_lossy(&told.stderr), &told.stdout[..]),
        (String::from_utf8_lossy(&checked.stderr), &[][..])
    );
    let nowhere = doctor(Path::new("/nowhere/weir.toml"), &[]);
    assert_eq!(nowhere.status.code(), Some(2));
}

#[test]
fn capabilities_are_judged_as_the_kernel_judges_the_programs() {
    let folder = NodeFolder::new("[steer]\ninterface = \"lo\"\n").expect("a folder");
    let (all, _) = report(&folder);
    if severities(&all, Condition::Bpf) != ["ok"]
        || Command::new("setpriv").arg("--version").output().is_err()
    {
        println!(
            "skipped: the BPF programs do not load here, or there is no setpriv to take capabilities away"
        );
        return;
    }
    for (set, severity) in [
        ("-all,+bpf,+perfmon,+net_admin", "ok"),
        ("-all,+sys_admin,+net_admin", "ok"),
        ("-all,+bpf,+net_admin", "warning"),
        ("-all,+perfmon,+net_admin", "warning"),
        ("-all", "warning"),
    ] {
        let mut command = Command::new("setpriv");
        command.args([format!("--bounding-set={set}"), format!("--inh-caps={set}"), "--".to_owned()]);
        command.arg(binary("weir")).args(["doctor", "--json", "--config"]).arg(folder.config());
        let Output { stdout, stderr, .. } = command.output().expect("setpriv runs");
        let found: Value = serde_json::from_slice(&stdout)
            .unwrap_or_else(|error| panic!("{error}: {}", String::from_utf8_lossy(&stderr)));
        for condition in [Condition::Bpf, Condition::Capabilities] {
            assert_eq!(severities(&found, condition), [severity], "{set} {condition:?}");
        }
    }
}

/// The doctor in a mount namespace of its own, where an empty folder hides one of the system's.
fn report_without(hidden: &str, folder: &NodeFolder) -> Option<Value> {
    let hide = format!("mount -t tmpfs weir-lab {hidden} && exec \"$@\"");
    let mut command = Command::new("unshare");
    command.args(["--mount", "sh", "-c", &hide, "sh"]).arg(binary("weir"));
    let told = command.args(["doctor", "--json", "--config"]).arg(folder.config()).output().ok()?;
    serde_json::from_slice(&told.stdout).ok()
}

#[test]
fn what_a_container_hides_is_unknown_and_never_ok() {
    let folder = NodeFolder::new("[steer]\ninterface = \"lo\"\n").expect("a folder");
    let of_sys = [
        Condition::Btf,
        Condition::Bpffs,
        Condition::HugePages,
        Condition::Cores,
        Condition::Isolation,
        Condition::Governor,
        Condition::Turbo,
        Condition::Interface,
        Condition::Driver,
        Condition::Irq,
    ];
    let of_proc = [Condition::Kernel, Condition::Capabilities, Condition::Memlock, Condition::Memory];
    for (hidden, conditions) in [("/sys", &of_sys[..]), ("/proc", &of_proc)] {
        let Some(report) = report_without(hidden, &folder) else {
            println!("skipped: {hidden} cannot be hidden here (needs root, unshare)");
            return;
        };
        for condition in conditions {
            assert_eq!(severities(&report, *condition), ["unknown"], "{hidden} {condition:?}");
        }
    }
}

#[test]
fn what_the_doctor_names_is_explained() {
    for name in ["fsync", "journal.encrypt", "bad_tag"] {
        let told = Command::new(binary("weir")).args(["explain", name]).output().expect("weir runs");
        assert!(told.status.success() && told.stdout.starts_with(name.as_bytes()), "{told:?}");
    }
    let unknown = Command::new(binary("weir")).args(["explain", "fsyn"]).output().expect("weir runs");
    assert_eq!(unknown.status.code(), Some(2));
    assert!(String::from_utf8_lossy(&unknown.stderr).contains("did you mean \"fsync\"?"), "{unknown:?}");
}
