//! The central tier: the other end of Kafka.
//!
//! Nodes send buckets with their totals so far, sketches of unique users and raw batches. This crate
//! merges buckets and sketches into one store and answers questions about them; it keeps the raw batches
//! in an archive and counts days again from there. It never adds what it may set: the highest
//! revision of a bucket is the truth, so whatever comes twice or out of order changes nothing.
//!
//! ```text
//! kafka -> record -> merge -> store -> serve
//! kafka -> record -> merge -> store -> serve
//!       -> archive -> reconcile -> bill
//! ```
//!
//! | room | what it does | what it never does |
//! |---|---|---|
//! | [`kafka`] | reads topics with `read_committed` from where the store is | join a group; commit offsets to the broker |
//! | [`record`] | what a record says, checked | trust a length |
//! | [`users`] | sets of users as sketches, and their union | count a user twice |
//! | [`merge`] | folds records into changes of the store: a function over values | I/O; read a clock |
//! | [`merger`] | the thread that reads, has folded, and writes | decide what a record changes |
//! | [`watermark`] | how far each node is: how complete and how fresh an answer is | guess of a node that is silent |
//! | [`store`] | buckets, sums and offsets, changed in one atomic write | decide what is right |
//! | [`serve`] | questions, answers, the cache between them, HTTP | write to the store |
//! | [`archive`] | raw batches as Parquet files, each row once | judge a click |
//! | [`alert`] | campaigns whose traffic is out of the ordinary, and who is told | bill or filter anything |
//! | [`campaigns`] | which campaign an ad is of, learned from its clicks | say what is billed |
//! | [`retention`] | what is kept for how long, by whose word, and lines about it | touch what is held or not reconciled |
//! | [`reconcile`] | a day again, from the archive alone, and why it differs | edit a count |
//! | [`bill`] | a reconciled day into PostgreSQL, and corrections beside it | change a line of a closed day |
//! | [`reprocess`] | any range by other rules, beside what stands | change what stands |
//! | [`tier`] | starts all of it and ends it in order | work of its own |
//!
//! Start reading at [`merge`]: it says what becomes of a bucket.
#![forbid(unsafe_code)]

mod again;
pub mod alert;
pub mod archive;
pub mod bill;
pub mod campaigns;
pub mod cli;
pub mod clickhouse;
pub mod clock;
pub mod config;
pub mod kafka;
pub mod merge;
pub mod merger;
pub mod reconcile;
pub mod record;
pub mod reprocess;
pub mod retention;
pub mod serve;
pub mod span;
pub mod store;
pub mod tier;
pub mod users;
pub mod watermark;
