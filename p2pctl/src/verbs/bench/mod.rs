//! bench tasks: the two tasks of the original study project.
//!
//! Task 1: one source with 50 RFCs; 19 clients fetch all of them. Task 2: 20 peers with 10 RFCs each; everyone fetches everything. Every
//! peer is a real one with a port, a state folder and a registration; every client queries the registry for peers, asks them what they
//! hold, and fetches each document verified and synced to its own folder. Afterwards every file is read again and compared.

mod client;
mod texts;

use super::cluster::Cluster;
use crate::{
    args::Tasks,
    failure::{Failure, Outcome},
    printer::{Printer, bytes, span},
};
use client::Tally;
use serde_json::json;
use std::{
    fs,
    path::Path,
    time::{Duration, Instant},
};
use texts::Text;
use tokio::task::JoinSet;

/// Peers of either task, the source of task 1 included.
const PEERS: usize = 20;
/// RFCs of the one source of task 1.
const TASK_1_RFCS: usize = 50;
/// RFCs of each peer of task 2.
const TASK_2_RFCS: usize = 10;

/// Result of one run of one task.
struct Run {
    elapsed: Duration,
    tally: Tally,
}

pub(super) async fn tasks(args: Tasks, printer: Printer) -> Outcome {
    let texts = match &args.rfcs {
        Some(folder) => texts::read(folder, PEERS * TASK_2_RFCS)?,
        None => texts::make(PEERS * TASK_2_RFCS),
    };
    let source = args
        .rfcs
        .as_ref()
        .map_or_else(|| "generated texts of the sizes of RFCs".to_owned(), |folder| format!("RFCs of {}", folder.display()));
    printer.note(&format!("{source}; {} runs of each task, medians", args.runs));
    let tasks: [(&str, &str, Vec<&[Text]>); 2] = [
        ("task 1", "1 source with 50 RFCs, 19 clients fetch all", vec![&texts[..TASK_1_RFCS]]),
        ("task 2", "20 peers with 10 RFCs each, everyone fetches everything", texts.chunks(TASK_2_RFCS).collect()),
    ];
    // Kept until the end: some file systems (ext4) create files slowly for seconds after many were deleted.
    let folder = tempfile::tempdir()?;
    for (name, what, shares) in tasks {
        let mut runs = Vec::new();
        for index in 0..args.runs {
            runs.push(run(&folder.path().join(format!("{name} {index}")), &shares).await?);
        }
        runs.sort_by_key(|run| run.elapsed);
        let median = &runs[runs.len() / 2];
        let seconds = median.elapsed.as_secs_f64();
        #[expect(clippy::cast_precision_loss, reason = "a few thousand calls")]
        let calls_per_second = median.tally.calls as f64 / seconds;
        if printer.is_json() {
            printer.json(&json!({
                "task": name,
                "what": what,
                "seconds": seconds,
                "all_seconds": runs.iter().map(|run| run.elapsed.as_secs_f64()).collect::<Vec<_>>(),
                "files": median.tally.files,
                "bytes": median.tally.bytes,
                "calls": median.tally.calls,
                "calls_per_second": calls_per_second,
                "verified": true,
            }))?;
        } else {
            printer.text(&format!(
                "{name}: {what}\n  {} for {} files, {}, all verified; {calls_per_second:.0} calls per second",
                span(median.elapsed),
                median.tally.files,
                bytes(median.tally.bytes)
            ))?;
        }
    }
    Ok(())
}

/// Starts the peers, lets each fetch what it lacks, and checks every file.
async fn run(folder: &Path, shares: &[&[Text]]) -> Outcome<Run> {
    let mut cluster = Cluster::start(folder, 0, None).await?;
    for index in 0..PEERS {
        let share = folder.join("share").join(index.to_string());
        fs::create_dir_all(&share)?;
        for text in shares.get(index).into_iter().flat_map(|texts| texts.iter()) {
            fs::write(share.join(&text.name), &text.body)?;
        }
        cluster.add_peer(&format!("peer-{index}"), Some(share), 0).await?;
    }
    cluster.ready().await?;
    let begun = Instant::now();
    let mut clients = JoinSet::new();
    for (index, peer) in cluster.peers().iter().enumerate() {
        let all: usize = shares.iter().map(|texts| texts.len()).sum();
        let wanted = all - shares.get(index).map_or(0, |texts| texts.len());
        if wanted > 0 {
            clients.spawn(client::fetch_all(cluster.registry().clone(), peer.identity().clone(), out(folder, index), wanted));
        }
    }
    let mut tally = Tally::default();
    while let Some(done) = clients.join_next().await {
        tally.add(&done.map_err(|panicked| Failure::refused(panicked.to_string()))??);
    }
    let elapsed = begun.elapsed();
    cluster.stop().await?;
    check(folder, shares)?;
    Ok(Run { elapsed, tally })
}

fn out(folder: &Path, index: usize) -> std::path::PathBuf {
    folder.join("out").join(index.to_string())
}

/// Checks that every client has every document that it did not share, byte for byte.
fn check(folder: &Path, shares: &[&[Text]]) -> Outcome {
    for index in 0..PEERS {
        for (holder, text) in shares.iter().enumerate().flat_map(|(holder, texts)| texts.iter().map(move |text| (holder, text))) {
            if holder == index {
                continue;
            }
            let path = out(folder, index).join(&text.name);
            if fs::read(&path)? != text.body {
                return Err(Failure::refused(format!("{} is not what its holder shares", path.display())));
            }
        }
    }
    Ok(())
}
