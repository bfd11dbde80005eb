//! A lab of network namespaces in which one seed and some leechers exchange one document: ours, and libtorrent as the baseline.
//!
//! Each machine has a link to one bridge, limited in both directions. The bound for a document of F bytes and N leechers is
//! max(F / us, F / dmin, N·F / (us + Σ ui)): `us` is the seed's uplink, `dmin` the slowest downlink, `ui` the uplink of leecher i
//! (Kumar and Ross, "Peer-Assisted File Distribution: The Minimum Distribution Time", 2006). Headers are part of what a link carries and
//! not of F: they alone cost 4.6 %.
//!
//! `cargo build --release && cargo bench --bench swarm -- [--scenario NAME|all] [--peers 8] [--size 64MiB] [--rate 50mbit]
//! [--seed-rate R] [--slow-rate R] [--every 1s] [--kill-third] [--delay 40ms] [--liar] [--with get|seed|daemon]
//! [--only ours|libtorrent] [--runs 1] [--timeline] [--logs DIR] [--json]`
//!
//! It needs root, `ip`, `tc` with tbf, for a delay also `nft`, and `python3-libtorrent` for the baseline.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    missing_docs,
    reason = "a program for developers"
)]

mod janitor;
mod lab;
mod liar;
mod libtorrent;
mod links;
mod ours;
mod programs;
mod race;
mod relay;
mod report;
mod scenario;

use janitor::Janitor;
use scenario::{Options, Scenario};
use std::{env, path::Path};

fn main() {
    let args: Vec<_> = env::args().skip(1).filter(|arg| arg != "--bench").collect();
    // The processes of the lab that are this program, too.
    match args.iter().map(String::as_str).collect::<Vec<_>>().as_slice() {
        ["janitor", prefix, folder] => return janitor::run(prefix, Path::new(folder)),
        ["relay", listen, delay_ms, window_bytes] => {
            return relay::run(listen.parse().unwrap(), None, relay::delay(delay_ms), window_bytes.parse().unwrap());
        }
        ["liar", file, listen, registry] => return liar::run(Path::new(file), listen.parse().unwrap(), registry),
        _ => {}
    }
    let options = Options::parse(&args).unwrap_or_else(|problem| panic!("{problem}"));
    let folder = tempfile::tempdir().unwrap();
    let janitor = Janitor::start(folder.path());
    for scenario in &options.scenarios {
        run(scenario, &options, folder.path(), &janitor);
    }
}

/// Both systems in turn, each in a lab of its own.
fn run(scenario: &Scenario, options: &Options, folder: &Path, janitor: &Janitor) {
    let content = folder.join("content.bin");
    programs::write_noise(&content, scenario.size);
    if !options.json {
        println!("\n{}", report::heading(scenario));
    }
    for round in 0..options.runs {
        for system in ["libtorrent", "ours"].into_iter().filter(|name| options.only.as_ref().is_none_or(|only| only == name)) {
            // A holder that lies speaks our protocol only.
            if system == "libtorrent" && scenario.liar {
                continue;
            }
            let place = folder.join(format!("{system}-{round}"));
            std::fs::create_dir(&place).unwrap();
            let outcome = match system {
                "ours" => Some(race::run(scenario, janitor, &content, |lab| ours::Ours::start(lab, scenario, &content, &place))),
                _ => libtorrent::available().then(|| {
                    race::run(scenario, janitor, &content, |lab| libtorrent::Libtorrent::start(lab, scenario, &content, &place))
                }),
            };
            match outcome {
                Some(outcome) => report::print(system, scenario, &outcome, options),
                None => eprintln!("libtorrent for Python is not installed: its figures are left out"),
            }
            if let Some(logs) = &options.logs {
                programs::keep_logs(&place, &logs.join(format!("{}-{system}-{round}", scenario.name)));
            }
            std::fs::remove_dir_all(place).unwrap();
        }
    }
}
