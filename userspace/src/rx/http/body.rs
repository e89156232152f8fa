//! The body of a request: how long it is, and what is left when it is decoded.
//!
//! Bytes come as they come: [`chunked`] takes the framing off them, remembering where it is; when all
//! are there, [`encoding`] undoes the compression. Both are bounded by what the caller says, and neither knows
//! what the bytes mean: that is [`super::clicks`]. Start reading at [`chunked::Chunked::feed`].

pub mod chunked;
pub mod encoding;
mod lz4;
