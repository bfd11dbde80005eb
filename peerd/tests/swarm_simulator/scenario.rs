//! Scenarios of swarms, and their figures.

use super::{Micros, Network, Peer, SECOND, Settings};
use p2pdi::content::Pieces;
use peerd::transfer::plan::PlanConfig;
use rand::{RngExt as _, SeedableRng as _, rngs::SmallRng, seq::SliceRandom as _};

/// 50 Mbit/s.
pub const RATE: f64 = 6.25e6;

/// What a swarm needed.
#[derive(Debug, Clone, Copy)]
pub struct Figures {
    /// Times over the bound max(F/us, F/dmin, NF/(us + Σui)).
    pub median: f64,
    pub last: f64,
    /// Bytes that the seed sent, and bytes that arrived in vain at all peers, over F.
    pub egress: f64,
    pub wasted: f64,
}

/// A peer with a symmetric link.
pub fn peer(rate: f64, whole: bool) -> Peer {
    Peer { up: rate, down: rate, whole, in_swarm: true, zone: 0, joins: 0, leaves: None, lies: 0.0, stalls: None }
}

/// The network of most scenarios.
pub fn settings(pieces: u64) -> Settings {
    Settings {
        pieces: Pieces::of_size(pieces * p2pdi::content::PIECE_SIZE_MIN).unwrap(),
        plan: PlanConfig::default(),
        delay: 500,
        step: 5_000,
        message: 256 * 1024,
        seeds_offer: true,
        all_offer: false,
        slots: usize::MAX,
        deadline: 2_000 * SECOND,
    }
}

/// One seed (peer 0) and `leechers`, with equal links.
pub fn swarm(leechers: usize) -> Vec<Peer> {
    (0..=leechers).map(|index| peer(RATE, index == 0)).collect()
}

/// Everybody knows everybody.
pub fn all_know_all(peers: usize) -> Vec<Vec<usize>> {
    (0..peers).map(|index| (0..peers).filter(|other| *other != index).collect()).collect()
}

/// Everybody knows `degree` others or a few more, at random.
pub fn random_links(peers: usize, degree: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut links = vec![Vec::new(); peers];
    for index in 0..peers {
        let mut others: Vec<_> = (0..peers).filter(|other| *other != index).collect();
        let chosen = if index == 0 { degree } else { degree / 2 };
        for other in others.partial_shuffle(&mut rng, chosen).0.to_vec() {
            if !links[index].contains(&other) {
                links[index].push(other);
                links[other].push(index);
            }
        }
    }
    links
}

/// Everybody knows about `degree` others, each of which knows as many: as a tracker arranges it that names those first that are known to
/// few.
pub fn even_links(peers: usize, degree: usize, seed: u64) -> Vec<Vec<usize>> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut links = vec![Vec::new(); peers];
    for index in 0..peers {
        while links[index].len() < degree.min(peers - 1) {
            let others =
                (0..32).map(|_| rng.random_range(0..peers)).filter(|other| *other != index && !links[index].contains(other));
            if let Some(other) = others.min_by_key(|other| links[*other].len()) {
                links[index].push(other);
                links[other].push(index);
            }
        }
    }
    links
}

/// Peers that join one after the other.
pub fn arriving(mut peers: Vec<Peer>, every: Micros) -> Vec<Peer> {
    for (index, peer) in peers.iter_mut().enumerate().skip(1) {
        peer.joins = (index as u64 - 1) * every;
    }
    peers
}

/// Any `count` of the leechers vanish at a time.
pub fn killed(mut peers: Vec<Peer>, count: usize, at: Micros, seed: u64) -> Vec<Peer> {
    let mut rng = SmallRng::seed_from_u64(seed);
    let mut killed = 0;
    while killed < count {
        let index = rng.random_range(1..peers.len());
        killed += usize::from(peers[index].leaves.replace(at).is_none());
    }
    peers
}

/// Runs a network; the bound is that of the peers that stay.
pub fn run(settings: Settings, peers: &[Peer], links: Vec<Vec<usize>>, seed: u64) -> (Figures, Network) {
    let mut network = Network::new(settings, peers, links, seed);
    network.run();
    let figures = figures(&network);
    (figures, network)
}

/// The bound of a swarm in which all begin together.
fn bound(network: &Network) -> f64 {
    let size = network.settings.pieces.size() as f64;
    let stays = || network.nodes.iter().map(|node| node.peer).filter(|peer| peer.leaves.is_none());
    let seeds: f64 = stays().filter(|peer| peer.whole).map(|peer| peer.up).sum();
    let all: f64 = stays().map(|peer| peer.up).sum();
    let leechers = stays().filter(|peer| !peer.whole);
    let mut down: Vec<_> = leechers.map(|peer| peer.down).collect();
    down.sort_by(f64::total_cmp);
    // One leecher with a slow link needs its own time; the others are measured by theirs.
    let median = down.get(down.len() / 2).copied().unwrap_or(f64::INFINITY);
    (size / seeds).max(size / median).max(down.len() as f64 * size / all)
}

/// The figures of a network that ran.
pub fn figures(network: &Network) -> Figures {
    let fetching = network.nodes.iter().filter(|node| !node.peer.whole && node.peer.leaves.is_none());
    let bound = bound(network);
    let mut times: Vec<_> = fetching
        .map(|node| node.done.map_or(f64::INFINITY, |done| (done - node.peer.joins) as f64 / SECOND as f64 / bound))
        .collect();
    times.sort_by(f64::total_cmp);
    let size = network.settings.pieces.size() as f64;
    let sent: u64 = network.nodes.iter().filter(|node| node.peer.whole).map(|node| node.sent).sum();
    Figures {
        median: times.get(times.len() / 2).copied().unwrap_or(0.0),
        last: times.last().copied().unwrap_or(0.0),
        egress: sent as f64 / size,
        wasted: network.wasted(),
    }
}
