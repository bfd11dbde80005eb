//! Simulated swarms: what the planner reaches, as figures over the bound. The same with a thousand peers: `cargo bench --bench plan`.

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

use swarm_simulator::{
    Peer, SECOND, holder,
    scenario::{self, Figures, RATE, all_know_all, arriving, even_links, killed, peer, settings, swarm},
};

fn show(name: &str, figures: Figures) -> Figures {
    println!("{name:30} {figures:?}");
    figures
}

#[test]
fn eight_leechers_take_hardly_longer_than_the_bound() {
    let (figures, _) = scenario::run(settings(256), &swarm(8), all_know_all(9), 1);
    let figures = show("8 x 256", figures);
    assert!(figures.median <= 1.06 && figures.last <= 1.08 && figures.egress <= 1.08, "{figures:?}");
}

#[test]
fn sixteen_leechers_take_hardly_longer_than_the_bound() {
    let (figures, _) = scenario::run(settings(1_024), &swarm(16), all_know_all(17), 1);
    let figures = show("16 x 1024", figures);
    assert!(figures.median <= 1.05 && figures.last <= 1.06 && figures.egress <= 1.06, "{figures:?}");
}

#[test]
fn a_slow_seed_sends_each_piece_about_once() {
    let mut peers = swarm(8);
    peers[0] = peer(RATE / 4.0, true);
    let (figures, _) = scenario::run(settings(256), &peers, all_know_all(9), 1);
    let figures = show("slow seed", figures);
    assert!(figures.last <= 1.08 && figures.egress <= 1.08, "{figures:?}");
}

#[test]
fn a_slow_leecher_does_not_harm_others() {
    let mut peers = swarm(8);
    peers[5] = peer(RATE / 10.0, false);
    let (figures, network) = scenario::run(settings(256), &peers, all_know_all(9), 1);
    let figures = show("slow leecher", figures);
    let mut others: Vec<_> = (1..9).filter(|index| *index != 5).map(|index| network.nodes[index].done.unwrap()).collect();
    others.sort_unstable();
    let size = network.settings.pieces.size() as f64;
    println!("others {:?}, its own link {:?}", others[6] as f64 / 1e6 / (size / RATE), figures.last / 10.0);
    assert!(figures.median <= 1.15 && others[6] as f64 / 1e6 / (size / RATE) <= 1.2, "{figures:?}");
}

#[test]
fn leechers_that_arrive_each_second_find_something_to_fetch() {
    let peers = arriving(swarm(8), SECOND);
    let (figures, _) = scenario::run(settings(256), &peers, all_know_all(9), 1);
    let figures = show("arrivals", figures);
    assert!(figures.median <= 1.1 && figures.last <= 1.2, "{figures:?}");
}

#[test]
fn those_that_stay_are_hardly_slower_if_a_third_vanishes_half_way() {
    let peers = killed(swarm(9), 3, 5_500_000, 1);
    let (figures, _) = scenario::run(settings(256), &peers, all_know_all(10), 1);
    let figures = show("killed", figures);
    assert!(figures.median <= 1.12 && figures.last <= 1.18 && figures.egress <= 1.18, "{figures:?}");
}

#[test]
fn delay_costs_little() {
    let mut settings = settings(256);
    settings.delay = 40_000;
    let (figures, _) = scenario::run(settings, &swarm(8), all_know_all(9), 1);
    let figures = show("40 ms", figures);
    assert!(figures.median <= 1.12 && figures.last <= 1.15 && figures.egress <= 1.15, "{figures:?}");
}

#[test]
fn a_liar_is_dropped_by_all() {
    let mut peers = swarm(8);
    peers[3].lies = 1.0;
    let (figures, network) = scenario::run(settings(256), &peers, all_know_all(9), 1);
    show("liar", figures);
    for index in [1, 2, 4, 5, 6, 7, 8] {
        assert!(network.nodes[index].done.is_some());
        assert!(network.nodes[index].dropped.iter().all(|dropped| *dropped == holder(3)));
    }
    assert!(network.nodes.iter().filter(|node| node.dropped.contains(&holder(3))).count() >= 6);
}

/// Seconds that one leecher with a fast link needs from holders that are whole.
fn fetch_from(rates: &[f64], pieces: u64, in_swarm: bool) -> f64 {
    let mut peers: Vec<_> = rates.iter().map(|rate| peer(*rate, true)).collect();
    peers.iter_mut().for_each(|peer| peer.in_swarm = in_swarm);
    peers.push(peer(1e12, false));
    let links = (0..peers.len()).map(|index| if index == rates.len() { (0..rates.len()).collect() } else { vec![rates.len()] });
    let mut settings = settings(pieces);
    settings.step = 1_000;
    let (_, network) = scenario::run(settings, &peers, links.collect(), 1);
    network.nodes[rates.len()].done.unwrap() as f64 / 1e6
}

#[test]
fn two_equal_holders_are_nearly_twice_as_fast_as_one() {
    for in_swarm in [false, true] {
        let (one, two) = (fetch_from(&[150e6], 2_048, in_swarm), fetch_from(&[150e6, 150e6], 2_048, in_swarm));
        println!("one {one}, two {two}: {}", one / two);
        assert!(one / two >= 1.9, "{one} {two}");
    }
}

#[test]
fn a_slow_holder_does_not_hold_up_a_fast_one() {
    for in_swarm in [false, true] {
        for slow in [0.1e6, 1e6, 10e6] {
            let (fast, both) = (fetch_from(&[100e6], 1_024, in_swarm), fetch_from(&[slow, 100e6], 1_024, in_swarm));
            println!("slow {slow}: fast alone {fast}, both {both}");
            assert!(both <= 1.1 * fast, "{slow}: {fast} {both}");
        }
    }
}

/// Bytes from each of the holders, and seconds, with a limited link of the fetching peer.
fn fetch_with(peers: &[Peer], down: f64, pieces: u64) -> (Vec<u64>, f64) {
    let mut all: Vec<_> = peers.to_vec();
    all.push(peer(down, false));
    let own = peers.len();
    let links = (0..all.len()).map(|index| if index == own { (0..own).collect() } else { vec![own] });
    let (_, network) = scenario::run(settings(pieces), &all, links.collect(), 1);
    let node = &network.nodes[own];
    ((0..own).map(|index| node.received_from(index)).collect(), node.done.unwrap() as f64 / 1e6)
}

#[test]
fn most_is_fetched_from_the_own_zone_and_never_all() {
    let peers: Vec<_> = (0..8).map(|index| Peer { zone: (index % 2) as u8, ..peer(100e6, true) }).collect();
    let (from, seconds) = fetch_with(&peers, 50e6, 1_024);
    let (near, far): (u64, u64) = (from.iter().step_by(2).sum(), from.iter().skip(1).step_by(2).sum());
    println!("near {near}, far {far}, {seconds} s");
    assert!(far > 0 && near as f64 >= 0.7 * (near + far) as f64, "{from:?}");
    assert!(seconds <= 1.1 * 1_024.0 * 262_144.0 / 50e6);
}

#[test]
fn fast_holders_of_another_zone_are_not_held_back_for_slow_near_ones() {
    let peers = [peer(1e6, true), Peer { zone: 1, ..peer(50e6, true) }];
    let (from, seconds) = fetch_with(&peers, 1e9, 1_024);
    println!("{from:?} {seconds}");
    assert!(seconds <= 1.1 * 1_024.0 * 262_144.0 / 51e6, "{seconds}");
}

#[test]
fn a_holder_that_falls_silent_costs_about_a_second() {
    let peers = [Peer { stalls: Some(2 * SECOND), ..peer(10e6, true) }, peer(10e6, true)];
    let (from, seconds) = fetch_with(&peers, 1e9, 256);
    println!("{from:?} {seconds}");
    assert!(seconds <= 1.1 * (256.0 * 262_144.0 - 20e6) / 10e6, "{seconds}");
}

#[test]
fn many_windows_fill_a_long_path() {
    let mut long = settings(1_024);
    (long.delay, long.step) = (75_000, 1_000);
    let peers = [Peer { in_swarm: false, ..peer(450e6, true) }, peer(1e12, false)];
    let (_, network) = scenario::run(long, &peers, vec![vec![1], vec![0]], 1);
    let seconds = network.nodes[1].done.unwrap() as f64 / 1e6;
    println!("long path: {seconds} s, {} MB/s; sent {}", 268.4 / seconds, network.nodes[0].sent);
    assert!(network.nodes[0].sent <= 1_024 * 262_144, "nothing is sent twice");
    assert!(seconds <= 1.6, "{seconds}");
}

#[test]
fn one_holder_is_asked_for_everything_at_once() {
    let peers = [Peer { in_swarm: false, ..peer(100e6, true) }, peer(1e12, false)];
    let (_, network) = scenario::run(settings(1_024), &peers, vec![vec![1], vec![0]], 1);
    assert!(network.nodes[1].in_flight_max <= 2, "one run, and one to measure the delay");
    assert_eq!(network.nodes[0].sent, 1_024 * 262_144);
}

#[test]
fn sixty_four_peers_with_fourteen_neighbours() {
    let mut settings = settings(512);
    settings.step = 10_000;
    let (figures, _) = scenario::run(settings, &swarm(64), even_links(65, 14, 1), 1);
    let figures = show("64 x 512, 14 neighbours", figures);
    assert!(figures.median <= 1.12 && figures.last <= 1.18 && figures.egress <= 1.18, "{figures:?}");
}
