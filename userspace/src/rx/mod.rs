//! How clicks come in; the only room that knows sockets.
//!
//! It opens the sockets and reads their drop counters. What arrives on them, the worker's ring
//! delivers; what it means, [`crate::admission`] decides.

pub mod udp;
