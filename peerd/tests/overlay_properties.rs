//! Whatever a driver or a remote peer does: no panic, views within their limits, no peer in both views, never
//! itself, nothing shown twice; and once a liar has left, all is well again. The same as fuzz targets: `fuzz/`.

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

/// Long enough for views to fill.
const STORY: std::ops::Range<usize> = 0..6_000;

proptest! {
    #![proptest_config(ProptestConfig { cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn membership_bears_any_story(story in vec(any::<u8>(), STORY)) {
        any_input::drive_membership(&story);
    }

    #[test]
    fn the_broadcast_machine_bears_any_story(story in vec(any::<u8>(), STORY)) {
        any_input::drive_plumtree(&story);
    }

    #[test]
    fn the_overlay_bears_any_story(story in vec(any::<u8>(), STORY)) {
        any_input::drive_overlay(&story);
    }

    #[test]
    fn the_routing_bears_any_story(story in vec(any::<u8>(), STORY)) {
        any_input::drive_routing(&story);
    }

    #[test]
    fn the_readers_of_texts_bear_any_text(text in "[A-Za-z0-9.@:\\[\\]-]{0,40}|\\PC{0,40}") {
        any_input::decode_rest(text.as_bytes());
    }

    #[test]
    fn the_decoder_bears_any_bytes(bytes in vec(any::<u8>(), 0..400)) {
        any_input::decode(&bytes);
    }

    #[test]
    fn messages_come_through_their_encoding_as_they_were(story in vec(any::<u8>(), 0..400)) {
        any_input::round_trip(&story);
    }
}

proptest! {
    // Each goes on for two simulated minutes.
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    #[test]
    fn after_a_liar_has_left_the_tree_is_one_and_broadcasts_arrive(story in vec(any::<u8>(), STORY)) {
        any_input::liar::drive_liar(&story);
    }
}

#[test]
fn frames_that_were_cut_short_or_changed_do_no_harm() {
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
