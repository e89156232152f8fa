//! What a body holds: JSON, lines of JSON, or a binary datagram, as clicks.
