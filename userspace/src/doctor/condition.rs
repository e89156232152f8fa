//! The one table of conditions: name, what it is, why it matters, what mends it.
//!
//! The report, its JSON and `weir explain` read it. A name is never used for anything else.

macro_rules! conditions {
    ($( $variant:ident $name:literal { $what:literal } { $why:literal } { $fix:literal } )*) => {
        /// Something of the host that a node depends on.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Condition {
            $( #[doc = $what] $variant, )*
        }

        impl Condition {
            /// Every condition, in the order in which they are looked at.
            pub const ALL: &'static [Self] = &[ $( Self::$variant, )* ];

            /// The stable name: in the report, in JSON, and the argument of `weir explain`.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self { $( Self::$variant => $name, )* }
            }

            /// What is looked at.
            #[must_use]
            pub const fn what(self) -> &'static str {
                match self { $( Self::$variant => $what, )* }
            }

            /// Why it matters.
            #[must_use]
            pub const fn why(self) -> &'static str {
                match self { $( Self::$variant => $why, )* }
            }

            /// What mends it, in general.
            #[must_use]
            pub const fn fix(self) -> &'static str {
                match self { $( Self::$variant => $fix, )* }
            }
        }
    };
}

conditions! {
    Kernel "kernel"
        { "The release of the kernel." }
        { "A worker's ring is set up with flags that Linux has from 6.1 on; on an older kernel no worker starts." }
        { "Install Linux 6.1 or newer, such as that of Debian 12." }
    IoUring "io_uring"
        { "Whether a ring as a worker has it can be set up; one was, and is gone again." }
        { "All a worker does with sockets and files goes through its ring. Without it the node does not start." }
        { "Set `sysctl kernel.io_uring_disabled=0`, and see that no seccomp filter of a container or unit forbids io_uring." }
    Bpf "bpf"
        { "Whether the kernel takes the BPF programs; they were loaded, attached to nothing, and are gone again." }
        { "They drop what cannot be a click, and bring each packet to its worker. Without them every packet costs the kernel's whole way." }
        { "Give the node CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN (`AmbientCapabilities=` in its unit)." }
    Btf "btf"
        { "The kernel's own types, /sys/kernel/btf/vmlinux." }
        { "The programs load without them; tools that look into a program that runs, such as bpftool, do not." }
        { "Use a kernel built with CONFIG_DEBUG_INFO_BTF, as those of distributions are." }
    Bpffs "bpffs"
        { "Whether a BPF file system is mounted on /sys/fs/bpf." }
        { "The XDP program stays attached there while the node is restarted (`steer.pin_dir`); without it, it is detached for that moment." }
        { "Run `mount -t bpf bpf /sys/fs/bpf`; systemd does so by itself. Make the folder of `steer.pin_dir` for the node's user." }
    Capabilities "capabilities"
        { "The effective capabilities of who asks. Ask as the user, and in the unit, that the node runs as." }
        { "CAP_BPF, CAP_PERFMON and CAP_NET_ADMIN load and attach the BPF programs; CAP_NET_ADMIN also sizes the sockets' buffers." }
        { "Run the node as root, or give it `AmbientCapabilities=CAP_BPF CAP_PERFMON CAP_NET_ADMIN` in its unit." }
    Memlock "memlock"
        { "The limit on locked memory." }
        { "Kernels before 5.12 charge rings and BPF maps to it; newer ones charge them to the cgroup, where nothing is to be raised." }
        { "Set `LimitMEMLOCK=infinity` in the unit, or use a newer kernel." }
    OpenFiles "open_files"
        { "The limit on open files, against what the config may need." }
        { "Every connection is a file, and so is every segment. A node that may not have as many does not start." }
        { "Raise the hard limit (`LimitNOFILE=` in the unit), or lower `rx.http.connections_per_worker`." }
    SocketBuffer "socket_buffer"
        { "The receive buffer a click socket gets, against `rx.udp.socket_buffer`." }
        { "It holds a burst while its worker is busy. What overflows is lost, and counted as `socket_overflow`." }
        { "Give the node CAP_NET_ADMIN, or raise `sysctl net.core.rmem_max`." }
    Memory "memory"
        { "The memory that is free, against what tables and buffers take at their bounds." }
        { "Memory is taken as it is needed. A node that needs more than there is gets killed at its busiest." }
        { "Add memory, or lower `dedupe.capacity`, `forward.uniques_memory` or `buckets.capacity`." }
    HugePages "huge_pages"
        { "Whether the kernel gives transparent huge pages to who asks for them." }
        { "A click touches places far apart in large tables; on small pages each costs a walk of the page table too." }
        { "Run `echo madvise > /sys/kernel/mm/transparent_hugepage/enabled`, and at each boot." }
    Cores "cores"
        { "The cores that `workers.cores` names: there, online, and allowed to this process." }
        { "A worker is pinned to its core. One that cannot be runs anywhere, and shares a core with another." }
        { "Bring the core online, widen the cpuset (`AllowedCPUs=` in the unit), or correct `workers.cores`." }
    Isolation "isolation"
        { "Whether the scheduler keeps other work off the workers' cores." }
        { "What else runs there makes a worker wait, and its clicks with it: the tail of the acks' latency." }
        { "Boot with `isolcpus=` and `nohz_full=` for the workers' cores, and leave some to the rest." }
    Governor "governor"
        { "How the clocks of the workers' cores are governed." }
        { "A core that clocks down between bursts begins each of them slowly." }
        { "Run `cpupower frequency-set -g performance`, and at each boot." }
    Turbo "turbo"
        { "Whether cores may clock higher than their base for a while." }
        { "Without it a core does less; with it, figures of two runs differ." }
        { "Turn it on in the firmware or under /sys/devices/system/cpu, unless it is off on purpose." }
    Interface "interface"
        { "The interface that `steer.interface` names: there, and up." }
        { "Nothing can be steered on an interface that is not there, and with mode `native` or `generic` the node does not start." }
        { "Correct `steer.interface`; `ip link` lists what there is." }
    Driver "driver"
        { "The driver of that interface." }
        { "It decides which rungs of the ladder native, generic, none there are." }
        { "See what /sys/class/net/INTERFACE/device/driver points to." }
    Queues "queues"
        { "The receive queues of that interface, against the workers." }
        { "Packets of one queue come up on one core. With fewer queues than workers some cores only get what others hand to them." }
        { "Run `ethtool -L INTERFACE combined N`, with N the number of workers." }
    Rings "rings"
        { "The descriptors of each receive queue." }
        { "They hold what arrives while a core is busy. What overflows is lost in the NIC, where no counter of Weir's sees it." }
        { "Run `ethtool -G INTERFACE rx N`." }
    Rss "rss"
        { "Whether the NIC spreads flows over all its receive queues." }
        { "Queues that no flow is sent to leave their cores idle while others overflow." }
        { "Run `ethtool -X INTERFACE equal N`, with N the number of queues." }
    Xdp "xdp"
        { "Whether the driver runs XDP programs itself, and whether one of somebody else is there already." }
        { "In the driver a packet is dropped before the kernel has spent anything on it; an interface has room for one program." }
        { "Use a NIC whose driver knows XDP, or `steer.mode = \"generic\"`; take another program off with `ip link set INTERFACE xdp off`." }
    Irq "irq"
        { "The cores that the interface's interrupts go to, against the workers' cores." }
        { "A packet that comes up on a core without a worker has to change cores; all on one core is that core's limit." }
        { "Stop irqbalance, and write one worker's core for each queue into /proc/irq/N/smp_affinity_list." }
    Clock "clock"
        { "Whether the system clock can be right, and whether something keeps it so." }
        { "Minutes, lifetimes and dedupe hang on it. While it cannot be relied on, nothing becomes final." }
        { "Run chrony or systemd-timesyncd, and see that it has a source." }
    Filesystem "filesystem"
        { "The kind of file system that holds `node.data_dir`." }
        { "An acknowledged click has to survive a power cut; one in memory, or in a container's own layer, does not." }
        { "Put `node.data_dir` on ext4 or XFS on a local disk." }
    Fsync "fsync"
        { "How long an fdatasync of one page takes in the journal's folder: measured, in a file that is gone again." }
        { "A click is acknowledged after its sync, so no ack is faster than this." }
        { "Use a disk with power-loss protection; see whether something else writes to it." }
    Space "space"
        { "The free space under the journal, against `journal.max_size`." }
        { "A full disk loses nothing, but new clicks are told to retry." }
        { "Free space, or lower `journal.max_size` to what the disk has." }
    JournalKeys "journal_keys"
        { "Where the keys of encrypted segments are." }
        { "On the device of the segments, who has the one has the other; in memory, a power cut takes the clicks with the keys." }
        { "Put `journal.keys_dir` on another device that survives a power cut, with mode 0700." }
    SigningKeys "signing_keys"
        { "Who may read the files of `[[keys]]`." }
        { "Who has a key can sign clicks that are billed." }
        { "Run `chmod 640` on them; their owner is root, or the node's user, and their group the node's." }
    Salts "salts"
        { "The folder of users' salts, its files and who may read them." }
        { "With its salt a day's users can be found again in the rows; a folder that cannot be used keeps the node from starting." }
        { "Make the folder, mode 0750, and a file of 32 hex digits a day, mode 0640, for the group of the node's user; one that the node draws in belongs to that user, mode 0700." }
    Lists "lists"
        { "The files of `[traffic]`, all read and checked as at a start." }
        { "A list that cannot be used keeps the node from starting." }
        { "Correct the lines that are named, or take the file out of the config." }
    Model "model"
        { "The file of `score.model_file`, read and checked as at a start." }
        { "Without its model the node goes on, and clicks are marked as not scored." }
        { "Bring the file that training wrote; docs/scoring.md says how." }
    Certificate "certificate"
        { "Certificate and key of HTTPS, read and checked as at a start, and who may read the key." }
        { "Without them the door does not open, and the node does not start; who has the key can pass for this node." }
        { "Bring a chain and the key that belongs to it, both PEM, and run `chmod 640` on the key, for the group of the node's user." }
    Catalog "catalog"
        { "The file of `rx.http.catalog_file`, read and checked as at a start." }
        { "A catalog that cannot be used keeps the node from starting." }
        { "Correct what is named, or set `rx.http.catalog_file = \"\"`." }
    Ports "ports"
        { "Whether the ports that the config names can be bound here." }
        { "A port that another process holds, or an address that is not on this host, keeps the node from starting." }
        { "Find who holds it with `ss -ulnp` or `ss -tlnp`, or correct the config." }
    Kafka "kafka"
        { "Whether the brokers that the config names take a connection, and one of them answers." }
        { "While Kafka is away clicks are taken and wait in the journal; when that is full they are told to retry." }
        { "Bring the brokers back, or correct `kafka.brokers`, `kafka.tls` and `kafka.sasl`." }
}

impl Condition {
    /// The condition of this name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|condition| condition.name() == name)
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use weir_common::reason::Reason;

    use super::*;

    #[test]
    fn every_condition_has_a_name_of_its_own_that_no_reason_has_and_its_texts() {
        let names: BTreeSet<_> = Condition::ALL.iter().map(|condition| condition.name()).collect();
        assert_eq!(names.len(), Condition::ALL.len());
        for &condition in Condition::ALL {
            let name = condition.name();
            assert!(name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_'), "{name}");
            assert!(Reason::ALL.iter().all(|reason| reason.name() != name), "{name} is a reason too");
            assert_eq!(Condition::from_name(name), Some(condition));
            for text in [condition.what(), condition.why(), condition.fix()] {
                assert!(text.len() > 20 && text.ends_with('.'), "{name}: {text}");
            }
        }
        assert_eq!(Condition::from_name("no such"), None);
    }
}
