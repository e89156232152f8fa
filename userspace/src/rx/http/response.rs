//! Responses, as bytes.
