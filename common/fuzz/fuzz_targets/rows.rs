//! Fuzzes [`weir_fuzz::rows`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_fuzz::rows(bytes));
