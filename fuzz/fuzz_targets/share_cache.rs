#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| peerd::documents::share::check_any_entry(data));
