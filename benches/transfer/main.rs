//! Benchmarks of fetching. Each figure is compared with a baseline in the same run, in alternating rounds; figures are medians.
//!
//! - `stream`: a large document verified to disk, `p2pctl get` from `peerd`, against `curl` taking the same file unverified from nginx,
//!   against `dd` writing it synced, and against a tonic stream of the same bytes that are neither written nor verified. RFC 48 as a whole
//!   process, `p2pctl get-rfc 48` beside running servers, against `curl` of the same file. Memory of both sides.
//! - `tls`: the same document with certificates, against without; RFC 48 as a whole process; handshakes a second; whispers and KeepAlives.
//! - `holders`: two holders with a limited rate against one of them, and a slow and a fast one against the fast one alone.
//! - `path`: a document over a relay that delays each direction, against `curl` from nginx over the same relay.
//! - `mirror`: many small files into an empty folder, against an rsync daemon.
//!
//! `cargo build --release && cargo bench --bench transfer -- [--json] [--only PART] [--mib 2048] [--runs 5]`. The programs are those of
//! `target/release`. `P2PDI_RFC_DIR` names a folder of RFCs for `mirror`.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_precision_loss,
    missing_docs,
    reason = "a program for developers"
)]

#[path = "../../tests/support/certificates.rs"]
mod certificates;
mod figure;
mod holders;
mod mirror;
mod path;
mod programs;
mod raw;
#[path = "../swarm/relay.rs"]
mod relay;
mod stream;
mod tls;

use std::env;

fn main() {
    let args: Vec<_> = env::args().collect();
    let after = |flag: &str| args.iter().position(|arg| arg == flag).and_then(|at| args.get(at + 1)).map(String::as_str);
    let number = |flag: &str| after(flag).and_then(|value| value.parse::<u64>().ok());
    // The servers that are this program, too.
    if let Some(bytes) = number("--serve-raw") {
        return raw::serve(bytes);
    }
    if let Some((to, delay)) = after("--serve-relay").zip(after("--delay-ms")) {
        return relay::run("127.0.0.1:0".parse().unwrap(), Some(to.parse().unwrap()), relay::delay(delay), path::RELAY_BYTES);
    }
    let json = args.iter().any(|arg| arg == "--json");
    let runs = number("--runs").unwrap_or(5);
    let size = number("--mib").unwrap_or(2048) << 20;
    let only = after("--only");

    let mut figures = Vec::new();
    for part in ["stream", "tls", "holders", "path", "mirror"].into_iter().filter(|part| only.is_none_or(|only| only == *part)) {
        let scratch = tempfile::tempdir().unwrap();
        figures.extend(match part {
            "stream" => stream::run(scratch.path(), size, runs),
            "tls" => tls::run(scratch.path(), size, runs),
            "holders" => holders::run(scratch.path(), runs),
            "path" => path::run(scratch.path(), runs),
            _ => mirror::run(scratch.path(), runs),
        });
    }
    if json {
        let rows: Vec<_> = figures.iter().map(figure::Figure::json).collect();
        println!("{}", serde_json::json!({ "bytes": size, "runs": runs, "figures": rows }));
    } else {
        figures.iter().for_each(|figure| println!("{}", figure.line()));
    }
}
