//! A ring of time spans of one width: each impression stands in the span of its time, and a span
//! goes whole when its time is over.

use weir_common::time::UnixMs;

/// What a span holds.
pub(super) trait Content {
    /// Where its pages come from.
    type Memory;

    /// Gives every page back.
    fn clear(&mut self, memory: &mut Self::Memory);
}

/// A span and its number, counted from the epoch in widths; [`FREE`] when there is none.
#[derive(Debug)]
struct Span<C> {
    number: u32,
    content: C,
}

/// No span's number: widths are more than a second.
const FREE: u32 = u32::MAX;

/// Spans of one width, each in the slot of its number.
#[derive(Debug)]
pub(super) struct Spans<C> {
    /// Whole seconds, as issue times are: dividing 32 bits is much cheaper than 64.
    width_s: u32,
    /// How long after its end a span is kept.
    keep_ms: u64,
    ring: Vec<Span<C>>,
}

impl<C: Content> Spans<C> {
    /// Room for as many spans as can be live at once: those of the last `keep_ms`, and of the next
    /// `ahead_ms`.
    pub(super) fn new(width_s: u32, keep_ms: u64, ahead_ms: u64, content: impl Fn() -> C) -> Self {
        let spans = keep_ms.saturating_add(ahead_ms) / (u64::from(width_s) * 1000) + 3;
        let span = |_| Span { number: FREE, content: content() };
        Self { width_s, keep_ms, ring: (0..spans.next_power_of_two()).map(span).collect() }
    }

    pub(super) fn len(&self) -> usize {
        self.ring.len()
    }

    #[inline]
    pub(super) const fn number_of(&self, at_s: u32) -> u32 {
        at_s / self.width_s
    }

    pub(super) const fn expires_at(&self, number: u32) -> UnixMs {
        let end_ms = (number as u64 + 1) * self.width_s as u64 * 1000;
        UnixMs(end_ms.saturating_add(self.keep_ms))
    }

    #[inline]
    fn slot(&self, number: u32) -> usize {
        number as usize & (self.ring.len() - 1)
    }

    /// The live span of this number.
    #[inline]
    pub(super) fn live(&self, number: u32) -> Option<&C> {
        let span = &self.ring[self.slot(number)];
        (span.number == number).then_some(&span.content)
    }

    /// The same, to be changed.
    #[inline]
    pub(super) fn live_mut(&mut self, number: u32) -> Option<&mut C> {
        let slot = self.slot(number);
        let span = &mut self.ring[slot];
        (span.number == number).then_some(&mut span.content)
    }

    /// The span of this number, born if its slot is free.
    #[inline]
    pub(super) fn open(&mut self, number: u32) -> Option<&mut C> {
        let slot = self.slot(number);
        let span = &mut self.ring[slot];
        if span.number == FREE {
            span.number = number;
        }
        (span.number == number).then_some(&mut span.content)
    }

    /// What stands in the slot before that of this number, live or empty.
    pub(super) fn before(&self, number: u32) -> &C {
        &self.ring[self.slot(number.wrapping_sub(1))].content
    }

    /// What every span holds, live or empty.
    pub(super) fn contents(&self) -> impl Iterator<Item = &C> {
        self.ring.iter().map(|span| &span.content)
    }

    /// Drops what has expired; says when the next span will.
    pub(super) fn expire(&mut self, now: UnixMs, memory: &mut C::Memory) -> UnixMs {
        let mut next = UnixMs(u64::MAX);
        for slot in 0..self.ring.len() {
            let number = self.ring[slot].number;
            if number == FREE {
                continue;
            }
            let expires_at = self.expires_at(number);
            if expires_at < now {
                let span = &mut self.ring[slot];
                span.content.clear(memory);
                span.number = FREE;
            } else {
                next = next.min(expires_at);
            }
        }
        next
    }
}
