//! How long the answers of one round of a search are awaited.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::time::Duration;

/// How long further answers are awaited at least after the first one that has the document, where a name or a number has to be settled: a peer
/// on another continent that has to connect first answers in half of it.
const SETTLING_MIN: Duration = Duration::from_secs(1);
/// The same where the hash is known, so that any holder will do.
const GATHERING_MIN: Duration = Duration::from_millis(30);
/// How many times as long as half of the peers needed the others may take.
const MEDIANS: u32 = 3;

/// The answers of one round so far.
#[derive(Debug)]
pub(super) struct Patience {
    shortest: Duration,
    /// After what time each answer arrived, in order of arrival.
    arrived: Vec<Duration>,
    first_useful: Option<Duration>,
}

impl Patience {
    /// Of a round that settles a name or a number, or that looks for holders only.
    pub(super) fn new(settles: bool) -> Self {
        Self { shortest: if settles { SETTLING_MIN } else { GATHERING_MIN }, arrived: Vec::new(), first_useful: None }
    }

    /// An answer arrived this long after the round began. `is_useful`: some peer named the document by now.
    pub(super) fn answered(&mut self, after: Duration, is_useful: bool) {
        self.arrived.push(after);
        if is_useful {
            self.first_useful.get_or_insert(after);
        }
    }

    /// How long after its beginning the round ends without the peers that have not answered; `None`: they are awaited.
    pub(super) fn ends_after(&self) -> Option<Duration> {
        let median = self.arrived.get(self.arrived.len().checked_sub(1)? / 2)?;
        Some(self.first_useful? + self.shortest.max(median.saturating_mul(MEDIANS)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: Duration = Duration::from_millis(1);

    #[test]
    fn a_name_waits_for_a_peer_far_away_and_a_hash_for_the_near_ones() {
        for (settles, expected) in [(true, 1_001 * MS), (false, 31 * MS)] {
            let mut patience = Patience::new(settles);
            assert_eq!(patience.ends_after(), None);
            patience.answered(MS, true);
            assert_eq!(patience.ends_after(), Some(expected));
        }
    }

    #[test]
    fn where_most_peers_are_slow_the_others_get_three_times_as_long() {
        let mut patience = Patience::new(true);
        patience.answered(400 * MS, false);
        assert_eq!(patience.ends_after(), None, "nobody has it yet");
        patience.answered(500 * MS, true);
        patience.answered(600 * MS, true);
        assert_eq!(patience.ends_after(), Some(500 * MS + 1_500 * MS));
    }
}
