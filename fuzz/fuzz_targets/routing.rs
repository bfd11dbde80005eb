#![no_main]

#[allow(dead_code)] // each target uses a part
#[path = "../../peerd/tests/any_input/mod.rs"]
mod any_input;

libfuzzer_sys::fuzz_target!(|data: &[u8]| any_input::drive_routing(data));
