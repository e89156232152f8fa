//! How clicks come in; the only room that knows sockets.
//!
//! It opens the sockets, reads their drop counters, and knows HTTP. What arrives on them, the worker's ring
//! delivers; what it means, [`crate::admission`] decides.

pub mod held;
pub mod http;
pub mod udp;
