//! The command line of `weir`, and the commands that need no daemon around them.
//!
//! `run`, `audit` and `announce` are the binary's own affair: they tie rooms together, or log. Everything else is
//! answered by [`answer`].

use std::io::BufWriter;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use crate::config::{self, Cluster, Config, Host, Kafka, MemoryEstimate};
use crate::forward::kafka;
use crate::mint;
use crate::traffic::actors;
use crate::{bundle, control, doctor, top, withdrawal};

mod arguments;

pub use arguments::{
    ActorsCommand, AnnounceArgs, AuditArgs, BundleArgs, Cli, Command, ConfigArgs, DEFAULT_BIRD,
    DEFAULT_CONFIG, DEFAULT_HEARTBEAT, DEFAULT_SOCKET, DoctorArgs, DrainArgs, MintArgs, PRICE_MICROS_MAX,
    ReadTopicArgs, RunArgs, StatusArgs, TopArgs, TopicKind,
};

/// Runs a command that needs no daemon around it; gives `run`, `audit` and `announce` back to the caller.
///
/// # Errors
/// With the command, when it is not one of these.
pub fn answer(command: Command) -> Result<ExitCode, Command> {
    match command {
        Command::CheckConfig { file } => Ok(with_config(&file, check_config)),
        Command::PrintConfig => {
            print!("{}", config::SAMPLE);
            Ok(ExitCode::SUCCESS)
        }
        Command::Doctor(args) => {
            let file = &args.config.config;
            Ok(with_config(file, |config, host| doctor(file, config, host, args.json)))
        }
        Command::Explain { name } => Ok(match control::explain(&name) {
            Ok(text) => {
                print!("{text}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, 2),
        }),
        Command::Bundle(args) => Ok(ended(bundle::run(&args, &mut std::io::stdout().lock()))),
        Command::Status(args) => Ok(status(&args)),
        Command::Top(args) => Ok(top::run(&args).unwrap_or_else(|error| fail(&error, 1))),
        Command::Drain(args) => Ok(with_config(&args.config.config, |config, _| {
            let wait = Duration::from_secs(args.wait);
            ended(withdrawal::command::drain(config, wait, &mut std::io::stdout()))
        })),
        Command::Undrain(args) => Ok(with_config(&args.config, |config, _| {
            ended(withdrawal::command::undrain(config, &mut std::io::stdout()))
        })),
        Command::ReadTopic(args) => {
            Ok(with_config(&args.config.config, |config, _| ended(kafka::command::run(config, &args))))
        }
        Command::Actors(command) => Ok(ended(actors(&command))),
        Command::Mint(args) => Ok(ended(mint::run(&args, &mut BufWriter::new(std::io::stdout().lock())))),
        other @ (Command::Run(_) | Command::Audit(_) | Command::Announce(_)) => Err(other),
    }
}

/// Prints an error as every command does.
pub fn fail(error: &dyn std::fmt::Display, code: u8) -> ExitCode {
    eprintln!("weir: {error}");
    ExitCode::from(code)
}

/// Runs a command over the config in this file, as this machine uses it; 2, and why, when there is none.
pub fn with_config(file: &Path, run: impl FnOnce(&Config, &Host) -> ExitCode) -> ExitCode {
    let host = Host::this();
    match config::load(file, &host) {
        Ok(config) => run(&config, &host),
        Err(error) => fail(&error, 2),
    }
}

/// How a command ended that prints what it has to say by itself.
fn ended(result: Result<(), impl std::fmt::Display>) -> ExitCode {
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&error, 1),
    }
}

fn check_config(config: &Config, host: &Host) -> ExitCode {
    print!("ok\n{}", resolved(config, host));
    ExitCode::SUCCESS
}

fn doctor(file: &Path, config: &Config, host: &Host, is_json: bool) -> ExitCode {
    let report = doctor::examine(file, config, host);
    if is_json {
        println!("{}", report.json());
    } else {
        print!("{}", report.text());
    }
    if report.may_start() { ExitCode::SUCCESS } else { ExitCode::from(1) }
}

fn actors(command: &ActorsCommand) -> Result<(), actors::CommandError> {
    match command {
        ActorsCommand::Build { list, out } => actors::run_build(list, out, &mut std::io::stderr()),
        ActorsCommand::Show { filter, actors } => {
            print!("{}", actors::show(filter, actors)?);
            Ok(())
        }
    }
}

/// A config in short, as this machine will use it.
fn resolved(config: &Config, host: &Host) -> String {
    use config::quantity::{duration_text, size_text};
    let cores = host.worker_cores(config);
    let memory = MemoryEstimate::of(config, cores.len());
    let steer = match &config.steer.interface {
        Some(interface) => format!("{:?} on {interface}", config.steer.mode).to_lowercase(),
        None => "none: no interface".to_owned(),
    };
    let listen = config.metrics.listen.map_or("off".to_owned(), |address| address.to_string());
    let addresses: Vec<_> = config.udp.addresses.iter().map(ToString::to_string).collect();
    let lines = [
        ("node", format!("{} in {} {}", config.node.id, config.node.region, config.node.pop)),
        ("data", format!("{}, status in {}", config.node.data_dir.display(), config.node.run_dir.display())),
        ("workers", format!("{} on cores {cores:?}", cores.len())),
        ("udp", format!("port {} on {}", config.udp.port, addresses.join(", "))),
        ("steer", steer),
        (
            "keys",
            format!("{}, unsigned clicks {}", config.keys.len(), taken(config.admission.allow_unsigned)),
        ),
        (
            "journal",
            format!(
                "commit every {}, at most {}{}",
                duration_text(config.journal.commit_window),
                size_text(config.journal.max_bytes),
                if config.journal.encrypt { ", encrypted" } else { "" }
            ),
        ),
        ("forward", format!("{} every {}", sink_text(config), duration_text(config.forward.interval))),
        ("metrics", listen),
        ("memory", memory.to_string()),
    ];
    lines.iter().map(|(name, value)| format!("  {name:<8} {value}\n")).collect()
}

fn sink_text(config: &Config) -> String {
    match config.forward.sink {
        config::Sink::Embedded => "embedded".to_owned(),
        config::Sink::Kafka => {
            let Kafka { cluster, buckets, topics } = &config.kafka;
            let buckets = buckets.as_ref().map(|buckets| format!(", buckets {}", cluster_text(buckets)));
            format!(
                "kafka {}{}, topics {}*",
                cluster_text(cluster),
                buckets.unwrap_or_default(),
                topics.prefix
            )
        }
    }
}

fn cluster_text(Cluster { settings, .. }: &Cluster) -> String {
    let log_in = settings.sasl.as_ref().map(|sasl| format!(" as {}", sasl.user));
    let tls = if settings.tls.is_some() { " over TLS" } else { "" };
    format!("{}{tls}{}", settings.bootstrap(), log_in.unwrap_or_default())
}

const fn taken(allowed: bool) -> &'static str {
    if allowed { "taken" } else { "refused" }
}

fn status(args: &StatusArgs) -> ExitCode {
    if args.json {
        return match control::fetch_json(&args.socket) {
            Ok(json) => {
                print!("{json}");
                ExitCode::SUCCESS
            }
            Err(error) => fail(&error, 1),
        };
    }
    match control::fetch(&args.socket) {
        Ok(status) => {
            print!("{}", top::text(&status));
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error, 1),
    }
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};

    use super::*;

    #[test]
    fn the_command_line_is_sound() {
        Cli::command().debug_assert();
    }

    #[test]
    fn only_names_that_switch_one_protocol_are_taken() {
        let announce = |arguments: &[&str]| Cli::try_parse_from([&["weir", "announce"], arguments].concat());
        let parsed = announce(&["--protocol", "weir_v4", "--protocol", "weir_v6", "--rise", "0.5"]).unwrap();
        let Command::Announce(args) = parsed.command else { panic!("another command") };
        assert_eq!(args.protocols, ["weir_v4", "weir_v6"]);
        assert_eq!(args.rise, std::time::Duration::from_millis(500));
        for name in ["all", "", "a b", "4to6", "\"x*\"", "a\ndisable all", "weir-v4"] {
            assert!(announce(&["--protocol", name]).is_err(), "{name:?}");
        }
        assert!(announce(&[]).is_err(), "nothing to switch");
        for rise in ["-1", "3601", "NaN", "3s", "inf"] {
            assert!(announce(&["--protocol", "weir_v4", &format!("--rise={rise}")]).is_err(), "{rise}");
        }
    }

    #[test]
    fn a_config_in_short_says_what_this_machine_will_do() {
        let host = Host { cores: vec![0, 1] };
        assert_eq!(
            resolved(&Config::default(), &host),
            "  \
node     1 in local local
  data     /var/lib/weir, status in /run/weir
  workers  2 on cores [0, 1]
  udp      port 4500 on 0.0.0.0, ::
  steer    none: no interface
  keys     0, unsigned clicks taken
  journal  commit every 2ms, at most 64GiB
  forward  embedded every 2s
  metrics  127.0.0.1:9464
  memory   at most about 4340MiB: dedupe 3052MiB, buckets 184MiB, uniques 1GiB, receive buffers 65MiB, activity 16MiB
"
        );
    }
}
