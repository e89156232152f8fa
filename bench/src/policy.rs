//! The packet policy of the node that benches and tests make frames for: one IPv4 and one IPv6
//! address of the ranges for documentation (RFC 5737, RFC 3849), one port, no fragments.

use weir_common::packet::Policy;

/// That node.
#[derive(Clone, Copy, Debug)]
pub struct DocumentationNode;

impl DocumentationNode {
    /// Its click port.
    pub const PORT: u16 = 8899;
}

impl Policy for DocumentationNode {
    fn has_v4(&self, address: [u8; 4]) -> bool {
        address == [192, 0, 2, 10]
    }

    fn has_v6(&self, address: [u8; 16]) -> bool {
        address == [0x20, 1, 0xd, 0xb8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10]
    }

    fn has_port(&self, port: u16) -> bool {
        port == Self::PORT
    }

    fn passes_fragments(&self) -> bool {
        false
    }

    fn limits_syns_to(&self, _: u16) -> bool {
        false
    }
}
