#![no_main]

use p2pdi::tls::Identity;

// A certificate that anyone may show.
libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    if let Ok(identity) = Identity::of_chain(vec![data.to_vec().into()]) {
        let text = identity.to_string();
        assert!(!text.chars().any(char::is_control), "{text:?}");
        assert!(identity.names().iter().all(|name| identity.has_name(name)));
        assert_eq!(identity.chain().len(), 1);
    }
});
