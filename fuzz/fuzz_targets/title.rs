#![no_main]

use peerd::documents::share::{TITLE_MAX_BYTES, title};

// The head of a document, with names for which the title is derived differently.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    for name in ["rfc48.txt", "notes.md", "page.html", "rfc48.xml", "folder/memo"] {
        let title = title(name, data);
        assert!(title.len() <= TITLE_MAX_BYTES, "{} bytes", title.len());
        assert!(!title.is_empty(), "no title");
        assert!(!title.chars().any(char::is_control) && !title.contains("  "), "{title:?}");
    }
});
