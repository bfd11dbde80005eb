#![no_main]

use p2pdi::token::JoinToken;

// Text that somebody pastes as a join token: refused, or a token whose line is the same text.
libfuzzer_sys::fuzz_target!(|text: &str| {
    if let Ok(token) = text.parse::<JoinToken>() {
        assert_eq!(token.reveal(), text.trim().to_ascii_lowercase());
        assert!(!token.registries.is_empty());
    }
});
