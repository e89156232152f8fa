//! The daemon of an edge node. Data flows one way through it: in at [`rx`], out at [`forward`].
//!
//! One pinned worker per core owns its sockets, its ring, its shards, its tables and its journal;
//! workers never wait for each other, for the control side, for the forwarder or for a lock.
//!
//! Start reading at [`worker`]: its loop gathers, decides, journals and replies, and names
//! every other room on the way.

/// Decode, verify, limits, traffic flags: pure functions over batches of clicks.
pub mod admission;
/// Announces the node's addresses by BIRD while the node is ready. A process of its own.
pub mod announce;
/// Recounts what the embedded store holds, from its raw batches.
pub mod audit;
/// What somebody who is to help needs to see of a node, without secrets.
pub mod bundle;
/// The command line of the binary.
pub mod cli;
/// The node's time, and whether it can be relied on.
pub mod clock;
/// The config file: read, checked once, then trusted.
pub mod config;
/// The tokio side: status socket, metrics, health. Never on the click path.
pub mod control;
/// One run, from config to exit: puts the rooms together and takes them apart.
pub mod daemon;
/// A day, as keys and salts are made for.
pub mod day;
/// What outlives the rows of a segment: the impressions clicked, in a few bytes each.
pub mod digest;
/// What is wrong with a host, before a node is started on it.
pub mod doctor;
mod folding;
/// Where committed blocks and changed buckets go: the sinks.
pub mod forward;
/// Segments, blocks, group commit, recovery: what makes a click durable.
pub mod journal;
/// Dedupe, outcomes, buckets: a deterministic fold, without clock or I/O.
pub mod ledger;
/// Budgets of clicks a second, by network, user, ad and publisher.
pub mod limits;
/// Signed impressions from the command line. Speaks to no node.
pub mod mint;
/// A file that the operator names: read whole, within a bound.
pub mod operator_file;
/// Users' keys as they may leave memory: under the salt of their day.
pub mod pseudonym;
/// What a reload replaces under running workers.
pub mod published;
mod redact;
/// Malformed input: counted always, kept as samples.
pub mod rejects;
/// How clicks come in; the only room that knows sockets.
pub mod rx;
/// How likely a click is invalid, by a model loaded from a file: marks, never blocks.
pub mod score;
/// Files with a secret that the node makes by itself.
pub mod secret_file;
/// Small files of the node's state: replaced whole, and durable.
pub mod state_file;
/// Counters and histograms that workers write and the control side reads.
pub mod stats;
/// Loads the XDP program and owns the BPF maps.
pub mod steer;
/// The terminal view of a running daemon.
pub mod top;
/// General invalid traffic: lists, the known-bad-actor filter, robots, geography, activity.
pub mod traffic;
/// The io_uring layer: rings, provided buffers, operations. Safe on its outside.
pub mod uring;
/// A node that its operator takes out of service.
pub mod withdrawal;
/// The pinned loop that ties the rooms together, and the rings between workers.
pub mod worker;
/// Memory of one size that is zero until it is used.
pub mod zeroed;
