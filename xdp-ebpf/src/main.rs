//! Weir's kernel side: parse, decide, count, steer.
//!
//! [`weir`] runs on every frame the interface receives; [`weir_reuseport`] on every datagram for
//! a click socket. What is not ours goes to the kernel untouched. Nothing here allocates, waits,
//! keeps state of clicks or sends packets; every loop has a constant bound, and a program that
//! could panic does not load (see [`panic`]).
//!
//! Parser, policy and header check are `weir-common`'s, the same code the daemon runs. Start
//! reading at [`weir`]. Least kernel: 5.18, for multi-buffer XDP.
#![no_std]
#![no_main]
#![feature(asm_experimental_arch)] // see `atomic`

mod atomic;
mod frame;
mod limit;
mod maps;
mod prefix;
mod reuseport;
mod steer;
mod tag;
mod verdict;
mod vlan;

use aya_ebpf::bindings::xdp_action::{XDP_DROP, XDP_PASS};
use aya_ebpf::macros::{sk_reuseport, xdp};
use aya_ebpf::programs::{SkReuseportContext, XdpContext};
use weir_common::maps::Policy;
use weir_common::packet::{self, Clicks, Verdict};
use weir_common::reason::Reason;

use crate::frame::Frame;

/// Decides on one frame.
#[xdp(frags)]
fn weir(ctx: XdpContext) -> u32 {
    // The loader sets a policy before it attaches; without one nothing is ours.
    let Some(policy) = maps::policy() else { return XDP_PASS };
    let frame = Frame::new(&ctx);
    match packet::parse(&frame, policy) {
        Verdict::Pass(reason) => verdict::pass(&frame, reason),
        Verdict::Malformed(reason) => verdict::refuse(&frame, policy, reason),
        Verdict::Syn(sender) => match limit::check_syn(&frame, policy, sender) {
            Ok(()) => verdict::pass(&frame, Reason::SynPassed),
            Err(reason) => verdict::refuse(&frame, policy, reason),
        },
        Verdict::Ours(clicks) => match admit(&frame, policy, &clicks) {
            Ok(()) => steer::deliver(&frame, policy, &clicks),
            Err(reason) => verdict::refuse(&frame, policy, reason),
        },
    }
}

/// What can be refused of a well-formed packet: by its source, its rate, its first click's tag.
#[inline(always)]
fn admit(frame: &Frame, policy: &Policy, clicks: &Clicks) -> Result<(), Reason> {
    if !prefix::allows(frame, policy, clicks.sender())? {
        limit::check(frame, policy, clicks.sender())?;
    }
    tag::check(frame, policy, clicks)
}

/// Chooses the socket of one datagram.
#[sk_reuseport]
fn weir_reuseport(ctx: SkReuseportContext) -> u32 {
    reuseport::select(&ctx)
}

/// Drops everything: the zero of the benchmark's scale. The daemon never loads it.
#[xdp]
fn weir_null(_: XdpContext) -> u32 {
    XDP_DROP
}

/// The loop is on purpose: the verifier refuses a program in which it can be reached, so what
/// loads cannot panic.
#[panic_handler]
fn panic(_: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}
