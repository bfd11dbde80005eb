//! Jobs and mirrors: what a running peer fetches into its share, and keeps there. Real peers on loopback.

#![allow(clippy::panic, clippy::unwrap_used, clippy::cast_possible_truncation, reason = "test helpers fail by panicking")]

#[path = "../support/mod.rs"]
mod support;

mod fetched;
mod lasting;
mod mirrors;
mod refused;

use p2pdi::v1::{FetchRequest, Job, JobState};
use peerd::{config::NodeConfig, transfer::jobs::JobRequest};
use std::{fs, path::Path};
use support::{
    bytes, eventually,
    peer::{Peer, config},
    within,
};
use tempfile::TempDir;

/// A peer that shares `files` and links to the peers at `others`.
async fn peer(name: &str, files: &[(&str, &[u8])], others: &[&Peer], change: impl FnOnce(&mut NodeConfig)) -> Peer {
    let addresses: Vec<_> = others.iter().map(|other| other.address.to_string()).collect();
    Peer::configured(files, |config| {
        config.name = name.parse().unwrap();
        config.bootnodes = addresses.iter().map(|address| address.parse().unwrap()).collect();
        change(config);
    })
    .await
}

/// A peer that shares the documents `0.bin` to the one before `count`, of 40,000 bytes each, with their numbers as bytes.
async fn numbered(name: &str, count: u8) -> Peer {
    let files: Vec<_> = (0..count).map(|n| (format!("{n}.bin"), vec![n; 40_000])).collect();
    let files: Vec<(&str, &[u8])> = files.iter().map(|(name, content)| (name.as_str(), content.as_slice())).collect();
    peer(name, &files, &[], |_| {}).await
}

/// Starts a stopped peer again, with its folders.
async fn again(name: &str, folder: TempDir, others: &[&Peer]) -> Peer {
    let bootnodes = others.iter().map(|other| other.address.to_string().parse().unwrap()).collect();
    let config = NodeConfig { bootnodes, ..config(name, &folder) };
    let peer = Peer::start(config, folder).await;
    within("the share", peer.handle.share().settled()).await;
    peer
}

fn request(wanted: &[&str]) -> FetchRequest {
    FetchRequest { wanted: wanted.iter().map(|wanted| (*wanted).to_owned()).collect(), ..Default::default() }
}

/// Has a peer fetch, and waits for the end of the job.
async fn fetch(peer: &Peer, request: FetchRequest) -> Job {
    let mut job = peer.handle.jobs().submit(JobRequest::try_from(request).unwrap()).await.unwrap();
    within("the job's end", job.ended()).await.unwrap()
}

/// Waits until the job `id` is in a state.
async fn until(peer: &Peer, id: &str, state: JobState) -> Job {
    eventually(&format!("job {id} to be {state:?}"), async || {
        let jobs = peer.handle.jobs().list();
        jobs.into_iter().find(|job| job.id == id && job.state() == state)
    })
    .await
}

/// Waits until a document of the share has this content, or is not there.
async fn until_shared(peer: &Peer, name: &str, content: Option<&[u8]>) {
    let wanted = content.map(p2pdi::content::ContentHash::of);
    eventually(&format!("{name} in the share"), async || {
        let found = peer.handle.share().index().by_name(name).map(|document| document.hash);
        (found == wanted).then_some(())
    })
    .await;
}

fn read(folder: &Path, name: &str) -> Option<Vec<u8>> {
    fs::read(folder.join(name)).ok()
}
