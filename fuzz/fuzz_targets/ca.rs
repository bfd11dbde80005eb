#![no_main]

// Rows of the certificate authority's ledger, and certificate requests.
libfuzzer_sys::fuzz_target!(|data: &[u8]| registry::ca::check_any_bytes(data));
