//! `weir doctor`: what is wrong with this host, for the config of a node, before the node is started.
//!
//! Each subject has a file with two halves: reading, a thin shell, and judging, functions over what was
//! read that know no kernel. What cannot be read is `unknown`, and never taken for good.
//!
//! It changes nothing on the host and leaves nothing behind: a ring and the BPF programs are set up and let
//! go of, and attached to nothing; ports are bound and not listened on; the file that is synced is gone again. It
//! starts no node, takes no lock, draws no key, and asks of a node that runs only its status.
//!
//! Start reading at [`examine`]; the names are in [`Condition`].

mod clock;
mod condition;
mod cores;
mod disk;
mod files;
mod finding;
mod interface;
mod kafka;
mod kernel;
mod netlink;
mod node;
mod ports;
mod process;
mod report;

use std::path::Path;

use rustix::process::{Resource, getrlimit};

pub use condition::Condition;
pub use finding::{Finding, Severity};
pub use report::Report;

use crate::config::{Config, Host, MemoryEstimate};
use crate::daemon::{clock_settings, open_files_needed, ring_settings};
use crate::steer::Switches;
use cores::CoreSet;
use finding::Verdict;
use interface::Steered;
use node::Node;
use process::Capabilities;

/// What several conditions are judged by.
struct Facts<'a> {
    config: &'a Config,
    /// The cores that take workers.
    workers: CoreSet,
    /// The cores this process may run on.
    allowed: CoreSet,
    steered: Steered,
    node: Node,
}

/// Looks at everything that a node of this config needs of this host. Takes some seconds at the most where a
/// disk or a broker is slow, and none where they are fit.
#[must_use]
pub fn examine(file: &Path, config: &Config, host: &Host) -> Report {
    let facts = Facts {
        config,
        workers: host.worker_cores(config).into_iter().collect(),
        allowed: host.cores.iter().copied().collect(),
        steered: Steered::of(&config.steer),
        node: Node::ask(config),
    };
    let mut findings = facts.of_the_kernel();
    findings.extend(facts.of_the_process());
    findings.extend(facts.of_the_cores());
    findings.extend(interface::examine(&config.steer, &facts.workers, facts.node.holder()));
    findings.extend(facts.of_the_clock_and_disk());
    findings.extend(facts.of_the_files());
    findings.extend(ports::examine(config, facts.node.holder()));
    findings.extend(kafka::examine(config));
    Report::new(file, facts.node.status().is_some(), findings)
}

/// Verdicts with their conditions, of which there is one each.
fn singly<const N: usize>(judged: [(Condition, Verdict); N]) -> Vec<Finding> {
    judged.into_iter().map(|(condition, verdict)| verdict.of(condition, None)).collect()
}

impl Facts<'_> {
    fn of_the_kernel(&self) -> Vec<Finding> {
        let steer = &self.config.steer;
        let switches = Switches { strip_vlan: steer.strip_vlan, verify_first: steer.verify_first };
        let ring = kernel::ring(ring_settings(self.config));
        singly([
            (Condition::Kernel, kernel::judge_release(&kernel::release())),
            (Condition::IoUring, kernel::judge_io_uring(&ring, &kernel::io_uring_disabled())),
            (Condition::Bpf, kernel::judge_programs(&kernel::programs(switches), self.steered)),
            (Condition::Btf, kernel::judge_btf(&kernel::btf())),
            (Condition::Bpffs, kernel::judge_bpffs(&kernel::bpffs())),
        ])
    }

    fn of_the_process(&self) -> Vec<Finding> {
        let may = Capabilities::read();
        let workers = self.workers.len();
        let files = open_files_needed(self.config, workers as u64);
        let locked = getrlimit(Resource::Memlock).current;
        let buffer = self.config.udp.socket_buffer_bytes as u64;
        let estimate = MemoryEstimate::of(self.config, workers);
        singly([
            (Condition::Capabilities, process::judge_capabilities(&may, self.steered)),
            (Condition::Memlock, kernel::judge_memlock(&kernel::release(), locked)),
            (Condition::OpenFiles, process::judge_open_files(process::OpenFiles::read(), files, &may)),
            (Condition::SocketBuffer, process::judge_socket_buffer(buffer, &process::rmem_max(), &may)),
            (Condition::Memory, process::judge_memory(&process::memory_available(), &estimate)),
            (Condition::HugePages, process::judge_huge_pages(&process::huge_pages())),
        ])
    }

    fn of_the_cores(&self) -> Vec<Finding> {
        let workers = &self.workers;
        singly([
            (Condition::Cores, cores::judge_cores(workers, &cores::online(), &self.allowed)),
            (Condition::Isolation, cores::judge_isolation(workers, &cores::isolated())),
            (Condition::Governor, cores::judge_governor(&cores::governors(workers))),
            (Condition::Turbo, cores::judge_turbo(&cores::turbo())),
        ])
    }

    fn of_the_clock_and_disk(&self) -> Vec<Finding> {
        let config = self.config;
        let doubt = clock::doubt(clock_settings(config), self.node.status());
        let journal = config.node.data_dir.join("journal");
        let folder = disk::nearest_existing(&journal);
        let kind = disk::kind(&folder);
        let (most, segment) = (config.journal.max_bytes, config.journal.segment_bytes);
        let room = disk::judge_room(&disk::Room::read(&journal), most, segment, self.workers.len());
        singly([
            (Condition::Clock, clock::judge_clock(doubt, &clock::keeper())),
            (Condition::Filesystem, disk::judge_kind(&kind)),
            (Condition::Fsync, disk::judge_syncs(&disk::measure(&folder, &kind))),
            (Condition::Space, room),
            (Condition::JournalKeys, files::journal_keys(&config.journal, &journal)),
        ])
    }

    fn of_the_files(&self) -> Vec<Finding> {
        let config = self.config;
        singly([
            (Condition::SigningKeys, files::signing_keys(config)),
            (Condition::Salts, files::salts(&config.privacy)),
            (Condition::Lists, files::lists(config)),
            (Condition::Model, files::model(config)),
            (Condition::Certificate, files::certificate(&config.http)),
            (Condition::Catalog, files::catalog(&config.http)),
        ])
    }
}
