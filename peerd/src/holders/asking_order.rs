//! In which order the peers of a network are asked for a document: holders that are known first, then one peer of each host before a second
//! one of any, and those that did not answer lately last. So whoever registers peers that do not exist delays a search little.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::source::Source;
use p2pdi::endpoint::{Endpoint, client_network};
use std::{
    collections::BTreeMap,
    net::IpAddr,
    time::{Duration, Instant},
};

/// How long a peer that could not be reached is asked last. A guess: one that restarts is back by then, and until then it is asked if nobody
/// else has the document.
const REMEMBERED: Duration = Duration::from_secs(60);
/// Peers remembered, some 100 bytes each: as many as one registry lists, several times.
const REMEMBERED_MAX: usize = 4_096;

/// The peers that could not be reached lately.
#[derive(Debug, Default)]
pub(super) struct AskingOrder {
    /// When each failed.
    unreachable: BTreeMap<Endpoint, Instant>,
}

impl AskingOrder {
    /// Nobody answered there.
    pub(super) fn failed(&mut self, endpoint: &Endpoint, now: Instant) {
        if self.unreachable.len() >= REMEMBERED_MAX {
            self.unreachable.retain(|_, at| now.saturating_duration_since(*at) < REMEMBERED);
        }
        if self.unreachable.len() < REMEMBERED_MAX {
            self.unreachable.insert(endpoint.clone(), now);
        }
    }

    /// Somebody answered there.
    pub(super) fn answered(&mut self, endpoint: &Endpoint) {
        self.unreachable.remove(endpoint);
    }

    /// Sorts `peers`, which are in random order; `is_holder`: it is known to have the document.
    pub(super) fn sort(&self, peers: &mut [Source], is_holder: impl Fn(&Source) -> bool, now: Instant) {
        let mut of_host: BTreeMap<Host, usize> = BTreeMap::new();
        let mut keys = BTreeMap::new();
        for peer in &*peers {
            let failed = self.unreachable.get(&peer.endpoint);
            let is_dead = failed.is_some_and(|at| now.saturating_duration_since(*at) < REMEMBERED);
            let count = of_host.entry(host(&peer.endpoint)).or_default();
            // What is dead does not count against the others of its host.
            let rank = if is_dead { 0 } else { std::mem::replace(count, *count + 1) };
            keys.insert((peer.endpoint.clone(), peer.name.clone()), (is_dead, !is_holder(peer), rank));
        }
        peers.sort_by_key(|peer| keys.get(&(peer.endpoint.clone(), peer.name.clone())).copied());
    }
}

/// Addresses that one host has, or a host name.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Host {
    Network(IpAddr),
    Name(String),
}

fn host(endpoint: &Endpoint) -> Host {
    match endpoint.host().parse() {
        Ok(ip) => Host::Network(client_network(ip)),
        Err(_) => Host::Name(endpoint.host().to_ascii_lowercase()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn peer(endpoint: &str) -> Source {
        Source::new(None, endpoint.parse().unwrap())
    }

    fn order(peers: &[Source]) -> Vec<&str> {
        peers.iter().map(|peer| peer.endpoint.as_str()).collect()
    }

    #[test]
    fn made_up_peers_of_one_address_come_after_one_of_each_other_address() {
        let mut peers: Vec<_> = (1..=200).map(|port| peer(&format!("192.0.2.66:{port}"))).collect();
        for (at, genuine) in [(50, "192.0.2.1:7801"), (120, "192.0.2.2:7801"), (199, "[2001:db8::1]:7801")] {
            peers.insert(at, peer(genuine));
        }
        AskingOrder::default().sort(&mut peers, |_| false, Instant::now());
        assert_eq!(
            order(&peers)[..5],
            ["192.0.2.66:1", "192.0.2.1:7801", "192.0.2.2:7801", "[2001:db8::1]:7801", "192.0.2.66:2"]
        );
    }

    #[test]
    fn holders_are_asked_first_and_those_that_did_not_answer_lately_last() {
        let (mut order_of, now) = (AskingOrder::default(), Instant::now());
        let mut peers: Vec<_> = ["192.0.2.1:1", "192.0.2.2:1", "192.0.2.3:1"].into_iter().map(peer).collect();
        order_of.failed(&peers[0].endpoint, now);
        order_of.sort(&mut peers, |peer| peer.endpoint.as_str() == "192.0.2.3:1", now);
        assert_eq!(order(&peers), ["192.0.2.3:1", "192.0.2.2:1", "192.0.2.1:1"]);
        order_of.sort(&mut peers, |_| false, now + REMEMBERED);
        assert_eq!(order(&peers), ["192.0.2.3:1", "192.0.2.2:1", "192.0.2.1:1"], "forgotten: the order stays");
        order_of.answered(&peer("192.0.2.1:1").endpoint);
        assert!(order_of.unreachable.is_empty());
    }

    #[test]
    fn the_peers_that_are_remembered_are_bounded() {
        let (mut order, now) = (AskingOrder::default(), Instant::now());
        for number in 0..REMEMBERED_MAX + 10 {
            order.failed(&format!("h{number}:1").parse().unwrap(), now);
        }
        assert_eq!(order.unreachable.len(), REMEMBERED_MAX);
        order.failed(&"new:1".parse().unwrap(), now + REMEMBERED);
        assert_eq!(order.unreachable.len(), 1);
    }
}
