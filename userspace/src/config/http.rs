//! `[rx.http]`: the HTTP door.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::kafka::file;
use super::reader::{Section, integer_in};
use super::sections::address;
use crate::rx::http::head::Limits;

const KIB: u64 = 1 << 10;
const MIB: u64 = 1 << 20;
/// The kernel's bound for a ring of provided buffers.
const BUFFERS_MAX: u64 = 1 << 15;
/// Connections of one worker: each may have a send and a receive under way, and the ring's completion queue
/// holds an entry for each.
const CONNECTIONS_MAX: u64 = 1 << 15;

/// `[rx.http]`
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Http {
    /// The port of plain HTTP; none when it is off.
    pub port: Option<u16>,
    /// The port of HTTPS; none when it is off.
    pub tls_port: Option<u16>,
    /// The local addresses to listen on.
    pub addresses: Vec<IpAddr>,
    /// The certificate chain of HTTPS, as PEM.
    pub certificate_file: Option<PathBuf>,
    /// Its key, as PEM.
    pub key_file: Option<PathBuf>,
    /// Whether TLS 1.2 is spoken too.
    pub older_tls: bool,
    /// The catalog of names and landing pages.
    pub catalog_file: Option<PathBuf>,
    /// Connections of a worker at once.
    pub connections_per_worker: u32,
    /// Receive buffers of a worker's connections; a power of two.
    pub buffers_per_worker: u16,
    /// Clicks of a worker that may wait at once.
    pub clicks_waiting_max: usize,
    /// The longest body, as sent.
    pub body_bytes_max: u64,
    /// The longest body, decoded.
    pub decoded_bytes_max: usize,
    /// How long a head may take.
    pub head_timeout: Duration,
    /// How long a body may take.
    pub body_timeout: Duration,
    /// How long a connection may be silent between requests.
    pub idle_timeout: Duration,
    /// How long a response may take to go out.
    pub send_timeout: Duration,
}

impl Http {
    /// Whether there is a door at all.
    #[must_use]
    pub const fn is_on(&self) -> bool {
        self.port.is_some() || self.tls_port.is_some()
    }

    /// What one request may be.
    #[must_use]
    pub fn limits(&self) -> Limits {
        let (body_bytes_max, decoded_bytes_max) = (self.body_bytes_max, self.decoded_bytes_max);
        Limits { body_bytes_max, decoded_bytes_max, ..Limits::default() }
    }

    /// Where to listen: plain ones first, then those of HTTPS.
    pub fn listeners(&self) -> impl Iterator<Item = (SocketAddr, bool)> {
        let ports = [(self.port, false), (self.tls_port, true)];
        ports.into_iter().filter_map(|(port, tls)| Some((port?, tls))).flat_map(|(port, tls)| {
            self.addresses.iter().map(move |&address| (SocketAddr::new(address, port), tls))
        })
    }
}

pub(super) fn read(mut section: Section<'_, '_>) -> Http {
    let any = vec![IpAddr::V4(Ipv4Addr::UNSPECIFIED), IpAddr::V6(Ipv6Addr::UNSPECIFIED)];
    let (port, tls_port) = (port(&mut section, "port"), port(&mut section, "tls_port"));
    let addresses = section.list("addresses", any, "IP addresses", address);
    let certificate_file = file(&mut section, "certificate_file");
    let key_file = file(&mut section, "key_file");
    let expected = "a power of two from 16 to 32768 (default 256)";
    let buffers_per_worker = section.value("buffers_per_worker", 256, expected, |value| {
        integer_in(value, &(16..=BUFFERS_MAX)).filter(|count: &u16| count.is_power_of_two())
    });
    let second = Duration::from_secs(1);
    let hour = Duration::from_secs(3600);
    let http = Http {
        port,
        tls_port,
        addresses,
        certificate_file,
        key_file,
        older_tls: section.boolean("older_tls", false),
        catalog_file: file(&mut section, "catalog_file"),
        connections_per_worker: section.integer("connections_per_worker", 4096, 1..=CONNECTIONS_MAX),
        buffers_per_worker,
        clicks_waiting_max: section.integer("clicks_waiting_max", 65_536, 1000..=1 << 22),
        body_bytes_max: section.size("body_max", 256 * KIB, 4 * KIB..=16 * MIB),
        decoded_bytes_max: section.size("decoded_max", MIB, 4 * KIB..=64 * MIB) as usize,
        head_timeout: section.duration("head_timeout", 10 * second, second..=hour),
        body_timeout: section.duration("body_timeout", 30 * second, second..=hour),
        idle_timeout: section.duration("idle_timeout", 60 * second, second..=hour),
        send_timeout: section.duration("send_timeout", 30 * second, second..=hour),
    };
    check(&section, &http);
    section.finish();
    http
}

fn port(section: &mut Section<'_, '_>, name: &'static str) -> Option<u16> {
    let port = section.integer(name, 0, 0..=u64::from(u16::MAX));
    (port > 0).then_some(port)
}

fn check(section: &Section<'_, '_>, http: &Http) {
    if http.addresses.is_empty() {
        section.note("addresses", "no address to listen on; name one, or \"0.0.0.0\" and \"::\" for all");
    }
    if http.port.is_some() && http.port == http.tls_port {
        section.note("tls_port", "is the port of plain HTTP; HTTPS needs one of its own");
    }
    if http.tls_port.is_some() && (http.certificate_file.is_none() || http.key_file.is_none()) {
        section.note("tls_port", "HTTPS takes a certificate_file and a key_file; name both");
    }
    if http.body_bytes_max > http.decoded_bytes_max as u64 {
        section.note("decoded_max", "is less than body_max, so that an uncompressed body would not fit");
    }
}
