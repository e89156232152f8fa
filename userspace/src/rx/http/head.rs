//! The head of a request, read once and checked.
