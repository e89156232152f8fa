//! `weir-bench`: the command line over the library. Exit code 3 marks a run whose numbers must not
//! be used.
#![forbid(unsafe_code)]

use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use anyhow::{Context as _, bail};
use clap::{Args, Parser, Subcommand};
use weir_bench::attack;
use weir_bench::duration::parse_duration;
use weir_bench::http::command::{self, HttpArgs};
use weir_bench::key_file::{KeyArgs, read_key};
use weir_bench::live_frames::{self, Vary};
use weir_bench::mock_edge::{Faults, MockEdge};
use weir_bench::packet_socket::PacketSocket;
use weir_bench::plan::PlanArgs;
use weir_bench::raw_frames::{Link, parse_mac, resolve};
use weir_bench::reply_times;
use weir_bench::report::{Report, write_json, write_kinds};
use weir_bench::sink;
use weir_bench::udp::{self, Options};
use weir_common::id::{Issuer, KeyId};
use weir_sdk::Config;

/// The exit code of an invalid run.
const INVALID: u8 = 3;
/// Clicks are planned to wait this long at most for one datagram's worth of them.
const CLICKS_PER_DATAGRAM: f64 = 14.0;
/// How long an outage the sender bridges by default, in seconds, up to the most it can hold.
const OUTAGE_S: f64 = 10.0;
const BATCHES_MIN: usize = 1024;
const BATCHES_MAX: usize = 65_536;
/// A node that falls behind for a moment loses nothing.
const MOCK_RECEIVE_BUFFER: usize = 8 << 20;

/// Loads an edge node and says exactly what it must have counted.
#[derive(Parser)]
#[command(name = "weir-bench", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Clicks over UDP at a planned rate, each tracked to its ack
    Udp(Box<UdpArgs>),
    /// Clicks over HTTP at a planned rate, each reply read and judged
    Http(Box<HttpArgs>),
    /// Generated attacks, or people, from many addresses of loopback; what becomes of them is the node's to say
    Attack(attack::command::AttackArgs),
    /// Times of the replies to valid and to flagged clicks, interleaved, and whether they differ
    ReplyTimes(reply_times::ReplyTimesArgs),
    /// Frames made in the kernel, as fast as it can; nothing is tracked
    Frames(Box<FramesArgs>),
    /// A plain recvmmsg sink under the same load: what the daemon's io_uring path is compared with
    RecvmmsgBaseline(SinkArgs),
    /// A stand-in node that acknowledges by the rules of the protocol
    Mock(MockArgs),
}

#[derive(Args)]
struct UdpArgs {
    /// The node's address and click port
    #[arg(long)]
    target: SocketAddr,
    /// A second address of the same node, as a rule its IPv6 one: takes every other click
    #[arg(long)]
    target6: Option<SocketAddr>,
    /// Send raw frames too, out of this interface
    #[arg(long)]
    interface: Option<String>,
    /// The next hop's link address, or `auto` to ask the kernel
    #[arg(long, default_value = "auto")]
    gateway_mac: String,
    /// A source address that the node's `steer.deny` holds: some raw frames claim to come from it
    #[arg(long, requires = "interface")]
    denied_source: Option<Ipv4Addr>,
    /// Planned clicks a second
    #[arg(long, value_name = "CLICKS_PER_S")]
    rate: f64,
    /// Sending threads
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=64))]
    threads: u64,
    /// Group datagrams by so many leading bits of the shard
    #[arg(long, default_value_t = 0)]
    group_bits: u32,
    /// The longest a click waits for its datagram to fill
    #[arg(long, value_parser = parse_duration, default_value = "2ms")]
    flush_after: Duration,
    /// The least wait for an ack
    #[arg(long, value_parser = parse_duration, default_value = "250ms")]
    ack_timeout: Duration,
    /// Datagrams each sender may hold; the default bridges an outage of 10 s
    #[arg(long)]
    batches: Option<usize>,
    #[command(flatten)]
    plan: PlanArgs,
    /// No progress lines
    #[arg(long)]
    quiet: bool,
}

#[derive(Args)]
struct FramesArgs {
    /// The interface the frames leave by; its veth peer needs an XDP program or GRO
    #[arg(long)]
    interface: String,
    /// The node's IPv4 address and click port
    #[arg(long)]
    target: SocketAddrV4,
    /// The source the frames claim
    #[arg(long)]
    source: SocketAddrV4,
    /// The next hop's link address, or `auto` to ask the kernel
    #[arg(long, default_value = "auto")]
    gateway_mac: String,
    /// Clicks in each frame
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u8).range(1..=15))]
    clicks: u8,
    /// Stop after so many frames
    #[arg(long, default_value_t = 1_000_000)]
    frames: u64,
    /// Stop after so much time
    #[arg(long, value_parser = parse_duration, default_value = "10s")]
    duration: Duration,
    /// What differs from frame to frame
    #[arg(long, value_enum, default_value = "id")]
    vary: Vary,
    /// Core to pin the generating thread to
    #[arg(long)]
    core: Option<usize>,
    /// Write the report here
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct SinkArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:4500")]
    listen: SocketAddr,
    /// Answer every datagram as if its clicks were durable
    #[arg(long)]
    ack: bool,
    /// Stop when no datagram has come for so long, once there was one
    #[arg(long, value_parser = parse_duration, default_value = "1s")]
    idle: Duration,
    /// Size of the socket's receive buffer, as far as the system allows
    #[arg(long, default_value_t = MOCK_RECEIVE_BUFFER)]
    socket_buffer: usize,
    /// Core to pin the receiving thread to
    #[arg(long)]
    core: Option<usize>,
    /// Write what was counted here
    #[arg(long)]
    json: Option<PathBuf>,
}

#[derive(Args)]
struct MockArgs {
    /// Address to listen on
    #[arg(long, default_value = "127.0.0.1:4500")]
    listen: SocketAddr,
    #[command(flatten)]
    key: KeyArgs,
    /// Datagrams to lose, in thousandths
    #[arg(long, default_value_t = 0)]
    lose_datagrams: u32,
    /// Acks to lose, in thousandths
    #[arg(long, default_value_t = 0)]
    lose_acks: u32,
    /// Stop when no datagram has come for so long, once there was one
    #[arg(long, value_parser = parse_duration)]
    idle: Option<Duration>,
    /// Write what was counted here when stopping
    #[arg(long, requires = "idle")]
    json: Option<PathBuf>,
}

fn main() -> ExitCode {
    let result = match Cli::parse().command {
        Command::Udp(args) => run_udp(&args),
        Command::Http(args) => command::run(&args),
        Command::Attack(args) => attack::command::run(&args),
        Command::ReplyTimes(args) => reply_times::run(&args),
        Command::Frames(args) => run_frames(&args),
        Command::RecvmmsgBaseline(args) => run_sink(&args),
        Command::Mock(args) => run_mock(&args),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(INVALID),
        Err(error) => {
            eprintln!("weir-bench: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run_udp(args: &UdpArgs) -> anyhow::Result<bool> {
    let options = options(args)?;
    let report = udp::run(&options)?;
    print_table(&report);
    args.plan.run.write_json(&report)?;
    Ok(report.valid)
}

fn options(args: &UdpArgs) -> anyhow::Result<Options> {
    if !(args.rate > 0.0 && args.rate.is_finite()) {
        bail!("--rate must be above 0");
    }
    let link = args.interface.as_ref().map(|interface| -> anyhow::Result<Link> {
        let gateway = match args.gateway_mac.as_str() {
            "auto" => None,
            text => {
                Some(parse_mac(text).with_context(|| format!("--gateway-mac {text} is no link address"))?)
            }
        };
        Ok(Link { interface: interface.clone(), gateway, denied: args.denied_source })
    });
    let targets: Vec<SocketAddr> = std::iter::once(args.target).chain(args.target6).collect();
    let lanes = args.threads as f64 * targets.len() as f64;
    let bridging = (args.rate / lanes * OUTAGE_S / CLICKS_PER_DATAGRAM) as usize;
    Ok(Options {
        targets,
        link: link.transpose()?,
        rate: args.rate,
        plan: args.plan.plan(args.threads as usize)?,
        sender: Config {
            group_bits: args.group_bits,
            batches: args
                .batches
                .unwrap_or(bridging)
                .clamp(BATCHES_MIN.max(2 << args.group_bits), BATCHES_MAX),
            flush_after_ns: args.flush_after.as_nanos() as u64,
            ack_timeout_ns: args.ack_timeout.as_nanos() as u64,
            // A node may be restarted under the load: go on until the run ends.
            backoff_base_ns: 50_000_000,
            backoff_cap_ns: 1_000_000_000,
            attempts_max: u16::MAX,
            ..Config::default()
        },
        progress: !args.quiet,
    })
}

fn run_mock(args: &MockArgs) -> anyhow::Result<bool> {
    let key = read_key(&args.key.key_file)?;
    let socket = UdpSocket::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    // As far as the system allows: the kernel caps it silently.
    socket2::SockRef::from(&socket).set_recv_buffer_size(MOCK_RECEIVE_BUFFER).context("receive buffer")?;
    let faults =
        Faults { lose_datagrams: args.lose_datagrams, lose_acks: args.lose_acks, ..Faults::default() };
    let keys = vec![(Issuer(args.key.issuer), KeyId(args.key.key), key)];
    eprintln!("mock edge on {}", socket.local_addr()?);
    let mut edge = MockEdge::new(keys, faults, 1);
    match args.idle {
        Some(idle) => edge.serve_while_busy(&socket, idle),
        None => edge.serve(&socket, &AtomicBool::new(false)),
    }
    if let Some(path) = &args.json {
        write_json(path, &edge.books)?;
    }
    Ok(true)
}

fn run_frames(args: &FramesArgs) -> anyhow::Result<bool> {
    if let Some(id) = args.core {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    let gateway = match args.gateway_mac.as_str() {
        "auto" => resolve(*args.target.ip())?,
        text => parse_mac(text).with_context(|| format!("--gateway-mac {text} is no link address"))?,
    };
    let report = live_frames::run(&live_frames::Options {
        macs: (PacketSocket::open(&args.interface)?.mac(), gateway),
        interface: args.interface.clone(),
        source: args.source,
        target: args.target,
        clicks: args.clicks,
        frames: args.frames,
        duration: args.duration,
        vary: args.vary,
    })?;
    eprintln!(
        "{} frames of {} clicks in {:.2} s: {:.0} frames/s, {:.0} clicks/s",
        report.frames,
        args.clicks,
        report.duration_s,
        report.frames_per_s,
        report.frames_per_s * f64::from(args.clicks)
    );
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    Ok(true)
}

fn run_sink(args: &SinkArgs) -> anyhow::Result<bool> {
    if let Some(id) = args.core {
        core_affinity::set_for_current(core_affinity::CoreId { id });
    }
    let socket = UdpSocket::bind(args.listen).with_context(|| format!("cannot listen on {}", args.listen))?;
    socket2::SockRef::from(&socket).set_recv_buffer_size(args.socket_buffer).context("receive buffer")?;
    let report = sink::run(&socket, args.ack, args.idle)?;
    eprintln!(
        "recvmmsg: {} datagrams, {} clicks, {} malformed, {} dropped by the kernel\n\
         {:.0} datagrams/s over {:.2} s, {:.0} per CPU second ({:.2} s), {:.1} a call",
        report.datagrams,
        report.clicks,
        report.malformed,
        report.kernel_drops,
        report.datagrams_per_s,
        report.busy_s,
        report.datagrams_per_cpu_s,
        report.cpu_s,
        report.datagrams as f64 / report.batches.max(1) as f64
    );
    if let Some(path) = &args.json {
        write_json(path, &report)?;
    }
    Ok(true)
}

fn print_table(report: &Report) {
    let mut out = std::io::stderr().lock();
    // Nobody may be listening on stderr; the exit code and the JSON say the same.
    let _closed = write_table(&mut out, report);
}

fn write_table(out: &mut impl std::io::Write, report: &Report) -> std::io::Result<()> {
    write_kinds(out, &report.kinds, true)?;
    let (acks, ledger, latency) = (&report.acks, &report.sdk_ledger, &report.ack_latency_us);
    writeln!(
        out,
        "\nrate      planned {:.0}/s, achieved {:.0}/s, {:.4} % late by over {:.1} ms, CPU {:.2} s",
        report.planned_rate,
        report.achieved_rate,
        report.late_sends_share * 100.0,
        report.late_bound_ms,
        report.cpu_s
    )?;
    writeln!(
        out,
        "acks      created {}, exists {}, retry {}, malformed {}",
        acks.created, acks.exists, acks.retry, acks.malformed
    )?;
    writeln!(
        out,
        "latency   p50 {} us, p90 {} us, p99 {} us, p99.9 {} us, max {} us (planned time to ack)",
        latency.p50, latency.p90, latency.p99, latency.p999, latency.max
    )?;
    writeln!(
        out,
        "ledger    created {} = acked {} + queued {} + refused {} + dropped {}: {}; {} datagrams resent, {} sends failed",
        ledger.created,
        ledger.acked_created + ledger.acked_exists,
        ledger.queued,
        ledger.refused_full + ledger.refused_malformed + ledger.refused_too_long,
        ledger.dropped_malformed + ledger.dropped_gave_up,
        if ledger.closes { "closes" } else { "DOES NOT CLOSE" },
        ledger.datagrams_resent,
        report.send_failures
    )?;
    match &report.invalid_reason {
        None => writeln!(out, "VALID"),
        Some(reason) => writeln!(out, "INVALID: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
