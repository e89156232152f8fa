//! The body of a request: how long it is, and what is left when it is decoded.
