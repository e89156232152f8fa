//! A tracing build of the XDP program: what it refuses stands in the log, with the reason.
#![cfg(feature = "ebpf-trace")]

mod xdp_lab;

use std::io;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use weir::steer::Switches;
use weir_common::reason::Reason;
use xdp_lab::*;

/// How long the next line may take; it comes within a twentieth of a second.
const LINE_MAX: std::time::Duration = std::time::Duration::from_secs(10);

/// Each write of the log is one message.
struct Lines(Mutex<Sender<String>>);

impl io::Write for &Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let line = String::from_utf8_lossy(bytes).into_owned();
        self.0.lock().unwrap().send(line).map_err(io::Error::other)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[test]
fn a_refused_packet_stands_in_the_log_with_its_reason() {
    let (sender, lines) = channel();
    tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(std::sync::Arc::new(Lines(Mutex::new(sender))))
        .init();
    let Some(object) = load(Switches::default(), &policy()) else { return };
    let (mut frame, at) = Packet::v4().build();
    frame[at.udp + 8] ^= 0x20;
    let (action, _) = run(&object, &frame);
    assert_eq!(action, XDP_DROP);
    let wanted = format!("refused: reason {}, {} linear bytes", Reason::BadMagic as u8, frame.len());
    let mut within = std::iter::from_fn(|| lines.recv_timeout(LINE_MAX).ok()).take(100);
    let found = within.find(|line| line.contains(&wanted));
    assert!(found.is_some(), "not among the first lines: {wanted}");
}
