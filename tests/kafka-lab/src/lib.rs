//! Apache Kafka in KRaft mode on loopback: one broker or several, real ones, for labs and the demo.
//!
//! The brokers are Maven's to fetch ([`Distribution`]) and a JRE's to run ([`Cluster`]). All a
//! cluster starts ends with its owner, on whatever way that ends; its folders go with it. Nothing
//! here speaks Kafka's protocol: that is for those who use it. Beside them stand the certificates of
//! brokers and nodes, from an [`Authority`] of the lab's own. Start reading at [`Cluster::start`].
#![forbid(unsafe_code)]

mod broker;
mod certificate;
mod cluster;
mod distribution;

pub use broker::Broker;
pub use certificate::{Authority, Holder};
pub use cluster::{Cluster, Settings, TlsFiles};
pub use distribution::{Distribution, VERSION};
