//! Which registry is called next, and when one that failed is called again.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::{backoff::Policy, endpoint::Endpoint};
use std::{fmt, net::SocketAddr, time::Duration};

/// How long a place that failed is left alone while another one answers. The longest: by then a replica that was restarted is back, and one that
/// is gone costs a connection a minute.
const REST: Policy = Policy { first: Duration::from_secs(1), longest: Duration::from_secs(60) };
/// Most places that are kept: more addresses than a name has in practice.
const PLACES_MAX: usize = 64;

/// An address of a registry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    /// The registry as it is configured. Its certificate is checked against this.
    pub registry: Endpoint,
    /// Where it is dialled: one of the addresses that its name has.
    pub address: SocketAddr,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.registry.ip() {
            Some(_) => write!(f, "{}", self.registry),
            None => write!(f, "{} ({})", self.registry, self.address.ip()),
        }
    }
}

/// The places of all registries, in an order that is random for each client, so that many clients spread over them.
#[derive(Debug, Default)]
pub(super) struct Choice(Vec<Candidate>);

#[derive(Debug)]
struct Candidate {
    place: Place,
    /// Random; the lowest one is called first.
    rank: u64,
    /// Failures in a row.
    failures: u32,
    /// Places that do not rest come first until then.
    rests_until: Duration,
}

impl Choice {
    /// All places, in no order.
    pub(super) fn places(&self) -> Vec<Place> {
        self.0.iter().map(|candidate| candidate.place.clone()).collect()
    }

    /// Whether its registry has one place only.
    pub(super) fn is_only_one(&self, place: &Place) -> bool {
        self.0.iter().filter(|candidate| candidate.place.registry == place.registry).count() <= 1
    }

    /// The places are these from now on. What is known of those that stay is kept; `random` gives new ones their rank.
    pub(super) fn set_places(&mut self, places: &[Place], mut random: impl FnMut() -> u64) {
        self.0.retain(|candidate| places.contains(&candidate.place));
        for place in places {
            if self.0.len() < PLACES_MAX && self.0.iter().all(|candidate| candidate.place != *place) {
                self.0.push(Candidate { place: place.clone(), rank: random(), failures: 0, rests_until: Duration::ZERO });
            }
        }
        self.0.sort_by_key(|candidate| candidate.rank);
    }

    /// The places to be tried, best first, without those in `tried`: first those that do not rest, then those whose rest ends soonest. There
    /// is always something to try: a rest is no reason to call nobody.
    pub(super) fn order(&self, now: Duration, tried: &[Place]) -> Vec<Place> {
        let mut candidates: Vec<_> = self.0.iter().filter(|candidate| !tried.contains(&candidate.place)).collect();
        // Stable: those that do not rest keep the order of their ranks.
        candidates.sort_by_key(|candidate| if candidate.rests_until <= now { Duration::ZERO } else { candidate.rests_until });
        candidates.into_iter().map(|candidate| candidate.place.clone()).collect()
    }

    /// A call failed there at `now`; `asked`: for how long the registry asked to be left alone. `random` is in `0.0..1.0`.
    pub(super) fn failed(&mut self, place: &Place, now: Duration, asked: Option<Duration>, random: f64) {
        if let Some(candidate) = self.0.iter_mut().find(|candidate| candidate.place == *place) {
            let rest = REST.pause_with_jitter(candidate.failures, random).max(asked.unwrap_or_default());
            candidate.failures = candidate.failures.saturating_add(1);
            candidate.rests_until = now.saturating_add(rest);
        }
    }

    /// A call was answered there.
    pub(super) fn answered(&mut self, place: &Place) {
        if let Some(candidate) = self.0.iter_mut().find(|candidate| candidate.place == *place) {
            (candidate.failures, candidate.rests_until) = (0, Duration::ZERO);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1_000);

    fn place(last: u8) -> Place {
        Place { registry: "registry:7800".parse().unwrap(), address: SocketAddr::from(([10, 0, 0, last], 7800)) }
    }

    /// Places 1, 2 and 3, with these ranks.
    fn of_three(ranks: [u64; 3]) -> Choice {
        let (mut choice, mut ranks) = (Choice::default(), ranks.into_iter());
        choice.set_places(&[1, 2, 3].map(place), || ranks.next().unwrap());
        choice
    }

    fn order(choice: &Choice, now: Duration) -> Vec<u8> {
        let last = |place: Place| match place.address {
            SocketAddr::V4(address) => address.ip().octets()[3],
            SocketAddr::V6(_) => unreachable!("all are IPv4"),
        };
        choice.order(now, &[]).into_iter().map(last).collect()
    }

    #[test]
    fn the_order_is_random_and_stays() {
        assert_eq!(order(&of_three([1, 2, 3]), NOW), [1, 2, 3]);
        let mut choice = of_three([3, 1, 2]);
        assert_eq!(order(&choice, NOW), [2, 3, 1]);
        choice.set_places(&[3, 4, 1].map(place), || 0);
        assert_eq!(order(&choice, NOW), [4, 3, 1]);
        assert_eq!(choice.order(NOW, &[place(4), place(1)]), [place(3)]);
    }

    #[test]
    fn one_that_failed_comes_after_those_that_did_not_and_comes_back_when_it_rested() {
        let mut choice = of_three([1, 2, 3]);
        choice.failed(&place(1), NOW, None, 1.0);
        assert_eq!(order(&choice, NOW), [2, 3, 1]);
        assert_eq!(order(&choice, NOW + REST.first), [1, 2, 3]);
        // It fails again: the rest is twice as long.
        choice.failed(&place(1), NOW, None, 1.0);
        assert_eq!(order(&choice, NOW + REST.first), [2, 3, 1]);
        assert_eq!(order(&choice, NOW + 2 * REST.first), [1, 2, 3]);
        choice.answered(&place(1));
        assert_eq!(order(&choice, NOW), [1, 2, 3]);
    }

    #[test]
    fn when_all_failed_the_one_whose_rest_ends_first_is_called() {
        let mut choice = of_three([1, 2, 3]);
        choice.failed(&place(1), NOW, Some(Duration::from_secs(30)), 0.0);
        choice.failed(&place(2), NOW, None, 0.0);
        choice.failed(&place(3), NOW + Duration::from_millis(100), None, 0.0);
        assert_eq!(order(&choice, NOW), [2, 3, 1]);
    }

    #[test]
    fn rests_are_bounded_and_so_are_places() {
        let mut choice = of_three([1, 2, 3]);
        (0..100).for_each(|_| choice.failed(&place(1), NOW, None, 1.0));
        assert_eq!(order(&choice, NOW + REST.longest), [1, 2, 3]);
        let many: Vec<_> = (0..=255).map(place).collect();
        choice.set_places(&many, || 9);
        assert_eq!(choice.places().len(), PLACES_MAX);
        assert!(choice.places().contains(&place(1)) && !choice.is_only_one(&place(1)));
    }

    #[test]
    fn a_name_is_shown_with_the_address_that_it_has_there() {
        assert_eq!(place(1).to_string(), "registry:7800 (10.0.0.1)");
        let literal = Place { registry: "10.0.0.1:7800".parse().unwrap(), ..place(1) };
        assert_eq!(literal.to_string(), "10.0.0.1:7800");
    }
}
