//! Holders that go away while others fetch.

use super::{
    Fetcher,
    support::{bytes, eventually, peer::Peer, within},
};
use p2pdi::{
    content::ContentHash,
    document::DocumentName,
    v1::{Swarm, SwarmRequest},
};
use peerd::{
    documents::selector::DocumentSelector,
    transfer::{FetchOptions, Fetched, NoMoreHolders, Waiting, fetch},
};
use std::{sync::Arc, time::Duration};

const PIECE: u64 = 256 * 1024;

/// Bytes of a document that a peer has verified.
async fn had(peer: &Peer, hash: ContentHash) -> u64 {
    let request = SwarmRequest { blake3: hash.to_field() };
    let swarms = peer.client().swarm(request).await.unwrap().into_inner().swarms;
    swarms.first().map_or(0, |swarm| swarm.had)
}

#[tokio::test(flavor = "multi_thread")]
async fn fetchers_go_on_from_each_other_when_the_seed_dies_after_each_piece_left_it() {
    let data = bytes(32 * PIECE as usize);
    let seed = Peer::configured(&[("doc.bin", &data)], |config| {
        config.upload_limit = Some(12 * PIECE);
        // It does not finish what it sends.
        config.limits.grace = Duration::from_millis(1);
    })
    .await;
    let hash = ContentHash::of(&data);
    let (one, other) = (Fetcher::new().await, Fetcher::new().await);
    let first = one.fetch(hash, vec![seed.source("sharer")]);
    // It receives little of the seed: it fetches from the first, which is asked once and must have begun by then.
    let sources = vec![seed.source("sharer"), one.peer.source("sharer")];
    let second = async {
        eventually("the first to have a piece", async || (had(&one.peer, hash).await > 0).then_some(())).await;
        other.fetch(hash, sources).await
    };
    let killing = async {
        eventually("each piece to have left the seed", async || {
            let request = SwarmRequest { blake3: hash.to_field() };
            let swarms = seed.client().swarm(request).await.unwrap().into_inner().swarms;
            // Who has all of it may have closed its stream with the seed already.
            let is_whole = async |peer: &Peer| had(peer, hash).await == data.len() as u64;
            let is_second = swarms.first().is_some_and(|swarm| swarm.rarest_copies >= 2);
            (is_second || is_whole(&one.peer).await || is_whole(&other.peer).await).then_some(())
        })
        .await;
        seed.stop().await
    };
    let (first, second, _folder) = tokio::join!(first, second, killing);
    one.assert_has(&first.unwrap(), &data);
    other.assert_has(&second.unwrap(), &data);
}

/// A fetch of all of `data` from a peer that goes away after some pieces, and returns once `is_noticed` says of the fetcher's view of the swarm
/// that the fetch noticed.
async fn fetch_from_a_holder_that_returns(patience: Duration, is_noticed: impl Fn(&Swarm) -> bool) -> Fetched {
    let data = bytes(16 * PIECE as usize);
    let seed = Peer::configured(&[("doc.bin", &data)], |config| {
        config.upload_limit = Some(8 * PIECE);
        // It does not finish what it sends.
        config.limits.grace = Duration::from_millis(1);
    })
    .await;
    let (hash, address) = (ContentHash::of(&data), seed.address);
    let fetcher = Fetcher::new().await;
    let options = FetchOptions { wait_for_holders: patience, ..fetcher.options() };
    let fetching = fetcher.fetch_with(hash, vec![seed.source("sharer")], &options);
    let restarting = async {
        eventually("some pieces", async || (had(&fetcher.peer, hash).await > 0).then_some(())).await;
        let (folder, _address) = seed.stop_keeping_address().await;
        eventually("the fetch to notice", async || {
            let request = SwarmRequest { blake3: hash.to_field() };
            let swarms = fetcher.peer.client().swarm(request).await.unwrap().into_inner().swarms;
            swarms.first().filter(|swarm| is_noticed(swarm)).map(|_| ())
        })
        .await;
        let config = super::support::peer::config("sharer", &folder);
        Peer::listening_on(&address.to_string(), config, folder).await
    };
    let (fetched, _seed) = tokio::join!(fetching, restarting);
    let fetched = fetched.unwrap();
    fetcher.assert_has(&fetched, &data);
    fetched
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_for_its_only_holder_to_return() {
    fetch_from_a_holder_that_returns(Duration::from_secs(60), |swarm| !swarm.waiting.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_only_holder_that_was_given_up_is_asked_again_once_it_returns() {
    let is_given_up = |swarm: &Swarm| swarm.waiting.starts_with("waiting for a peer that has what is missing");
    let fetched = fetch_from_a_holder_that_returns(Duration::from_secs(600), is_given_up).await;
    assert_eq!(fetched.sources[0].dropped, None, "{:?}", fetched.sources);
}

/// A fetch that begins while its only holder is down, and is told to wait.
async fn fetch_from_a_holder_that_is_down(size: usize, by_name: bool) {
    let data = bytes(size);
    let seed = Peer::sharing(&[("doc.bin", &data)]).await;
    let (address, source) = (seed.address, seed.source("sharer"));
    let (folder, _address) = seed.stop_keeping_address().await;
    let fetcher = Fetcher::new().await;
    let options = FetchOptions { wait_for_holders: Duration::from_secs(600), ..fetcher.options() };
    let wanted = match by_name {
        true => DocumentSelector::Name(DocumentName::parse("doc.bin").unwrap()),
        false => DocumentSelector::Hash(ContentHash::of(&data)),
    };
    let channels = fetcher.peer.handle.channels();
    let fetching = fetch(channels, &wanted, vec![source], Arc::new(NoMoreHolders), &options, &fetcher.progress);
    let restarting = async {
        eventually("the fetch to give up its holder", async || {
            let waiting = fetcher.progress.snapshot().waiting;
            (waiting == Some(Waiting::Connection { to: vec!["sharer".to_owned()] })).then_some(())
        })
        .await;
        let config = super::support::peer::config("sharer", &folder);
        Peer::listening_on(&address.to_string(), config, folder).await
    };
    let (fetched, _seed) = Box::pin(within("the fetch", async { tokio::join!(fetching, restarting) })).await;
    fetcher.assert_has(&fetched.unwrap(), &data);
    let seen = fetcher.progress.snapshot();
    // Documents of one piece count as larger ones do.
    assert_eq!((seen.received, seen.verified, seen.resumed, seen.waiting), (size as u64, size as u64, 0, None));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_for_a_holder_that_is_down_when_it_begins() {
    let (small, large) = (1_000, 3 * PIECE as usize);
    tokio::join!(
        fetch_from_a_holder_that_is_down(small, false),
        fetch_from_a_holder_that_is_down(small, true),
        fetch_from_a_holder_that_is_down(large, false),
        fetch_from_a_holder_that_is_down(large, true),
    );
}
