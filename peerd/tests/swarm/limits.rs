//! Limits of the rate, as bytes on the wire over ten seconds, with one stream and with many.

use super::{
    Fetcher,
    support::{
        bytes,
        peer::{Peer, by_name, client},
        source,
        wire::{Relay, Wire},
    },
};
use p2pdi::{content::ContentHash, v1::GetRfcRequest};
use peerd::{
    config::NodeConfig,
    documents::selector::DocumentSelector,
    transfer::{FetchOptions, NoMoreHolders, Progress, Throttle, fetch},
};
use std::{sync::Arc, time::Duration};
use tokio::task::JoinSet;

const MIB: usize = 1 << 20;
const LIMIT: u64 = MIB as u64;
const TIME: Duration = Duration::from_secs(10);

/// No more than 5 % above the limit. A machine that is busy with other tests may be below it.
#[track_caller]
fn holds(rate: f64) {
    let share = rate / LIMIT as f64;
    println!("{share:.3} of the limit");
    assert!((0.7..=1.05).contains(&share), "{share:.3} of the limit");
}

/// A peer with these files that others reach through a relay of `wire` only.
async fn behind(wire: &Wire, files: &[(&str, &[u8])], change: impl FnOnce(&mut NodeConfig)) -> (Peer, Relay) {
    let mut relay = wire.listen().await;
    let advertised = relay.address;
    let peer = Peer::configured(files, |config| {
        config.advertise = Some(advertised.into());
        change(config);
    });
    let peer = peer.await;
    relay.serve(peer.address);
    (peer, relay)
}

/// What `streams` callers, each with a connection of its own, get from a peer with an upload limit.
async fn upload(streams: usize) {
    let data = bytes(16 * MIB);
    let wire = Wire::default();
    let (_peer, relay) = behind(&wire, &[("doc.bin", &data)], |config| config.upload_limit = Some(LIMIT)).await;
    let mut callers = JoinSet::new();
    for _ in 0..streams {
        let mut client = client(relay.address);
        callers.spawn(async move {
            let request = GetRfcRequest { accepts_queued: true, ..by_name("doc.bin") };
            let mut stream = client.get_rfc(request).await.unwrap().into_inner();
            while stream.message().await.unwrap().is_some() {}
        });
    }
    holds(wire.rate_over(TIME).await);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_limit_holds_for_one_stream() {
    upload(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upload_limit_holds_for_sixty_streams() {
    upload(60).await;
}

/// What a fetch with a limit gets from `holders`.
async fn download(holders: usize) {
    let data = bytes(16 * MIB);
    let (wire, fetcher) = (Wire::default(), Fetcher::new().await);
    let mut all = Vec::new();
    for _ in 0..holders {
        all.push(behind(&wire, &[("doc.bin", &data)], |_| {}).await);
    }
    let sources = all.iter().map(|(_, relay)| source("sharer", relay.address)).collect();
    let options = FetchOptions { limit: Throttle::new(Some(LIMIT)), ..fetcher.options() };
    let channels = fetcher.peer.handle.channels().limited_to(Some(LIMIT));
    let wanted = DocumentSelector::Hash(ContentHash::of(&data));
    let fetching = Box::pin(fetch(&channels, &wanted, sources, Arc::new(NoMoreHolders), &options, &fetcher.progress));
    tokio::select! {
        fetched = fetching => panic!("{fetched:?}"),
        rate = wire.rate_over(TIME) => holds(rate),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_limit_holds_for_one_holder() {
    download(1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_limit_holds_for_twelve_holders() {
    download(12).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_download_limit_holds_for_many_small_documents_at_once() {
    const DOCUMENTS: usize = 400;
    let files: Vec<_> = (0..DOCUMENTS).map(|number| (format!("{number}.bin"), bytes(40_000 + number))).collect();
    let shared: Vec<_> = files.iter().map(|(name, data)| (name.as_str(), data.as_slice())).collect();
    let (wire, fetcher) = (Wire::default(), Fetcher::new().await);
    let (_peer, relay) = behind(&wire, &shared, |_| {}).await;
    let channels = fetcher.peer.handle.channels().limited_to(Some(LIMIT));
    let limit = Throttle::new(Some(LIMIT));
    let mut fetches = JoinSet::new();
    for (_, data) in files {
        let options = FetchOptions { limit: limit.clone(), expected_size: Some(data.len() as u64), ..fetcher.options() };
        let (channels, source) = (channels.clone(), source("sharer", relay.address));
        fetches.spawn(async move {
            let (wanted, progress) = (DocumentSelector::Hash(ContentHash::of(&data)), Arc::<Progress>::default());
            let fetched = fetch(&channels, &wanted, vec![source], Arc::new(NoMoreHolders), &options, &progress);
            Box::pin(fetched).await.unwrap();
        });
    }
    holds(wire.rate_over(TIME).await);
}
