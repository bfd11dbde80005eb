#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| registry::store::check_any_bytes(data));
