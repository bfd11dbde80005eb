//! What several holders give together.

use super::{
    Fetcher, sent,
    support::{bytes, peer::Peer},
};
use p2pdi::content::ContentHash;
use std::sync::Arc;
use tokio::task::JoinSet;

const MIB: usize = 1024 * 1024;

#[tokio::test(flavor = "multi_thread")]
async fn eight_fetchers_of_one_seed_fetch_from_each_other() {
    let data = Arc::new(bytes(16 * MIB));
    // Slow enough that the fetchers have time to find each other.
    let seed = Peer::configured(&[("doc.bin", &data)], |config| config.upload_limit = Some(8 * MIB as u64)).await;
    let hash = ContentHash::of(&data);
    let mut fetches = JoinSet::new();
    for _ in 0..8 {
        let (source, data) = (seed.source("sharer"), Arc::clone(&data));
        fetches.spawn(async move {
            let fetcher = Fetcher::new().await;
            let fetched = fetcher.fetch(hash, vec![source]).await.unwrap();
            fetcher.assert_has(&fetched, &data);
            let from_others: u64 = fetched.sources.iter().skip(1).map(|report| report.bytes).sum();
            (fetcher, from_others)
        });
    }
    let fetchers: Vec<_> = fetches.join_all().await;
    let from_others: u64 = fetchers.iter().map(|(_, bytes)| bytes).sum();
    let all = 8 * data.len() as u64;
    assert!(from_others > all / 2, "{from_others} of {all} bytes came from other fetchers");
    let sent = sent(&seed).await;
    assert!(sent < 3 * data.len() as u64, "the seed sent {sent} bytes of a document of {}", data.len());
}

#[tokio::test(flavor = "multi_thread")]
async fn two_limited_holders_deliver_together_what_both_can() {
    let data = bytes(12 * MIB);
    let limited = |config: &mut peerd::config::NodeConfig| config.upload_limit = Some(4 * MIB as u64);
    let (one, other) =
        (Peer::configured(&[("a.bin", &data)], limited).await, Peer::configured(&[("b.bin", &data)], limited).await);
    let fetcher = Fetcher::new().await;
    let fetched = fetcher.fetch(ContentHash::of(&data), vec![one.source("sharer"), other.source("sharer")]).await.unwrap();
    fetcher.assert_has(&fetched, &data);
    let bytes: Vec<_> = fetched.sources.iter().map(|report| report.bytes).collect();
    assert_eq!(bytes.iter().sum::<u64>(), data.len() as u64);
    let least = bytes.iter().min().unwrap();
    assert!(*least > data.len() as u64 / 3, "{bytes:?}");
}

/// A peer in `zone` that shares `data` at a limited rate.
async fn holder_in(zone: &str, data: &[u8]) -> Peer {
    Peer::configured(&[("doc.bin", data)], |config| {
        config.labels.insert("zone".to_owned(), zone.to_owned());
        config.name = zone.parse().unwrap();
        config.upload_limit = Some(6 * MIB as u64);
    })
    .await
}

#[tokio::test(flavor = "multi_thread")]
async fn most_bytes_come_from_the_holder_in_the_own_zone_and_some_from_the_other() {
    let data = bytes(24 * MIB);
    let (near, far) = (holder_in("here", &data).await, holder_in("there", &data).await);
    let fetcher = Fetcher { peer: holder_in("here", &[]).await, progress: Arc::default() };
    let fetched = fetcher.fetch(ContentHash::of(&data), vec![far.source("there"), near.source("here")]).await.unwrap();
    fetcher.assert_has(&fetched, &data);
    let from =
        |name: &str| fetched.sources.iter().filter(|report| report.source.label() == name).map(|report| report.bytes).sum();
    let (near, far): (u64, u64) = (from("here"), from("there"));
    assert_eq!(near + far, data.len() as u64, "{:?}", fetched.sources);
    assert!(near > far && far > 0, "{near} bytes from the near holder, {far} from the far one");
}
