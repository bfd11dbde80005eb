//! The upload limit: exact, shared equally, and nobody waits in silence.

use super::*;
use crate::support::{
    peer::{Peer, by_name},
    within,
};
use p2pdi::v1::{GetRfcRequest, get_rfc_response::Part, peer_client::PeerClient};
use std::{
    ops::Range,
    time::{Duration, Instant},
};
use tokio::task::JoinSet;
use tonic::transport::{Channel, Endpoint};

/// What a stream received.
#[derive(Debug, Default)]
struct Received {
    data: Vec<u8>,
    /// Longest time between two messages.
    silent: Duration,
    /// Signs that it waits.
    queued: usize,
}

async fn receive(mut client: PeerClient<Channel>, request: GetRfcRequest) -> Received {
    let mut got = Received::default();
    let mut last = Instant::now();
    let mut stream = client.get_rfc(request).await.unwrap().into_inner();
    while let Some(message) = stream.message().await.unwrap() {
        got.silent = got.silent.max(last.elapsed());
        last = Instant::now();
        match message.part.expect("a part") {
            Part::Header(_) => {}
            Part::Queued(_) => got.queued += 1,
            Part::Chunk(chunk) => got.data.extend_from_slice(&chunk.data),
        }
    }
    got
}

/// `count` streams of the document at once, each over a connection of its own, and how long they took.
async fn at_once(peer: &Peer, count: usize, accepts_queued: bool) -> (Vec<Received>, Duration) {
    let begun = Instant::now();
    let mut streams = JoinSet::new();
    for _ in 0..count {
        streams.spawn(receive(peer.client(), GetRfcRequest { accepts_queued, ..by_name("doc.bin") }));
    }
    let all = tokio::time::timeout(Duration::from_secs(60), streams.join_all()).await.expect("all end");
    (all, begun.elapsed())
}

/// Within the limit, and not far below it.
#[track_caller]
fn at_the_rate(bytes: usize, limit: u64, took: Duration) {
    let ideal = bytes as f64 / limit as f64;
    let took = took.as_secs_f64();
    // A tenth of a second may be sent at once after a pause, and a part at the end.
    assert!(took >= 0.95 * ideal - 0.2, "{took} s instead of {ideal} s");
    // A machine that is busy with other tests is slower.
    assert!(took <= 2.0 * ideal + 2.0, "{took} s instead of {ideal} s");
}

#[tokio::test]
async fn forty_five_callers_that_cannot_be_told_to_wait_share_a_small_limit_without_a_stall() {
    const LIMIT: u64 = 512 * 1024;
    let data = support::bytes(32 * 1024);
    let peer = Peer::configured(&[("doc.bin", &data)], |config| config.upload_limit = Some(LIMIT)).await;
    let (all, took) = at_once(&peer, 45, false).await;
    assert!(all.iter().all(|got| got.data == data && got.queued == 0));
    let silent = all.iter().map(|got| got.silent).max().unwrap();
    assert!(silent < Duration::from_secs(3), "a stream got nothing for {silent:?}");
    at_the_rate(45 * data.len(), LIMIT, took);
}

#[tokio::test]
async fn sixty_callers_wait_in_line_and_are_told_so() {
    const LIMIT: u64 = 512 * 1024;
    let data = support::bytes(64 * 1024);
    let peer = Peer::configured(&[("doc.bin", &data)], |config| {
        config.upload_limit = Some(LIMIT);
        config.upload_slots = Some(4);
    })
    .await;
    let (all, took) = at_once(&peer, 60, true).await;
    assert!(all.iter().all(|got| got.data == data));
    let silent = all.iter().map(|got| got.silent).max().unwrap();
    assert!(silent < Duration::from_secs(5), "a stream got nothing for {silent:?}");
    assert!(all.iter().any(|got| got.queued > 0) && all.iter().any(|got| got.queued == 0));
    at_the_rate(60 * data.len(), LIMIT, took);
}

#[tokio::test]
async fn one_caller_gets_the_whole_limit_with_large_chunks_and_small_ones() {
    for limit in [200 * 1024, 8 << 20] {
        let data = support::bytes(usize::try_from(2 * limit).unwrap());
        let peer = Peer::configured(&[("doc.bin", &data)], |config| config.upload_limit = Some(limit)).await;
        let (all, took) = at_once(&peer, 1, true).await;
        assert!(all[0].data == data && all[0].silent < Duration::from_secs(2), "{:?}", all[0].silent);
        at_the_rate(data.len(), limit, took);
    }
}

/// A client of one connection that many streams fit in.
fn wide_client(peer: &Peer) -> PeerClient<Channel> {
    let channel = Endpoint::from_shared(format!("http://{}", peer.address)).unwrap();
    let channel = channel.initial_stream_window_size(1 << 20).initial_connection_window_size(16 << 20).connect_lazy();
    PeerClient::new(channel).max_decoding_message_size(p2pdi::channel::RESPONSE_MAX_BYTES)
}

#[tokio::test]
async fn ranges_in_turn_arrive_one_after_the_other_and_a_dropped_one_frees_the_next() {
    const RANGE: u64 = 256 * 1024;
    let data = support::bytes(4 * RANGE as usize);
    let peer = Peer::configured(&[("doc.bin", &data)], |config| config.upload_limit = Some(512 * 1024)).await;
    let client = wide_client(&peer);
    let range = |index: u64| index * RANGE..(index + 1) * RANGE;
    let ask = |range: Range<u64>| GetRfcRequest {
        offset: range.start,
        length: range.end - range.start,
        in_turn: true,
        accepts_queued: true,
        ..by_name("doc.bin")
    };
    let mut streams = Vec::new();
    for index in [2, 0, 3, 1] {
        let mut client = client.clone();
        let stream = within("an answer", client.get_rfc(ask(range(index)))).await.unwrap().into_inner();
        streams.push((index, Some(stream)));
    }
    // The third is not wanted any more.
    streams[2].1 = None;
    let (mut got, mut order) = (Vec::new(), Vec::new());
    let mut receiving = JoinSet::new();
    let (to, mut from) = tokio::sync::mpsc::unbounded_channel();
    for (index, stream) in streams {
        let Some(mut stream) = stream else { continue };
        let to = to.clone();
        receiving.spawn(async move {
            while let Some(message) = stream.message().await.unwrap() {
                if let Some(Part::Chunk(chunk)) = message.part {
                    to.send((index, chunk)).unwrap();
                }
            }
        });
    }
    drop(to);
    while let Some((index, chunk)) = within("a chunk", from.recv()).await {
        assert!(chunk.data.len() <= 64 * 1024, "{} bytes in one chunk", chunk.data.len());
        let at = usize::try_from(chunk.offset).unwrap();
        assert!(chunk.data == data[at..at + chunk.data.len()]);
        got.push((index, chunk.data.len()));
        if order.last() != Some(&index) {
            order.push(index);
        }
    }
    assert_eq!(order, [2, 0, 1], "{got:?}");
    assert_eq!(got.iter().map(|(_, bytes)| *bytes as u64).sum::<u64>(), 3 * RANGE);
}
