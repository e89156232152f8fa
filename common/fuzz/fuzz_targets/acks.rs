//! Fuzzes [`weir_fuzz::acks`].
#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| weir_fuzz::acks(bytes));
