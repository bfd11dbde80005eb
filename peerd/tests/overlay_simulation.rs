//! Networks of a thousand peers, simulated with a seed: what the overlay promises, as figures.
//!
//! The same at ten thousand, beside iroh-gossip: `cargo bench --bench overlay`.

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

/// Everybody's links, views and trees are within their limits and make sense.
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

/// One peer is the root, and every other one's parents lead to it.
fn check_tree(network: &Network<Ours>) {
    let tree = |index: Index| {
        let node = network.node(index).expect("a parent that lives");
        node.overlay.plumtree().tree()
    };
    let mut roots = 0;
    for index in network.alive() {
        let (mut at, mut steps) = (index, 0);
        while let Some(parent) = tree(at).parent() {
            at = ours::index(parent);
            steps += 1;
            assert!(steps <= plumtree::MAX_DEPTH, "{index} goes round in circles");
        }
        assert!(tree(at).is_root(), "{index} leads to {at} and no further");
        roots += usize::from(at == index);
    }
    assert_eq!(roots, 1);
}

#[test]
fn many_senders_reach_everyone_at_the_cost_of_one_tree() {
    let mut network = network(1, PEERS);
    let figures = scenario::many_senders(&mut network, 40, SECOND);
    assert_eq!(figures.worst_reliability, 1.0, "{figures:?}");
    assert!(figures.rmr <= 0.05, "{figures:?}");
    assert!(figures.last_hop_max <= 15, "{figures:?}");
    assert_eq!(figures.again, 0, "{figures:?}");
    let burst = scenario::many_senders(&mut network, 200, SECOND / 50);
    assert_eq!(burst.worst_reliability, 1.0, "{burst:?}");
    assert!(burst.rmr <= 0.1, "{burst:?}");
    check(&network);
    check_tree(&network);
}

#[test]
fn we_need_fewer_messages_and_hops_than_iroh_gossip() {
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
fn after_half_of_the_peers_die_all_others_are_reached_within_ten_seconds() {
    recovers(3, 0.5, false, 10);
}

#[test]
fn after_four_fifths_die_all_others_are_reached_within_ten_seconds() {
    recovers(4, 0.8, false, 10);
}

#[test]
fn after_nineteen_of_twenty_die_all_others_are_reached_within_thirty_seconds() {
    recovers(5, 0.95, false, 30);
}

#[test]
fn after_four_fifths_lose_power_all_others_are_reached_within_thirty_seconds() {
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
fn peers_that_come_and_go_do_not_keep_the_others_from_hearing() {
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
fn lost_repeated_and_reordered_messages_are_made_up_for() {
    let mut network = network(10, 200);
    network.encode = true;
    network.faults = Faults { loss: 0.02, duplicates: 0.02, jitter: SECOND / 5 };
    let figures = scenario::many_senders(&mut network, 40, SECOND);
    assert!(figures.reliability > 0.9999, "{figures:?}");
    assert_eq!(figures.again, 0, "{figures:?}");
    check(&network);
}

#[test]
fn a_link_that_stalls_without_closing_is_given_up_in_seconds() {
    let mut network = network(11, 100);
    let stalled = network.any();
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
fn two_halves_become_one_again_and_hear_what_was_said() {
    let mut network = network(12, 200);
    heals(&mut network, 100);
}

#[test]
fn a_small_island_is_found_and_hears_what_was_said() {
    let mut network = network(13, 200);
    heals(&mut network, 12);
}

/// Cuts off the first `cut` peers for half a minute; within 15 s of the end all are one and know all.
fn heals(network: &mut Network<Ours>, cut: Index) {
    for index in 0..cut {
        network.put_on_side(index, 1);
    }
    network.run(10 * SECOND);
    let mut said = Vec::new();
    for _ in 0..20 {
        said.push(network.broadcast(0));
        said.push(network.broadcast(cut));
        network.run(SECOND);
    }
    let (inside, outside): (Vec<Index>, Vec<Index>) = network.alive().into_iter().partition(|i| *i < cut);
    assert_eq!(network.reliability(said[0], &inside, network.now), 1.0);
    assert_eq!(network.reliability(said[0], &outside, network.now), 0.0);
    for index in 0..cut {
        network.put_on_side(index, 0);
    }
    network.run(15 * SECOND);
    assert_eq!(network.components().len(), 1);
    let everyone = network.alive();
    for number in said {
        assert_eq!(network.reliability(number, &everyone, network.now), 1.0);
        assert_eq!(network.fates[number].again, 0);
    }
}

#[test]
fn a_newcomer_hears_what_is_said_from_then_on_and_nothing_older() {
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
fn a_peer_that_says_goodbye_is_nobodys_neighbour_at_once() {
    let mut network = network(15, 100);
    let gone = network.any();
    network.leave(gone);
    network.run(SECOND / 2);
    for index in network.alive() {
        assert!(!network.node(index).expect("alive").neighbours().contains(&gone));
    }
}

#[test]
fn a_restarted_peer_is_heard_although_it_counts_from_the_start() {
    let mut network = network(16, 100);
    for _ in 0..5 {
        network.broadcast(7);
    }
    network.run(2 * SECOND);
    network.kill(7);
    network.start(7);
    network.run(3 * SECOND);
    let said = network.broadcast(7);
    network.run(DEADLINE);
    let everyone = network.alive();
    assert_eq!(network.reliability(said, &everyone, network.now), 1.0);
}

#[test]
fn a_lone_peer_stops_asking_for_help_once_it_has_enough_links() {
    let mut network = network(17, 100);
    network.reset();
    network.run(60 * SECOND);
    // Only the root looks for other islands now.
    assert!(network.traffic.asks <= 40, "{:?}", network.traffic);
}

#[test]
fn a_peer_that_floods_is_slowed_down_and_the_others_are_served() {
    let mut network = network(18, 50);
    let flooder = network.any();
    let victim = network.node(flooder).expect("alive").neighbours()[0];
    let prune = Message::Plumtree(plumtree::Message::Prune);
    for _ in 0..30_000 {
        network.inject(flooder, victim, prune.clone());
    }
    let said = network.broadcast(victim);
    network.run(DEADLINE);
    assert!(network.traffic.pauses > 0);
    let throttled = network.node(victim).expect("alive").overlay.throttled();
    assert_eq!(throttled, 0, "who pauses loses nothing");
    let everyone = network.alive();
    assert_eq!(network.reliability(said, &everyone, network.now), 1.0);
}

#[test]
fn a_peer_that_talks_nonsense_is_named_and_does_no_harm() {
    let mut network = network(19, 50);
    let liar = network.any();
    let victim = network.node(liar).expect("alive").neighbours()[0];
    let id = |sequence| MessageId { origin: PeerId::from_u128(u128::MAX), incarnation: 1, sequence };
    let advert = |sequence| Advert { id: id(sequence), age: std::time::Duration::ZERO };
    let too_many = (0..=MAX_IDS as u64).map(advert).collect();
    let nonsense = [
        plumtree::Message::Advertise(too_many),
        plumtree::Message::Gossip(plumtree::Gossip {
            id: id(u64::MAX),
            hops: u32::MAX,
            age: std::time::Duration::MAX,
            payload: Bytes::from(vec![0; plumtree::MAX_PAYLOAD + 1]),
        }),
    ];
    for message in nonsense {
        network.inject(liar, victim, Message::Plumtree(message));
    }
    // Ids that nobody can give.
    for sequence in 0..2 {
        let adverts = (0..MAX_IDS as u64).map(|i| advert(sequence * 1_000 + i)).collect();
        network.inject(liar, victim, Message::Plumtree(plumtree::Message::Advertise(adverts)));
    }
    network.run(30 * SECOND);
    assert!(network.traffic.misbehaved >= 3, "{:?}", network.traffic);
    assert!(!network.node(victim).expect("alive").neighbours().contains(&liar), "who breaks promises is no neighbour any more");
    let (_, _, missing) = network.node(victim).expect("alive").overlay.plumtree().sizes();
    assert_eq!(missing, 0, "what was never delivered is forgotten");
    let figures = scenario::many_senders(&mut network, 5, SECOND);
    assert_eq!(figures.worst_reliability, 1.0, "{figures:?}");
}
