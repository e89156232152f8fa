//! What a completion belongs to: packed into the 64 bits the kernel hands back.

/// The kinds of operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Receive = 1,
    Send = 2,
    Write = 3,
    Sync = 4,
    /// Posted by another ring: belongs to no operation of ours.
    Wake = 5,
    /// Nobody waits for it.
    Ignored = 6,
    Accept = 7,
    StreamReceive = 8,
    StreamSend = 9,
}

/// A kind and the number of the thing it is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Token(u64);

const KIND_SHIFT: u32 = 56;

impl Token {
    pub(super) const fn new(kind: Kind, index: u64) -> Self {
        debug_assert!(index < 1 << KIND_SHIFT);
        Self((kind as u64) << KIND_SHIFT | index)
    }

    pub(super) const fn user_data(self) -> u64 {
        self.0
    }

    pub(super) const fn from_user_data(user_data: u64) -> Self {
        Self(user_data)
    }

    pub(super) const fn kind(self) -> Kind {
        match self.0 >> KIND_SHIFT {
            1 => Kind::Receive,
            2 => Kind::Send,
            3 => Kind::Write,
            4 => Kind::Sync,
            5 => Kind::Wake,
            7 => Kind::Accept,
            8 => Kind::StreamReceive,
            9 => Kind::StreamSend,
            _ => Kind::Ignored,
        }
    }

    pub(super) const fn index(self) -> u64 {
        self.0 & ((1 << KIND_SHIFT) - 1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_survives_its_way_through_the_kernel() {
        let files = [Kind::Write, Kind::Sync, Kind::Wake, Kind::Ignored];
        let sockets = [Kind::Receive, Kind::Send, Kind::Accept, Kind::StreamReceive, Kind::StreamSend];
        for kind in files.into_iter().chain(sockets) {
            let token = Token::from_user_data(Token::new(kind, 0x00ab_cdef_0123_4567).user_data());
            assert_eq!((token.kind(), token.index()), (kind, 0x00ab_cdef_0123_4567));
        }
    }
}
