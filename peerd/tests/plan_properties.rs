//! Whatever swarm: every piece is requested until it is there, never from who lacks it, within the limits, and it ends.
//!
//! The network checks the limits, that a holder has what it is asked for, and that no verified piece is requested.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a test: it may fail loudly, and its sizes are small"
)]

mod swarm_simulator;

use proptest::prelude::*;
use swarm_simulator::{
    Peer, SECOND, holder,
    scenario::{self, peer, random_links, settings},
};

/// A peer of any rate, which may come late, vanish, lie, or speak no Availability.
fn any_peer() -> impl Strategy<Value = Peer> {
    let when = 0..20 * SECOND;
    (
        0.05_f64..20.0,
        0.05_f64..20.0,
        0.0_f64..1.0,
        any::<bool>(),
        0_u8..2,
        when.clone(),
        prop::option::weighted(0.2, when),
        0_u8..12,
    )
        .prop_map(|(up, down, whole, in_swarm, zone, joins, leaves, fault)| Peer {
            up: up * 1e6,
            down: down * 1e6,
            whole: whole < 0.2,
            in_swarm: in_swarm || whole >= 0.2,
            zone,
            joins: joins / 4,
            leaves: leaves.map(|leaves| joins / 4 + leaves),
            lies: if fault < 2 { 0.5 } else { 0.0 },
            stalls: (fault == 2).then_some(joins / 4 + joins / 2),
        })
}

proptest! {
    #[test]
    fn every_fetch_ends_within_the_limits(
        others in prop::collection::vec(any_peer(), 1..8),
        pieces in 1_u64..60,
        delay in 0_u64..150_000,
        degree in 2_usize..8,
        seed in any::<u64>(),
        in_swarm in any::<bool>(),
        message in 1_u64..=256,
    ) {
        // One honest peer has everything, stays and is known to all: all can end.
        let mut peers = vec![Peer { in_swarm, ..peer(1e6, true) }];
        peers.extend(others);
        let mut links = random_links(peers.len(), degree.min(peers.len() - 1), seed);
        for index in 1..peers.len() {
            if !links[0].contains(&index) {
                links[0].push(index);
                links[index].push(0);
            }
        }
        let mut settings = settings(pieces);
        settings.delay = delay;
        settings.message = message * 1024;
        settings.step = 20_000;
        settings.deadline = 3_600 * SECOND;
        let (_, network) = scenario::run(settings, &peers, links, seed);
        for (index, node) in network.nodes.iter().enumerate() {
            let stays = !node.peer.whole && node.peer.leaves.is_none();
            prop_assert!(!stays || node.done.is_some(), "peer {index} did not end by {} s", network.now / SECOND);
            let honest = |dropped: &&_| (0..peers.len()).any(|index| holder(index) == **dropped && peers[index].lies == 0.0);
            prop_assert!(!node.dropped.iter().any(|dropped| honest(&dropped)), "an honest peer was dropped");
        }
    }
}
