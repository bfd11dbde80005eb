//! Simulated swarms of any size: times over the bound, as in `tests/plan_simulation.rs`.
//!
//! `cargo bench --bench plan -- [--peers 1000] [--pieces 1024] [--neighbours 20] [--seed 1] [--delay-ms 1] [--step-ms 10]
//! [--offers none|seed|all] [--uneven] [--slots 16]`
//!
//! `--slots`: peers that one holder sends to at the same time. `--uneven`: some know half as many neighbours as others.
//!
//! `--offers`: who says what it would like to be asked for: nobody, peers that are whole (as the product does), or all.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    missing_docs,
    unreachable_pub,
    dead_code,
    reason = "a benchmark: it may fail loudly, and its sizes are small"
)]

#[path = "../tests/swarm_simulator/mod.rs"]
mod swarm_simulator;

use std::time::Instant;
use swarm_simulator::scenario::{self, all_know_all, even_links, random_links, settings, swarm};

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let value = |name: &str| arguments.iter().position(|argument| argument == name).and_then(|place| arguments.get(place + 1));
    let number = |name: &str, default: u64| value(name).map_or(default, |value| value.parse().expect("a number"));
    let (peers, seed) = (number("--peers", 1_000) as usize, number("--seed", 1));
    let mut settings = settings(number("--pieces", 1_024));
    settings.delay = number("--delay-ms", 1) * 1_000;
    settings.step = number("--step-ms", 10) * 1_000;
    let offers = value("--offers").map_or("seed", String::as_str);
    (settings.seeds_offer, settings.all_offer) = (offers != "none", offers == "all");
    settings.slots = number("--slots", u64::MAX) as usize;
    let neighbours = number("--neighbours", 20) as usize;
    let links = if arguments.iter().any(|argument| argument == "--uneven") { random_links } else { even_links };
    let links = if neighbours >= peers { all_know_all(peers + 1) } else { links(peers + 1, neighbours, seed) };
    let begun = Instant::now();
    let (figures, network) = scenario::run(settings, &swarm(peers), links, seed);
    println!(
        "{peers} peers, {} pieces, {neighbours} neighbours, offers by {offers}: median {:.3}, last {:.3}, egress {:.3}, wasted {:.3} each; {:.1} s, simulated in {:.1} s",
        settings.pieces.count(),
        figures.median,
        figures.last,
        figures.egress,
        figures.wasted / peers as f64,
        network.now as f64 / 1e6,
        begun.elapsed().as_secs_f64(),
    );
}
