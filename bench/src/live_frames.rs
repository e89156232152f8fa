//! The second engine: frames made in the kernel by BPF_PROG_TEST_RUN with live frames (Linux 5.18),
//! redirected into an interface. No system call and no copy per frame, so that the receiver and not
//! the generator is measured.
//!
//! Every frame carries foreign clicks under fresh random ids, so a node that takes unsigned traffic
//! counts each as accepted; with `Vary::Nothing` every frame after the first is all duplicates.
//! Nothing is tracked and acks are not read: the node's own counters tell what arrived. Into a veth,
//! the peer must have an XDP program or GRO on, or the frames are lost.

use std::net::SocketAddrV4;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use aya::programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp};
use serde::{Deserialize, Serialize};
use weir_common::wire::{CLICK_LEN, Click, HEADER_LEN, Header, click_flags};
use zerocopy::IntoBytes;

use crate::live_program::{assemble, object};
use crate::raw_frames::plain_v4;

/// Frames of one run of the program; between runs the clock is looked at.
const RUN: u32 = 1 << 16;
/// Frames the kernel makes and redirects in one go; its own default.
const BATCH: u32 = 64;
/// Ethernet, IPv4 and UDP headers.
const BEFORE_PAYLOAD: usize = 14 + 20 + 8;

/// What differs from frame to frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Vary {
    /// The id of every click: all are accepted.
    Id,
    /// Nothing: all frames are the same, so after the first all clicks are duplicates.
    Nothing,
}

/// What to make and where to send it.
#[derive(Clone, Debug)]
pub struct Options {
    /// The interface the frames leave by.
    pub interface: String,
    /// Link addresses: own, next hop.
    pub macs: ([u8; 6], [u8; 6]),
    /// Claimed source.
    pub source: SocketAddrV4,
    /// The node.
    pub target: SocketAddrV4,
    /// Clicks in each frame, 1 to 15.
    pub clicks: u8,
    /// Stop after so many frames ...
    pub frames: u64,
    /// ... or so much time.
    pub duration: Duration,
    /// What differs.
    pub vary: Vary,
}

/// What was made.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct LiveReport {
    /// Frames redirected; the interface may have dropped some, see its counters.
    pub frames: u64,
    /// Clicks in them.
    pub clicks: u64,
    /// Distinct click ids among them.
    pub clicks_distinct: u64,
    /// Seconds.
    pub duration_s: f64,
    /// Frames a second.
    pub frames_per_s: f64,
}

/// Makes frames until the number or the time is reached.
///
/// # Errors
/// No permission (CAP_BPF, CAP_NET_ADMIN), no such interface, or a kernel before 5.18.
pub fn run(options: &Options) -> anyhow::Result<LiveReport> {
    let template = template(options);
    let ids = match options.vary {
        Vary::Id => (0..usize::from(options.clicks)).map(id_offset).collect(),
        Vary::Nothing => Vec::new(),
    };
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").context("no socket to ask for the interface")?;
    let index = rustix::net::netdevice::name_to_index(&socket, &options.interface)
        .with_context(|| format!("no interface {} in this network namespace", options.interface))?;
    let object = object(&assemble(index, template.len(), &ids));
    let mut loaded = aya::EbpfLoader::new().load(&object).context("the generator's XDP program")?;
    let program: &mut Xdp = loaded.program_mut("generate").context("no program in the object")?.try_into()?;
    program.load().context("the kernel does not take the generator's XDP program: run as root")?;

    let started = Instant::now();
    let mut frames = 0;
    while frames < options.frames && started.elapsed() < options.duration {
        let repeat = u64::from(RUN).min(options.frames - frames) as u32;
        let run = TestRunOptions {
            data_in: Some(&template),
            repeat,
            attrs: TestRunAttrs::new().xdp_live_frames(BATCH),
            ..TestRunOptions::new()
        };
        program.test_run(run).context("live frames (needs Linux 5.18)")?;
        frames += u64::from(repeat);
    }
    let duration_s = started.elapsed().as_secs_f64();
    let clicks = frames * u64::from(options.clicks);
    Ok(LiveReport {
        frames,
        clicks,
        clicks_distinct: if options.vary == Vary::Id {
            clicks
        } else {
            u64::from(options.clicks).min(clicks)
        },
        duration_s,
        frames_per_s: frames as f64 / duration_s,
    })
}

/// Where the varying half of a click's impression id stands in the frame.
const fn id_offset(click: usize) -> usize {
    BEFORE_PAYLOAD + HEADER_LEN + click * CLICK_LEN
}

fn template(options: &Options) -> Vec<u8> {
    let count = options.clicks;
    let header = Header::new(count, usize::from(count) * CLICK_LEN);
    let mut payload = header.as_bytes().to_vec();
    for number in 0..count {
        let mut click = Click { flags: click_flags::FOREIGN, ad: 1.into(), ..Click::zeroed() };
        click.impression.0[15] = number;
        payload.extend(click.as_bytes());
    }
    let mut frame = plain_v4(options.source, options.target, &payload);
    frame[..6].copy_from_slice(&options.macs.1);
    frame[6..12].copy_from_slice(&options.macs.0);
    frame
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use weir_common::wire::Datagram;

    use super::*;

    #[test]
    fn the_template_is_a_sound_datagram_and_each_id_stands_where_the_program_writes() {
        let options = Options {
            interface: String::new(),
            macs: ([2; 6], [3; 6]),
            source: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 2), 1),
            target: SocketAddrV4::new(Ipv4Addr::new(10, 0, 0, 1), 4500),
            clicks: 15,
            frames: 1,
            duration: Duration::ZERO,
            vary: Vary::Id,
        };
        let mut frame = template(&options);
        for click in 0..15 {
            frame[id_offset(click)] = 0xaa;
        }
        let datagram = Datagram::parse(&frame[BEFORE_PAYLOAD..]).unwrap();
        assert_eq!(datagram.clicks().len(), 15);
        for (number, (click, extension)) in datagram.clicks().enumerate() {
            assert_eq!(click.check(extension), Ok(()));
            assert_eq!((click.impression.0[0], click.impression.0[15]), (0xaa, number as u8));
        }
    }
}
