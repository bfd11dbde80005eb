//! Settles which content a name or a number means, from what all peers asked said.
//!
//! Contents under the closest name come first: a name that is written exactly as it was asked for beats one that differs in case, whoever has
//! it. Of several contents under that name, the one that most peers hold themselves is meant, if it is clear: no other content has a holder of
//! its own, or more than half of all holders have it and at least two more than the next. Otherwise a person has to decide. What peers report of
//! others decides only where no peer asked holds any of the contents; each peer's reports of a content count once.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::evidence::{Found, closeness};
use crate::documents::selector::DocumentSelector;
use std::cmp::Reverse;

/// By how many holders a content must lead to be clearly meant: one peer that joins, leaves or lies decides nothing.
const MARGIN_MIN: usize = 2;

/// The result for one name, number or hash.
#[derive(Debug, Clone)]
pub enum Settlement {
    /// Nobody named a document.
    Nobody,
    /// This one is meant.
    Settled(Settled),
    /// None is clearly meant: those that have votes, the most first.
    Ambiguous(Vec<Found>),
}

/// A content that is meant, and how clearly.
#[derive(Debug, Clone)]
pub struct Settled {
    /// The content.
    pub found: Found,
    /// Votes for it: peers that hold it themselves, or if nobody who was asked holds any, peers that named it.
    pub votes: usize,
    /// Votes for all contents under that name.
    pub all_votes: usize,
    /// How many different contents there are under that name that have votes.
    pub contents: usize,
}

/// Whether the first of several contents is clearly meant, by how many hold each: the most first.
pub fn is_clear(votes: &[usize]) -> bool {
    let all: usize = votes.iter().sum();
    match votes {
        [] => false,
        [_] | [_, 0, ..] => true,
        [first, second, ..] => 2 * first > all && first.saturating_sub(*second) >= MARGIN_MIN,
    }
}

/// Which of the contents in `found` is meant by `wanted`.
pub fn settle(wanted: &DocumentSelector, found: Vec<Found>) -> Settlement {
    let Some(closest) = found.iter().map(|found| closeness(wanted, &found.document)).min() else { return Settlement::Nobody };
    let mut found = found;
    found.retain(|found| closeness(wanted, &found.document) == closest);
    let are_held = found.iter().any(|found| found.confirmed > 0);
    let votes = |found: &Found| if are_held { found.confirmed } else { found.named_by };
    // By hash in the end, so that the result does not depend on who answered first.
    found.sort_by_key(|found| (Reverse(votes(found)), Reverse(found.holders.len()), found.document.hash));
    let counts: Vec<_> = found.iter().map(votes).collect();
    // Contents that nobody asked holds, where others are held, are out of date or invented.
    let (contents, all_votes) = (counts.iter().filter(|votes| **votes > 0).count(), counts.iter().sum());
    if !is_clear(&counts) {
        found.retain(|found| votes(found) > 0);
        return Settlement::Ambiguous(found);
    }
    match found.into_iter().next() {
        Some(found) => Settlement::Settled(Settled { votes: votes(&found), found, all_votes, contents }),
        None => Settlement::Nobody,
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::evidence::{
            Evidence,
            tests::{listed, named, source},
        },
        *,
    };
    use p2pdi::content::ContentHash;
    use proptest::prelude::*;

    /// The peers `ports` hold the content `text` under `name` themselves.
    fn hold(evidence: &mut Evidence, name: &str, text: &[u8], ports: std::ops::Range<u16>) {
        for port in ports {
            evidence.add(&source(port), vec![listed(name, text, [port])]);
        }
    }

    /// The content that is meant; `None` if it is ambiguous.
    fn meant(wanted: &DocumentSelector, evidence: &Evidence) -> Option<ContentHash> {
        match settle(wanted, evidence.found()) {
            Settlement::Settled(settled) => Some(settled.found.document.hash),
            Settlement::Ambiguous(_) => None,
            Settlement::Nobody => panic!("there are holders"),
        }
    }

    #[test]
    fn the_content_that_most_hold_is_meant_if_it_is_clear() {
        let wanted = named("a");
        for (first, second, is_clear) in [(1, 0, true), (3, 1, true), (1, 1, false), (2, 1, false), (5, 4, false), (9, 7, true)] {
            let mut evidence = Evidence::about(wanted.clone());
            hold(&mut evidence, "a", b"one", 1..1 + first);
            hold(&mut evidence, "a", b"two", 100..100 + second);
            assert_eq!(meant(&wanted, &evidence), is_clear.then(|| ContentHash::of(b"one")), "{first} to {second}");
        }
        // The most, but less than half.
        let mut evidence = Evidence::about(wanted.clone());
        for (content, ports) in [(&b"one"[..], 1..5), (b"two", 10..12), (b"three", 20..22)] {
            hold(&mut evidence, "a", content, ports);
        }
        assert_eq!(meant(&wanted, &evidence), None);
        assert!(matches!(settle(&wanted, Vec::new()), Settlement::Nobody));
    }

    #[test]
    fn ten_invented_holders_count_as_the_one_peer_that_invented_them() {
        let wanted = named("a");
        let mut evidence = Evidence::about(wanted.clone());
        hold(&mut evidence, "a", b"true", 1..4);
        evidence.add(&source(66), vec![listed("a", b"lie", 66..77)]);
        assert_eq!(meant(&wanted, &evidence), Some(ContentHash::of(b"true")));
        // Not even if nobody who was asked holds the true one.
        let mut evidence = Evidence::about(wanted.clone());
        for port in 1..4 {
            evidence.add(&source(port), vec![listed("a", b"true", [9])]);
        }
        evidence.add(&source(66), vec![listed("a", b"lie", 67..77)]);
        assert_eq!(meant(&wanted, &evidence), Some(ContentHash::of(b"true")));
    }

    #[test]
    fn an_exact_name_beats_one_in_another_case_that_more_peers_have() {
        let wanted = named("Read.me");
        let mut evidence = Evidence::about(wanted.clone());
        hold(&mut evidence, "read.me", b"lower", 1..9);
        assert_eq!(meant(&wanted, &evidence), Some(ContentHash::of(b"lower")));
        hold(&mut evidence, "Read.me", b"exact", 20..21);
        assert_eq!(meant(&wanted, &evidence), Some(ContentHash::of(b"exact")));
    }

    #[test]
    fn a_number_means_the_text_of_the_rfc() {
        let wanted = DocumentSelector::Number(48);
        let mut evidence = Evidence::about(wanted.clone());
        for port in 1..5 {
            let formats = [("rfc48.html", &b"<html>"[..]), ("rfc48.txt", b"text"), ("rfc48.pdf", b"%PDF")];
            evidence.add(&source(port), formats.map(|(name, text)| listed(name, text, [port])).into());
        }
        assert_eq!(meant(&wanted, &evidence), Some(ContentHash::of(b"text")));
    }

    #[test]
    fn an_ambiguous_name_lists_what_peers_hold_and_not_what_they_only_report() {
        let wanted = named("a");
        let mut evidence = Evidence::about(wanted.clone());
        hold(&mut evidence, "a", b"one", 1..3);
        hold(&mut evidence, "a", b"two", 5..6);
        evidence.add(&source(66), vec![listed("a", b"lie", [67])]);
        let Settlement::Ambiguous(found) = settle(&wanted, evidence.found()) else { panic!("it is not clear") };
        let held: Vec<_> = found.iter().map(|found| (found.document.hash, found.confirmed)).collect();
        assert_eq!(held, [(ContentHash::of(b"one"), 2), (ContentHash::of(b"two"), 1)]);
    }

    proptest! {
        #[test]
        fn the_result_does_not_depend_on_the_order_of_answers(holds in proptest::collection::vec(0_u8..3, 1..12), seed in any::<u64>()) {
            let wanted = named("a");
            let meant_in = |order: &[usize]| {
                let mut evidence = Evidence::about(wanted.clone());
                for at in order {
                    let port = u16::try_from(*at).unwrap() + 1;
                    evidence.add(&source(port), vec![listed("a", &[holds[*at]], [port])]);
                }
                meant(&wanted, &evidence)
            };
            let mut order: Vec<usize> = (0..holds.len()).collect();
            let first = meant_in(&order);
            order.sort_by_key(|at| (*at as u64 + 1).wrapping_mul(seed | 1));
            prop_assert_eq!(meant_in(&order), first);
            // Whoever is meant leads by the margin, or is the only one.
            let count = |content: u8| holds.iter().filter(|held| **held == content).count();
            let mut counts: Vec<_> = (0..3).map(count).collect();
            counts.sort_unstable_by_key(|count| Reverse(*count));
            prop_assert_eq!(first.is_some(), counts[1] == 0 || (2 * counts[0] > holds.len() && counts[0] - counts[1] >= MARGIN_MIN));
        }
    }
}
