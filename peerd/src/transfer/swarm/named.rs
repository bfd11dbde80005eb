//! Members that other members name and that nobody here has met.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::holders::source::Source;
use std::collections::VecDeque;

/// Most of them remembered: what some members name in a second. The fetch takes them at once; the oldest make room for new ones.
const REMEMBERED_MAX: usize = 512;

/// The latest of them, in the order in which they were named.
#[derive(Debug, Default)]
pub(super) struct NamedMembers {
    latest: VecDeque<Source>,
    /// How many there were, those that are forgotten included.
    in_all: u64,
}

impl NamedMembers {
    /// Members were named; returns whether one of them is new.
    pub(super) fn add(&mut self, named: Vec<Source>) -> bool {
        let before = self.in_all;
        for source in named {
            if self.latest.iter().any(|known| known.endpoint == source.endpoint) {
                continue;
            }
            if self.latest.len() >= REMEMBERED_MAX {
                self.latest.pop_front();
            }
            self.latest.push_back(source);
            self.in_all += 1;
        }
        self.in_all > before
    }

    /// Those named after the first `seen`, which then counts all.
    pub(super) fn since(&self, seen: &mut u64) -> Vec<Source> {
        let forgotten = self.in_all - self.latest.len() as u64;
        let known = usize::try_from(seen.saturating_sub(forgotten)).unwrap_or(usize::MAX);
        *seen = self.in_all;
        self.latest.iter().skip(known).cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sources(ports: std::ops::Range<usize>) -> Vec<Source> {
        ports.map(|port| Source::new(None, format!("192.0.2.1:{port}").parse().unwrap())).collect()
    }

    #[test]
    fn each_is_told_once_and_the_latest_are_told_however_many_were_named_before() {
        let (mut named, mut seen) = (NamedMembers::default(), 0);
        assert!(named.add(sources(1..3)));
        assert_eq!(named.since(&mut seen), sources(1..3));
        assert!(!named.add(sources(2..3)));
        assert_eq!(named.since(&mut seen), []);
        assert!(named.add(sources(10..10 + 2 * REMEMBERED_MAX)));
        assert_eq!(named.since(&mut seen), sources(10 + REMEMBERED_MAX..10 + 2 * REMEMBERED_MAX));
        assert!(named.add(sources(5..6)), "there is room for later ones");
        assert_eq!(named.since(&mut seen), sources(5..6));
    }
}
