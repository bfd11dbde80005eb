//! Holders that go away while others fetch.

use super::{
    Fetcher,
    support::{bytes, eventually, peer::Peer},
};
use p2pdi::{content::ContentHash, v1::SwarmRequest};
use std::time::Duration;

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
    // The second one receives little of the seed: it fetches from the first.
    let first = one.fetch(hash, vec![seed.source("sharer")]);
    let second = other.fetch(hash, vec![seed.source("sharer"), one.peer.source("sharer")]);
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

#[tokio::test(flavor = "multi_thread")]
async fn a_fetch_waits_for_its_only_holder_to_return() {
    let data = bytes(16 * PIECE as usize);
    let seed = Peer::configured(&[("doc.bin", &data)], |config| {
        config.upload_limit = Some(8 * PIECE);
        // It does not finish what it sends.
        config.limits.grace = Duration::from_millis(1);
    })
    .await;
    let (hash, address) = (ContentHash::of(&data), seed.address);
    let fetcher = Fetcher::new().await;
    let options = peerd::transfer::FetchOptions { wait_for_holders: Duration::from_secs(60), ..fetcher.options() };
    let fetching = fetcher.fetch_with(hash, vec![seed.source("sharer")], &options);
    let restarting = async {
        eventually("some pieces", async || (had(&fetcher.peer, hash).await > 0).then_some(())).await;
        let folder = seed.stop().await;
        eventually("the fetch to notice", async || {
            let request = SwarmRequest { blake3: hash.to_field() };
            let swarms = fetcher.peer.client().swarm(request).await.unwrap().into_inner().swarms;
            swarms.first().filter(|swarm| !swarm.waiting.is_empty()).map(|_| ())
        })
        .await;
        let config = super::support::peer::config("sharer", &folder);
        Peer::listening_on(&address.to_string(), config, folder).await
    };
    let (fetched, _seed) = tokio::join!(fetching, restarting);
    fetcher.assert_has(&fetched.unwrap(), &data);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_only_holder_that_was_given_up_is_asked_again_once_it_returns() {
    let data = bytes(16 * PIECE as usize);
    let seed = Peer::configured(&[("doc.bin", &data)], |config| {
        config.upload_limit = Some(8 * PIECE);
        // It does not finish what it sends.
        config.limits.grace = Duration::from_millis(1);
    })
    .await;
    let (hash, address) = (ContentHash::of(&data), seed.address);
    let fetcher = Fetcher::new().await;
    let options = peerd::transfer::FetchOptions { wait_for_holders: Duration::from_secs(600), ..fetcher.options() };
    let fetching = fetcher.fetch_with(hash, vec![seed.source("sharer")], &options);
    let restarting = async {
        eventually("some pieces", async || (had(&fetcher.peer, hash).await > 0).then_some(())).await;
        let folder = seed.stop().await;
        eventually("the holder to be given up", async || {
            let request = SwarmRequest { blake3: hash.to_field() };
            let swarms = fetcher.peer.client().swarm(request).await.unwrap().into_inner().swarms;
            swarms.first().filter(|swarm| swarm.waiting.starts_with("waiting for a peer that has what is missing")).map(|_| ())
        })
        .await;
        let config = super::support::peer::config("sharer", &folder);
        Peer::listening_on(&address.to_string(), config, folder).await
    };
    let (fetched, _seed) = tokio::join!(fetching, restarting);
    let fetched = fetched.unwrap();
    fetcher.assert_has(&fetched, &data);
    assert_eq!(fetched.sources[0].dropped, None, "{:?}", fetched.sources);
}
