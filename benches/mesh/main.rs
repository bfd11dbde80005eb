//! Benchmarks of messages. Each figure is compared with a baseline in the same run, in alternating rounds; figures are medians.
//!
//! - A whisper, to a peer that is linked and to one that only a third peer can reach, against a NATS request and its reply.
//! - Broadcasts among 50 peers, against NATS publishing to as many subscribers.
//! - An idle peer with a full active view, against an idle nats-server.
//! - One inbox with 1,000 subscriptions, against NATS with as many.
//!
//! `cargo build --release && cargo bench --bench mesh -- [--json] [--rounds 7] [PART…]`, parts: idle, whisper, broadcast, inbox. The
//! programs are those of `target/release`.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr,
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "a program for developers; figures are small"
)]

mod broadcast;
mod crowd;
mod figure;
mod idle;
mod inbox;
mod nats;
mod programs;
mod tally;
mod whisper;

use figure::Figure;
use nats::NatsServer;
use serde_json::Value;
use std::process::ExitCode;

/// Enough that one disturbed round does not move the median.
const ROUNDS: usize = 7;
const PARTS: [&str; 4] = ["idle", "whisper", "broadcast", "inbox"];

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).filter(|argument| argument != "--bench").collect();
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
    if let [flag, url] = &arguments[..]
        && flag == nats::RESPOND
    {
        runtime.block_on(nats::respond(url));
        return ExitCode::SUCCESS;
    }
    let json = arguments.iter().any(|argument| argument == "--json");
    let at = arguments.iter().position(|argument| argument == "--rounds");
    let rounds = at.and_then(|at| arguments.get(at + 1)).and_then(|rounds| rounds.parse().ok()).unwrap_or(ROUNDS);
    let parts: Vec<&str> = PARTS.into_iter().filter(|part| arguments.iter().any(|argument| argument == part)).collect();
    let wanted = |part: &str| parts.is_empty() || parts.contains(&part);
    // One server for all figures; its start is not measured.
    let nats = match NatsServer::start() {
        Ok(nats) => nats,
        Err(why) => {
            eprintln!("{why}; every figure is compared with NATS. Install it with `apt-get install nats-server`");
            return ExitCode::FAILURE;
        }
    };
    let load_before = load();
    let figures = runtime.block_on(async {
        let mut figures = Vec::new();
        // First, while the baseline's server is still unused.
        if wanted("idle") {
            figures.extend(idle::measure(&nats).await);
        }
        if wanted("whisper") {
            figures.extend(whisper::measure(&nats, rounds).await);
        }
        if wanted("broadcast") {
            figures.extend(broadcast::measure(&nats, rounds).await);
        }
        if wanted("inbox") {
            figures.extend(inbox::measure(&nats, rounds).await);
        }
        figures
    });
    if json {
        println!("{:#}", Value::from(figures.iter().map(Figure::json).collect::<Vec<_>>()));
    } else {
        println!("load of the machine: {load_before:.1} before, {:.1} after; {}", load(), nats.version());
        Figure::print(&figures);
    }
    ExitCode::SUCCESS
}

/// Linux's load average over one minute.
fn load() -> f64 {
    let text = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    text.split_whitespace().next().and_then(|load| load.parse().ok()).unwrap_or(f64::NAN)
}
