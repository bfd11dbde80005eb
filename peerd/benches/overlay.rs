//! The overlay compared with iroh-gossip in one run: the same simulated network, the same seed, the same failures.
//!
//! `cargo bench --bench overlay -- [--peers 10000] [--seed 1] [--latency-ms 10..100] [--only ours|iroh|iroh-wide] [--json]`
//!
//! `iroh` has its default configuration (5 links a peer); `iroh-wide` is the same state machine with views as large as ours, to show
//! that the differences do not come from more links alone. The columns are explained in `tests/simulator/scenario.rs`, the fairness of
//! the comparison in `benches/README.md`.

#![allow(
    clippy::expect_used,
    clippy::panic,
    clippy::unwrap_used,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    clippy::print_stderr,
    missing_docs,
    unreachable_pub,
    reason = "a test: it may fail loudly, and its sizes are small"
)]

#[path = "../tests/simulator/mod.rs"]
mod simulator;

use std::{ops::Range, process::ExitCode, time::Instant};

use simulator::{
    LATENCY, Micros, Network, Node, SECOND,
    iroh::{Iroh, IrohWide},
    ours::Ours,
    scenario::{self, Figures, Recovery},
};

/// Peers started each second.
const START_RATE: u64 = 500;
/// Seconds between the last start and the first measurement.
const SETTLE_S: u64 = 90;
/// Broadcasts before the first that counts.
const WARM_UP: usize = 10;
/// Seconds of broadcasts after a failure.
const WATCH_S: u64 = 45;
/// Share of messages lost in the scenario with loss.
const LOSS: f64 = 0.01;

struct Arguments {
    peers: usize,
    seed: u64,
    latencies: Range<Micros>,
    only: Option<String>,
    json: bool,
}

fn arguments() -> Option<Arguments> {
    let mut parsed = Arguments { peers: 10_000, seed: 1, latencies: LATENCY, only: None, json: false };
    let mut words = std::env::args().skip(1);
    while let Some(word) = words.next() {
        match word.as_str() {
            "--bench" => {} // from cargo
            "--json" => parsed.json = true,
            "--peers" => parsed.peers = words.next()?.parse().ok()?,
            "--seed" => parsed.seed = words.next()?.parse().ok()?,
            "--latency-ms" => {
                let (low, high) = words.next()?.split_once("..").map(|(low, high)| (low.to_owned(), high.to_owned()))?;
                let micros = |ms: String| Some(ms.parse::<Micros>().ok()? * 1_000);
                parsed.latencies = micros(low)?..micros(high)?;
                if parsed.latencies.is_empty() {
                    return None;
                }
            }
            "--only" => parsed.only = Some(words.next()?),
            _ => return None,
        }
    }
    Some(parsed)
}

/// The figures of one scenario.
struct Row {
    subject: &'static str,
    scenario: String,
    figures: Vec<(&'static str, String)>,
}

fn series(figures: &Figures) -> Vec<(&'static str, String)> {
    vec![
        ("broadcasts", figures.broadcasts.to_string()),
        ("reliability", format!("{:.5}", figures.reliability)),
        ("worst", format!("{:.5}", figures.worst_reliability)),
        ("rmr", format!("{:.3}", figures.rmr)),
        ("last_hop_mean", format!("{:.1}", figures.last_hop_mean)),
        ("last_hop_max", figures.last_hop_max.to_string()),
        ("last_ms_mean", format!("{:.0}", figures.last_ms_mean)),
        ("shown_twice", figures.duplicates.to_string()),
        ("controls_per_peer_s", format!("{:.2}", figures.controls_per_peer_second)),
        ("links_per_peer", format!("{:.1}", figures.mean_degree)),
        ("registry_asks", figures.asks.to_string()),
    ]
}

/// Messages and bytes on the wire; needs `encode`.
fn traffic(figures: &Figures) -> Vec<(&'static str, String)> {
    vec![
        ("controls_per_peer_s", format!("{:.2}", figures.controls_per_peer_second)),
        ("bytes_per_peer_s", format!("{:.0}", figures.bytes_per_peer_second)),
    ]
}

fn recovery(recovery: &Recovery) -> Vec<(&'static str, String)> {
    let recovered = recovery.recovered_after_s;
    vec![
        ("survivors", recovery.survivors.to_string()),
        ("recovered_after_s", recovered.map_or("null".to_owned(), |s| s.to_string())),
        ("first_10s", format!("{:.4}", recovery.first_10s)),
        ("10_to_30s", format!("{:.4}", recovery.to_30s)),
        ("after_30s", format!("{:.4}", recovery.later)),
        ("partitions", recovery.partitions.to_string()),
        ("rmr", format!("{:.3}", recovery.figures.rmr)),
        ("last_hop_mean", format!("{:.1}", recovery.figures.last_hop_mean)),
        ("last_hop_max", recovery.figures.last_hop_max.to_string()),
        ("controls_per_peer_s", format!("{:.2}", recovery.figures.controls_per_peer_second)),
        ("registry_asks", recovery.figures.asks.to_string()),
    ]
}

fn measure<N: Node>(subject: &'static str, arguments: &Arguments, unplug: bool) -> Vec<Row> {
    let mut rows = Vec::new();
    let mut add = |scenario: String, figures| {
        let row = Row { subject, scenario, figures };
        eprintln!("{}", text(&row));
        rows.push(row);
    };
    let build = || -> Network<N> {
        scenario::build_with(arguments.seed, arguments.peers, START_RATE, SETTLE_S, arguments.latencies.clone())
    };

    let mut network = build();
    network.encode = true;
    let idle = scenario::many_senders(&mut network, 0, SECOND);
    add("idle".to_owned(), traffic(&idle));
    scenario::many_senders(&mut network, WARM_UP, 2 * SECOND);
    let stable = scenario::many_senders(&mut network, 60, 2 * SECOND);
    let mut figures = series(&stable);
    figures.extend(traffic(&stable).split_off(1));
    add("stable, a random sender every 2 s".to_owned(), figures);
    network.encode = false;
    let busy = scenario::many_senders(&mut network, 300, SECOND / 50);
    add("stable, 50 random senders a second".to_owned(), series(&busy));
    let lossy = scenario::lossy(&mut network, 60, SECOND, LOSS);
    add(format!("{:.0} % of messages lost", LOSS * 100.0), series(&lossy));
    let churn = scenario::churn(&mut network, 30, 0.01);
    add("churn, 1 % replaced each second".to_owned(), series(&churn));
    for share in [0.5, 0.8, 0.95] {
        let failed = scenario::mass_failure(&mut build(), share, WATCH_S, false);
        add(format!("{:.0} % killed", share * 100.0), recovery(&failed));
    }
    if unplug {
        for share in [0.8, 0.95] {
            let failed = scenario::mass_failure(&mut build(), share, WATCH_S, true);
            add(format!("{:.0} % unplugged", share * 100.0), recovery(&failed));
        }
    }
    rows
}

fn text(row: &Row) -> String {
    let figures: Vec<String> = row.figures.iter().map(|(name, value)| format!("{name} {value}")).collect();
    format!("{:9} {:36} {}", row.subject, row.scenario, figures.join("  "))
}

fn json(row: &Row) -> String {
    let figures: String = row.figures.iter().map(|(name, value)| format!(",\"{name}\":{value}")).collect();
    format!("{{\"subject\":\"{}\",\"scenario\":\"{}\"{figures}}}", row.subject, row.scenario)
}

fn main() -> ExitCode {
    let Some(arguments) = arguments() else {
        eprintln!("usage: overlay [--peers N] [--seed N] [--latency-ms LOW..HIGH] [--only ours|iroh|iroh-wide] [--json]");
        return ExitCode::from(2);
    };
    let started = Instant::now();
    let wanted = |name| arguments.only.as_deref().is_none_or(|only| only == name);
    let mut rows = Vec::new();
    if wanted("ours") {
        rows.extend(measure::<Ours>("ours", &arguments, true));
    }
    if wanted("iroh") {
        // Without unplugged peers: iroh-gossip leaves their detection to QUIC.
        rows.extend(measure::<Iroh>("iroh", &arguments, false));
    }
    if wanted("iroh-wide") {
        rows.extend(measure::<IrohWide>("iroh-wide", &arguments, false));
    }
    for row in &rows {
        println!("{}", if arguments.json { json(row) } else { text(row) });
    }
    eprintln!("{} peers, seed {}, {:.0?}", arguments.peers, arguments.seed, started.elapsed());
    ExitCode::SUCCESS
}
