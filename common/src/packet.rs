//! The packet parser: from an Ethernet frame to the click header.
