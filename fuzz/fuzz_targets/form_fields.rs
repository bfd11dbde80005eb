#![no_main]

// Query and form, separated by a line break.
libfuzzer_sys::fuzz_target!(|data: &str| {
    let (query, form) = data.split_once('\n').unwrap_or((data, ""));
    peerd::check_any_form(query, form);
});
