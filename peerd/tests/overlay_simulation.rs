//! Simulated networks of a thousand peers: the guarantees of the overlay, as figures.
//!
//! The same with ten thousand peers, compared with iroh-gossip: `cargo bench --bench overlay`.

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

mod simulator;

use bytes::Bytes;
use peerd::overlay::{
    Message, PeerId,
    link::FRAMES_PER_SECOND,
    plumtree::{self, Advert, MAX_IDS, MessageId},
};
use simulator::{
    Faults, Index, Network, Node, SECOND,
    iroh::Iroh,
    ours::{self, Ours},
    scenario::{self, DEADLINE},
};

const PEERS: usize = 1_000;

fn network(seed: u64, peers: usize) -> Network<Ours> {
    scenario::build(seed, peers, 500, 10)
}

/// The views of all peers are within their limits and consistent.
fn check(network: &Network<Ours>) {
    for index in network.alive() {
        let overlay = &network.node(index).expect("alive").overlay;
        let membership = overlay.membership();
        let config = membership.config();
        assert!(membership.neighbours().count() <= config.max_active());
        assert!(membership.passive().len() <= config.passive);
        assert!(!membership.is_neighbour(ours::id(index)));
        assert!(!membership.passive().contains(ours::id(index)));
        for (neighbour, _) in membership.neighbours() {
            assert!(!membership.passive().contains(neighbour.id()));
        }
    }
}

/// One peer is the root, and the parents of all others lead to it.
fn check_tree(network: &Network<Ours>) {
    let tree = |index: Index| {
        let node = network.node(index).expect("the parent is alive");
        node.overlay.plumtree().tree()
    };
    let mut roots = 0;
    for index in network.alive() {
        let (mut at, mut steps) = (index, 0);
        while let Some(parent) = tree(at).parent() {
            at = ours::index(parent);
            steps += 1;
            assert!(steps <= plumtree::MAX_DEPTH, "the parents of {index} form a loop");
        }
        assert!(tree(at).is_root(), "the parents of {index} end at {at}, which is not a root");
        roots += usize::from(at == index);
    }
    assert_eq!(roots, 1);
}

#[test]
fn broadcasts_of_many_senders_reach_all_peers_along_one_tree() {
    let mut network = network(1, PEERS);
    let figures = scenario::many_senders(&mut network, 40, SECOND);
    assert_eq!(figures.worst_reliability, 1.0, "{figures:?}");
    assert!(figures.rmr <= 0.05, "{figures:?}");
    assert!(figures.last_hop_max <= 15, "{figures:?}");
    assert_eq!(figures.duplicates, 0, "{figures:?}");
    let burst = scenario::many_senders(&mut network, 200, SECOND / 50);
    assert_eq!(burst.worst_reliability, 1.0, "{burst:?}");
    assert!(burst.rmr <= 0.1, "{burst:?}");
    check(&network);
    check_tree(&network);
}

#[test]
fn broadcasts_need_fewer_messages_and_hops_than_with_iroh_gossip() {
    let mut ours = network(2, PEERS);
    let mut iroh: Network<Iroh> = scenario::build(2, PEERS, 500, 10);
    scenario::many_senders(&mut ours, 5, SECOND);
    scenario::many_senders(&mut iroh, 5, SECOND);
    let ours = scenario::many_senders(&mut ours, 20, SECOND);
    let iroh = scenario::many_senders(&mut iroh, 20, SECOND);
    assert!(ours.rmr < iroh.rmr, "{ours:?} {iroh:?}");
    assert!(ours.last_hop_mean < iroh.last_hop_mean, "{ours:?} {iroh:?}");
}

#[test]
fn after_half_of_the_peers_die_all_survivors_are_reached_within_ten_seconds() {
    recovers(3, 0.5, false, 10);
}

#[test]
fn after_four_fifths_die_all_survivors_are_reached_within_ten_seconds() {
    recovers(4, 0.8, false, 10);
}

#[test]
fn after_nineteen_of_twenty_die_all_survivors_are_reached_within_thirty_seconds() {
    recovers(5, 0.95, false, 30);
}

#[test]
fn after_four_fifths_lose_power_all_survivors_are_reached_within_thirty_seconds() {
    recovers(6, 0.8, true, 30);
}

fn recovers(seed: u64, share: f64, unplug: bool, within_s: u64) {
    let mut network = network(seed, PEERS);
    let recovery = scenario::mass_failure(&mut network, share, within_s + 10, unplug);
    let after = recovery.recovered_after_s;
    assert!(after.is_some_and(|s| s <= within_s), "{recovery:?}");
    assert_eq!(recovery.partitions, 1, "{recovery:?}");
    check(&network);
    check_tree(&network);
    let figures = scenario::many_senders(&mut network, 10, SECOND);
    assert_eq!(figures.worst_reliability, 1.0, "{figures:?}");
    assert!(figures.rmr <= 0.3 && figures.last_hop_max <= 15, "{figures:?}");
}

#[test]
fn churn_does_not_lose_broadcasts_for_the_other_peers() {
    let mut network = network(7, PEERS);
    let figures = scenario::churn(&mut network, 20, 0.01);
    assert_eq!(figures.worst_reliability, 1.0, "{figures:?}");
    assert!(figures.rmr <= 0.3, "{figures:?}");
    check(&network);
}

#[test]
fn the_same_seed_gives_the_same_run() {
    let run = |seed| {
        let mut network = network(seed, 100);
        let figures = scenario::churn(&mut network, 5, 0.02);
        format!("{figures:?} {:?}", network.traffic)
    };
    assert_eq!(run(8), run(8));
    assert_ne!(run(8), run(9));
}

#[test]
fn lost_repeated_and_reordered_messages_are_compensated() {
    let mut network = network(10, 200);
    network.encode = true;
    network.faults = Faults { loss: 0.02, duplicates: 0.02, jitter: SECOND / 5 };
    let figures = scenario::many_senders(&mut network, 40, SECOND);
    assert!(figures.reliability > 0.9999, "{figures:?}");
    assert_eq!(figures.duplicates, 0, "{figures:?}");
    check(&network);
}

#[test]
fn a_link_that_stalls_without_closing_is_dropped_within_seconds() {
    let mut network = network(11, 100);
    let stalled = network.random_peer();
    let before = network.node(stalled).expect("alive").neighbours();
    network.unplug(stalled);
    network.run(8 * SECOND);
    for index in before {
        let neighbours = network.node(index).expect("alive").neighbours();
        assert!(!neighbours.contains(&stalled));
    }
    assert_eq!(network.components().len(), 1);
}

#[test]
fn two_halves_merge_and_receive_each_others_broadcasts() {
    let mut network = network(12, 200);
    heals(&mut network, 100);
}

#[test]
fn a_small_partition_merges_and_both_sides_receive_the_missed_broadcasts() {
    let mut network = network(13, 200);
    heals(&mut network, 12);
}

/// Cuts off the first `cut` peers for half a minute; 15 s later there is one partition, and all peers have all broadcasts.
fn heals(network: &mut Network<Ours>, cut: Index) {
    for index in 0..cut {
        network.set_partition(index, 1);
    }
    network.run(10 * SECOND);
    let mut sent = Vec::new();
    for _ in 0..20 {
        sent.push(network.broadcast(0));
        sent.push(network.broadcast(cut));
        network.run(SECOND);
    }
    let (inside, outside): (Vec<Index>, Vec<Index>) = network.alive().into_iter().partition(|i| *i < cut);
    assert_eq!(network.reliability(sent[0], &inside, network.now), 1.0);
    assert_eq!(network.reliability(sent[0], &outside, network.now), 0.0);
    for index in 0..cut {
        network.set_partition(index, 0);
    }
    network.run(15 * SECOND);
    assert_eq!(network.components().len(), 1);
    let everyone = network.alive();
    for number in sent {
        assert_eq!(network.reliability(number, &everyone, network.now), 1.0);
        assert_eq!(network.broadcasts[number].duplicates, 0);
    }
}

#[test]
fn a_newcomer_receives_later_broadcasts_and_no_older_ones() {
    let mut network = network(14, 100);
    let old = network.broadcast(3);
    network.run(10 * SECOND);
    let newcomer = network.add();
    network.run(3 * SECOND);
    let new = network.broadcast(4);
    network.run(DEADLINE);
    assert_eq!(network.reliability(new, &[newcomer], network.now), 1.0);
    assert_eq!(network.reliability(old, &[newcomer], network.now), 0.0);
}

#[test]
fn a_peer_that_leaves_is_removed_by_its_neighbours_at_once() {
    let mut network = network(15, 100);
    let gone = network.random_peer();
    network.leave(gone);
    network.run(SECOND / 2);
    for index in network.alive() {
        assert!(!network.node(index).expect("alive").neighbours().contains(&gone));
    }
}

#[test]
fn broadcasts_of_a_restarted_peer_arrive_although_its_sequence_starts_again() {
    let mut network = network(16, 100);
    for _ in 0..5 {
        network.broadcast(7);
    }
    network.run(2 * SECOND);
    network.kill(7);
    network.start(7);
    network.run(3 * SECOND);
    let sent = network.broadcast(7);
    network.run(DEADLINE);
    let everyone = network.alive();
    assert_eq!(network.reliability(sent, &everyone, network.now), 1.0);
}

#[test]
fn peers_with_enough_links_do_not_ask_the_registry() {
    let mut network = network(17, 100);
    network.reset();
    network.run(60 * SECOND);
    // Only the root searches for other partitions.
    assert!(network.traffic.asks <= 40, "{:?}", network.traffic);
}

#[test]
fn a_flooding_peer_is_slowed_down_and_the_others_are_served() {
    let mut network = network(18, 50);
    let flooder = network.random_peer();
    let victim = network.node(flooder).expect("alive").neighbours()[0];
    let prune = Message::Plumtree(plumtree::Message::Prune);
    // As many as may arrive at once, and some more: the simulator delivers each that waits again after every pause.
    for _ in 0..FRAMES_PER_SECOND + 5_000 {
        network.inject(flooder, victim, prune.clone());
    }
    let sent = network.broadcast(victim);
    network.run(DEADLINE);
    assert!(network.traffic.pauses > 0);
    let throttled = network.node(victim).expect("alive").overlay.throttled();
    assert_eq!(throttled, 0, "a paused link loses no frames");
    let everyone = network.alive();
    assert_eq!(network.reliability(sent, &everyone, network.now), 1.0);
}

#[test]
fn a_peer_that_breaks_the_protocol_is_reported_and_does_no_harm() {
    let mut network = network(19, 50);
    let liar = network.random_peer();
    let victim = network.node(liar).expect("alive").neighbours()[0];
    let id = |sequence| MessageId { origin: PeerId::from_u128(u128::MAX), incarnation: 1, sequence };
    let advert = |sequence| Advert { id: id(sequence), age: std::time::Duration::ZERO };
    let too_many = (0..=MAX_IDS as u64).map(advert).collect();
    let invalid = [
        plumtree::Message::Advertise(too_many),
        plumtree::Message::Gossip(plumtree::Gossip {
            id: id(u64::MAX),
            hops: u32::MAX,
            age: std::time::Duration::MAX,
            payload: Bytes::from(vec![0; plumtree::MAX_PAYLOAD + 1]),
            signature: None,
        }),
    ];
    for message in invalid {
        network.inject(liar, victim, Message::Plumtree(message));
    }
    // Ids of broadcasts that do not exist.
    for sequence in 0..2 {
        let adverts = (0..MAX_IDS as u64).map(|i| advert(sequence * 1_000 + i)).collect();
        network.inject(liar, victim, Message::Plumtree(plumtree::Message::Advertise(adverts)));
    }
    network.run(30 * SECOND);
    assert!(network.traffic.misbehaved >= 3, "{:?}", network.traffic);
    assert!(
        !network.node(victim).expect("alive").neighbours().contains(&liar),
        "a peer that breaks promises is no longer a neighbour"
    );
    let (_, _, missing) = network.node(victim).expect("alive").overlay.plumtree().sizes();
    assert_eq!(missing, 0, "the peer still waits for missing broadcasts");
    let figures = scenario::many_senders(&mut network, 5, SECOND);
    assert_eq!(figures.worst_reliability, 1.0, "{figures:?}");
}
