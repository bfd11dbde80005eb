//! Benchmarks of fetching. Each figure is compared with a baseline in the same run, in alternating rounds; figures are medians.
//!
//! - A large document verified to disk, `p2pctl get` from `peerd`, against `curl` taking the same file unverified from nginx, and against
//!   a tonic stream of the same bytes that are neither written nor verified.
//! - RFC 48 as a whole process, `p2pctl get-rfc 48` beside running servers, against `curl` of the same file.
//! - Resident memory of the idle servers.
//!
//! `cargo build --release && cargo bench --bench transfer -- [--json] [--mib 2048] [--runs 5]`. The programs are those of `target/release`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a program for developers"
)]

mod programs;
mod raw;

use programs::{Programs, resident_kib};
use std::{
    env,
    fs::{self, File},
    io::{BufWriter, Write as _},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, Instant},
};

const SMALL_RUNS_PER_RUN: usize = 8;

fn main() {
    let args: Vec<_> = env::args().collect();
    let after = |flag: &str| {
        args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1)).and_then(|value| value.parse::<u64>().ok())
    };
    if let Some(bytes) = after("--serve-raw") {
        return raw::serve(bytes);
    }
    let json = args.iter().any(|arg| arg == "--json");
    let size = after("--mib").unwrap_or(2048) << 20;
    let runs = after("--runs").unwrap_or(5);

    let scratch = tempfile::tempdir().unwrap();
    let share = scratch.path().join("share");
    fs::create_dir(&share).unwrap();
    write_noise(&share.join("large.bin"), size);
    fs::copy("testdata/rfc/rfc48.txt", share.join("rfc48.txt")).unwrap();
    let programs = Programs::start(scratch.path(), &share, size);

    let (mut ours, mut curl, mut raw) = (Vec::new(), Vec::new(), Vec::new());
    let (mut small, mut small_curl) = (Vec::new(), Vec::new());
    // Warms the page cache for all sides.
    programs.curl("large.bin");
    for _ in 0..runs {
        curl.extend(programs.curl("large.bin"));
        ours.push(programs.get(&["get", "large.bin"]));
        raw.push(raw::receive(programs.raw, size));
        for _ in 0..SMALL_RUNS_PER_RUN {
            small.push(programs.get(&["get-rfc", "48"]));
            small_curl.extend(programs.curl("rfc48.txt"));
        }
    }
    let figures = [
        ("large document verified to disk, seconds", median(&mut ours), "curl from nginx", median(&mut curl), 1.7),
        (
            "large document verified to disk, seconds",
            median(&mut ours),
            "raw tonic stream, discarded",
            median(&mut raw),
            f64::INFINITY,
        ),
        (
            "get-rfc 48 as a whole process, seconds",
            median(&mut small),
            "curl of the same file",
            median(&mut small_curl),
            f64::INFINITY,
        ),
    ];
    if json {
        let rows: Vec<_> = figures
            .iter()
            .map(|(name, value, yardstick, other, aim)| {
                serde_json::json!({ "name": name, "value": value, "yardstick": yardstick, "yardstick_value": other, "ratio": value / other, "aim_ratio": aim.is_finite().then_some(aim) })
            })
            .collect();
        println!(
            "{}",
            serde_json::json!({ "bytes": size, "runs": runs, "figures": rows, "registry_rss_kib": resident_kib(programs.registry.pid()), "peerd_rss_kib": resident_kib(programs.peer.pid()) })
        );
        return;
    }
    for (name, value, yardstick, other, aim) in figures {
        let aim = if aim.is_finite() { format!(", aim at most {aim}") } else { String::new() };
        println!("{name:42} {value:8.4}   {yardstick:28} {other:8.4}   ratio {:.2}{aim}", value / other);
    }
    println!(
        "resident, after all that: registry {} KiB, peerd {} KiB",
        resident_kib(programs.registry.pid()),
        resident_kib(programs.peer.pid())
    );
}

/// The median; NaN without measurements, as when the baseline's program is not installed.
fn median(values: &mut [Duration]) -> f64 {
    values.sort();
    values.get(values.len() / 2).map_or(f64::NAN, Duration::as_secs_f64)
}

/// Incompressible bytes (xorshift64).
fn write_noise(path: &Path, size: u64) {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path).unwrap());
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for _ in 0..size / 8 {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        out.write_all(&state.to_le_bytes()).unwrap();
    }
    out.into_inner().unwrap().sync_all().unwrap();
}

/// Runs a command that must succeed, and gives its duration.
fn time(command: &mut Command) -> Duration {
    let begun = Instant::now();
    let status = command.stdout(Stdio::null()).status().unwrap();
    let took = begun.elapsed();
    assert!(status.success(), "{command:?}: {status}");
    took
}
