//! A frame as the parser's byte source: packet pointers, checked against the end on every read.

use aya_ebpf::bindings::xdp_md;
use aya_ebpf::helpers::generated::bpf_xdp_get_buff_len;
use aya_ebpf::programs::XdpContext;
use weir_common::packet::Source;

/// The frame of one program run. Stale, and not to be read, once the frame's head was moved.
pub(crate) struct Frame {
    ctx: *mut xdp_md,
    data: usize,
    end: usize,
}

impl Frame {
    #[inline(always)]
    pub(crate) fn new(ctx: &XdpContext) -> Self {
        Self { ctx: ctx.ctx, data: ctx.data(), end: ctx.data_end() }
    }

    /// The context, for helpers that want it.
    #[inline(always)]
    pub(crate) const fn ctx(&self) -> *mut xdp_md {
        self.ctx
    }

    /// Overwrites the bytes at `offset`; `None` where the linear part ends before them.
    #[inline(always)]
    pub(crate) fn write<const N: usize>(&self, offset: usize, bytes: [u8; N]) -> Option<()> {
        let start = self.data + offset;
        if start + N > self.end {
            return None;
        }
        // SAFETY: the packet can only be written through its pointer. `start..start + N` lies
        // between `data` and `data_end`, as the lines above check and the verifier proves; byte
        // arrays have no alignment; nobody else has the frame while this program runs on it.
        unsafe { (start as *mut [u8; N]).write(bytes) };
        Some(())
    }
}

impl Source for Frame {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        let start = self.data + offset;
        if start + N > self.end {
            return None;
        }
        // SAFETY: the packet can only be read through its pointer. `start..start + N` lies
        // between `data` and `data_end`, as the lines above check and the verifier proves; byte
        // arrays have no alignment and every bit pattern is one.
        Some(unsafe { (start as *const [u8; N]).read() })
    }

    #[inline(always)]
    fn linear_len(&self) -> usize {
        self.end - self.data
    }

    #[inline(always)]
    fn total_len(&self) -> usize {
        // SAFETY: a helper call (kernel 5.18); `ctx` is this program run's own context.
        unsafe { bpf_xdp_get_buff_len(self.ctx) as usize }
    }
}
