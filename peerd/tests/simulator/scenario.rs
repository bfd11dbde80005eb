//! Scenarios, and what they measure.
//!
//! - *Reliability* of a broadcast: of the peers alive when it was sent and still alive at
//!   its deadline, the share that received it by the deadline.
//! - *RMR*, relative message redundancy, as in the Plumtree paper: payload messages per peer that
//!   received one, minus 1; 0 is a perfect tree. Over several broadcasts: all payload messages divided by all deliveries, minus 1.
//! - *Last hop* of a broadcast: the most links that it travelled to any peer (1: directly from the origin).
//! - *Control*: messages without a payload.

use rand::{RngExt, seq::SliceRandom};

use super::{Faults, Index, LATENCY, Micros, Network, Node, SECOND};

/// Deliveries count within this time after the broadcast.
pub const DEADLINE: Micros = 5 * SECOND;

/// Results of a series of broadcasts.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    pub broadcasts: usize,
    pub reliability: f64,
    pub worst_reliability: f64,
    pub rmr: f64,
    pub last_hop_mean: f64,
    pub last_hop_max: u32,
    pub last_ms_mean: f64,
    pub duplicates: u64,
    pub controls_per_peer_second: f64,
    pub bytes_per_peer_second: f64,
    pub mean_degree: f64,
    pub asks: u64,
}

/// Results of a failure.
#[derive(Clone, Debug, Default)]
pub struct Recovery {
    pub survivors: usize,
    /// All broadcasts since the failure.
    pub figures: Figures,
    /// Every broadcast sent this many seconds after the failure or later reached all survivors within
    /// [`DEADLINE`]; `None` if the last broadcast did not.
    pub recovered_after_s: Option<u64>,
    /// Mean reliability of the broadcasts sent in the first 10 s, the 20 s after that, and later.
    pub first_10s: f64,
    pub to_30s: f64,
    pub later: f64,
    /// Partitions at the end.
    pub partitions: usize,
    pub dials: u64,
}

/// A network of `peers` that start one after the other, at `per_second`, followed by `settle_s` seconds without changes.
pub fn build<N: Node>(seed: u64, peers: usize, per_second: u64, settle_s: u64) -> Network<N> {
    build_with(seed, peers, per_second, settle_s, LATENCY)
}

/// The same, with latencies in this range.
pub fn build_with<N: Node>(
    seed: u64,
    peers: usize,
    per_second: u64,
    settle_s: u64,
    latencies: std::ops::Range<Micros>,
) -> Network<N> {
    let mut network = Network::with_latencies(seed, latencies);
    for _ in 0..peers {
        network.add();
        network.run(SECOND / per_second);
    }
    network.run(settle_s * SECOND);
    network
}

/// One broadcast per `interval`, each from a random peer.
pub fn many_senders<N: Node>(network: &mut Network<N>, broadcasts: usize, interval: Micros) -> Figures {
    network.reset();
    let start = network.now;
    let peers = network.alive();
    for _ in 0..broadcasts {
        let origin = network.random_peer();
        network.broadcast(origin);
        network.run(interval);
    }
    network.run(DEADLINE);
    figures(network, &peers, start)
}

/// The same as [`many_senders`], while a share of all messages is lost, of any kind.
pub fn lossy<N: Node>(network: &mut Network<N>, broadcasts: usize, interval: Micros, loss: f64) -> Figures {
    let before = std::mem::replace(&mut network.faults, Faults { loss, ..Faults::default() });
    let figures = many_senders(network, broadcasts, interval);
    network.faults = before;
    figures
}

/// Each second, a share `per_second` of the peers is killed and as many start, while random peers broadcast.
pub fn churn<N: Node>(network: &mut Network<N>, seconds: u64, per_second: f64) -> Figures {
    network.reset();
    let start = network.now;
    let size = network.alive().len();
    let mut settled: Vec<Index> = network.alive();
    for _ in 0..seconds {
        for _ in 0..(size as f64 * per_second).round() as usize {
            let victim = network.random_peer();
            network.kill(victim);
            network.add();
        }
        settled.retain(|peer| network.node(*peer).is_some());
        let origin = settled[network.rng.random_range(0..settled.len())];
        network.broadcast(origin);
        network.run(SECOND);
    }
    network.run(DEADLINE);
    settled.retain(|peer| network.node(*peer).is_some());
    figures(network, &settled, start)
}

fn figures<N: Node>(network: &Network<N>, peers: &[Index], start: Micros) -> Figures {
    let count = network.broadcasts.len();
    let mut figures = Figures { broadcasts: count, worst_reliability: 1.0, asks: network.traffic.asks, ..Figures::default() };
    let mut deliveries = 0;
    for (number, record) in network.broadcasts.iter().enumerate() {
        let reliability = network.reliability(number, peers, record.sent_at + DEADLINE);
        figures.reliability += reliability / count as f64;
        figures.worst_reliability = figures.worst_reliability.min(reliability);
        figures.last_hop_mean += f64::from(record.last_hop) / count as f64;
        figures.last_hop_max = figures.last_hop_max.max(record.last_hop);
        figures.duplicates += u64::from(record.duplicates);
        deliveries += record.received_at.iter().filter(|at| **at != Micros::MAX).count() - 1;
        let received_at = peers.iter().filter_map(|peer| record.received_at.get(*peer as usize));
        let last = received_at.filter(|at| **at != Micros::MAX).max().map_or(0, |at| at - record.sent_at);
        figures.last_ms_mean += last as f64 / 1_000.0 / count as f64;
    }
    let traffic = network.traffic;
    figures.rmr = traffic.payloads as f64 / deliveries.max(1) as f64 - 1.0;
    let seconds = (network.now - start) as f64 / SECOND as f64;
    let peer_seconds = peers.len() as f64 * seconds;
    figures.controls_per_peer_second = traffic.controls as f64 / peer_seconds;
    figures.bytes_per_peer_second = traffic.bytes as f64 / peer_seconds;
    figures.mean_degree = network.mean_degree();
    figures
}

/// A share of all peers fails at once; a random survivor broadcasts each second from then on.
pub fn mass_failure<N: Node>(network: &mut Network<N>, share: f64, watch_s: u64, unplug: bool) -> Recovery {
    network.reset();
    let start = network.now;
    let mut peers = network.alive();
    peers.shuffle(&mut network.rng);
    let dead = (peers.len() as f64 * share).round() as usize;
    let survivors = peers.split_off(dead);
    for peer in peers {
        if unplug {
            network.unplug(peer);
        } else {
            network.kill(peer);
        }
    }
    for _ in 0..watch_s {
        let origin = network.random_peer();
        network.broadcast(origin);
        network.run(SECOND);
    }
    network.run(DEADLINE);
    let reliability: Vec<f64> = (0..network.broadcasts.len())
        .map(|number| {
            let deadline = network.broadcasts[number].sent_at + DEADLINE;
            network.reliability(number, &survivors, deadline)
        })
        .collect();
    let last_bad = reliability.iter().rposition(|r| *r < 1.0);
    let recovered = last_bad.map_or(0, |second| second as u64 + 1);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len().max(1) as f64;
    let part = |from: usize, to: usize| {
        let to = to.min(reliability.len());
        mean(&reliability[from.min(to)..to])
    };
    Recovery {
        survivors: survivors.len(),
        figures: figures(network, &survivors, start),
        recovered_after_s: (recovered < watch_s).then_some(recovered),
        first_10s: part(0, 10),
        to_30s: part(10, 30),
        later: part(30, usize::MAX),
        partitions: network.components().len(),
        dials: network.traffic.dials,
    }
}
