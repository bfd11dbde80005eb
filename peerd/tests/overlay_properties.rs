//! Whatever a driver or a remote peer does: no panic, views within their limits, no peer in both views or in its own,
//! no broadcast delivered twice; and after a malicious peer has left, the tree recovers. The same as fuzz targets: `fuzz/`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    reason = "a test: it may fail loudly, and its sizes are small"
)]

mod any_input;

use proptest::{collection::vec, prelude::*};

/// Length in bytes; enough to fill the views.
const INPUT: std::ops::Range<usize> = 0..6_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn membership_survives_any_input(input in vec(any::<u8>(), INPUT)) {
        any_input::drive_membership(&input);
    }

    #[test]
    fn plumtree_survives_any_input(input in vec(any::<u8>(), INPUT)) {
        any_input::drive_plumtree(&input);
    }

    #[test]
    fn the_overlay_survives_any_input(input in vec(any::<u8>(), INPUT)) {
        any_input::drive_overlay(&input);
    }

    #[test]
    fn routing_survives_any_input(input in vec(any::<u8>(), INPUT)) {
        any_input::drive_routing(&input);
    }

    #[test]
    fn the_text_parsers_survive_any_text(text in "[A-Za-z0-9.@:\\[\\]-]{0,40}|\\PC{0,40}") {
        any_input::decode_rest(text.as_bytes());
    }

    #[test]
    fn the_decoder_survives_any_bytes(bytes in vec(any::<u8>(), 0..400)) {
        any_input::decode(&bytes);
    }

    #[test]
    fn messages_are_decoded_as_they_were_encoded(input in vec(any::<u8>(), 0..400)) {
        any_input::round_trip(&input);
    }
}

proptest! {
    // Each case simulates two more minutes.
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn after_a_malicious_peer_has_left_there_is_one_tree_and_broadcasts_arrive(input in vec(any::<u8>(), INPUT)) {
        any_input::liar::drive_liar(&input);
    }
}

#[test]
fn truncated_and_modified_frames_are_decoded_without_a_panic() {
    let mut bytes = vec![0; 60];
    for first in 0..=255 {
        for second in 0..=255 {
            bytes[0] = first;
            bytes[1] = second;
            any_input::decode(&bytes);
            any_input::decode(&bytes[..usize::from(second) % 60]);
        }
    }
}
