//! Many whispers over one stream.

use super::*;
use crate::support::{eventually, peer::Peer, within};
use p2pdi::{
    server::{CallLimits, Limits},
    v1::{WhisperRequest, WhispersRequest, WhispersResponse, whispers_response},
    whisper_stream::WhisperStream,
};
use std::{future::pending, sync::Arc};
use tokio::{runtime::Handle, task::JoinSet};

fn to(name: &str, kind: &str) -> WhisperRequest {
    WhisperRequest { to: name.into(), kind: kind.into(), body: "hello".into(), from: "tester".into(), ..Default::default() }
}

async fn open(peer: &Peer) -> Arc<WhisperStream> {
    Arc::new(within("a stream", WhisperStream::open(p2pdi_client(peer))).await.unwrap())
}

fn p2pdi_client(peer: &Peer) -> p2pdi::v1::peer_client::PeerClient<p2pdi::channel::Channel> {
    peerd::connections::channels::ChannelPool::new(None).peer(&peer.address.into(), None)
}

#[tokio::test(flavor = "multi_thread")]
async fn each_message_has_an_answer_of_its_own() {
    let peer = Peer::sharing(&[]).await;
    let hang = peer.handle.handlers().on("HANG".parse().unwrap(), |_| pending::<()>(), &Handle::current());
    hang.unwrap();
    let stream = open(&peer).await;
    // Answered when its handler has had its time; those after it do not wait for that.
    let hanging = tokio::spawn({
        let stream = Arc::clone(&stream);
        async move { stream.send(to("sharer", "HANG")).await }
    });
    eventually("the first", async || (peer.handle.inbox().status().received == 1).then_some(())).await;
    let mut sent = JoinSet::new();
    for number in 0..1_000 {
        let stream = Arc::clone(&stream);
        sent.spawn(async move {
            match number % 3 {
                0 => {
                    let status = refused(stream.send(to("foo", "")).await, Reason::NoRoute);
                    assert_eq!(status.message(), "request cannot be fulfilled: no route to foo");
                }
                1 => drop(invalid(stream.send(to("two words", "")).await, "to")),
                _ => {
                    let answer = stream.send(to("sharer", "PING")).await.unwrap();
                    assert_eq!((answer.delivered_by.as_str(), answer.reply_kind.as_str()), ("sharer", "PONG"));
                }
            }
        });
    }
    within("all answers", sent.join_all()).await;
    assert!(!hanging.is_finished() || peer.handle.inbox().status().received == 1);
    within("the answer of who hangs", hanging).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_of_a_stream_are_limited_as_calls_are() {
    let calls = CallLimits::default().limiting_local();
    let peer = Peer::configured(&[], |config| config.limits = Limits { calls, ..Limits::default() }).await;
    let stream = open(&peer).await;
    let mut sent = JoinSet::new();
    for _ in 0..64 {
        let stream = Arc::clone(&stream);
        sent.spawn(async move {
            let mut delivered = 0;
            for _ in 0..500 {
                match stream.send(to("sharer", "")).await {
                    Ok(_) => delivered += 1,
                    Err(limited) => {
                        assert_eq!(Reason::of(&limited), Some(Reason::RateLimited), "{limited:?}");
                        assert!(status::retry_after(&limited).is_some());
                    }
                }
            }
            delivered
        });
    }
    let begun = std::time::Instant::now();
    let delivered: u64 = within("all answers", sent.join_all()).await.into_iter().sum();
    // The burst of one address, and its rate: see `CallClass`.
    let most = 4_000 + 2_000 * (begun.elapsed().as_secs() + 1);
    assert!((4_000..=most).contains(&delivered), "{delivered} of 32,000, at most {most}");
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_that_do_not_fit_into_memory_fail_alone_and_their_streams_go_on() {
    // Of this machine: 3 MiB for messages that are whole, and as much for those that arrive.
    let small = Limits { request_memory: 16 * 1024 * 1024, ..Limits::default() };
    let peer = Peer::configured(&[], |config| config.limits = small).await;
    peer.handle.handlers().on("HANG".parse().unwrap(), |_| pending::<()>(), &Handle::current()).unwrap();
    let mut streams = Vec::new();
    let mut sent = JoinSet::new();
    for _ in 0..8 {
        let stream = open(&peer).await;
        for _ in 0..8 {
            let stream = Arc::clone(&stream);
            let request = WhisperRequest { body: vec![b'x'; 256 * 1024].into(), ..to("sharer", "HANG") };
            sent.spawn(async move { stream.send(request).await.map(drop) });
        }
        streams.push(stream);
    }
    let answers = within("all answers", sent.join_all()).await;
    let refused: Vec<_> = answers.into_iter().filter_map(Result::err).collect();
    assert!(!refused.is_empty() && refused.iter().all(|error| Reason::of(error) == Some(Reason::Overloaded)), "{refused:?}");
    for stream in streams {
        within("an answer", stream.send(to("sharer", "PING"))).await.unwrap();
        // What they used is given back.
        let large = WhisperRequest { body: vec![b'x'; 256 * 1024].into(), ..to("sharer", "") };
        within("an answer", stream.send(large)).await.unwrap();
    }
}

#[tokio::test]
async fn a_stream_is_answered_to_its_end_and_a_message_that_is_missing_has_a_failure() {
    let peer = Peer::sharing(&[]).await;
    let requests = [
        WhispersRequest { id: 7, whisper: None },
        WhispersRequest { id: 7, whisper: Some(to("sharer", "PING")) },
        WhispersRequest { id: u64::MAX, whisper: Some(to("SHARER", "")) },
    ];
    let answer = within("an answer", peer.client().whispers(tokio_stream::iter(requests))).await.unwrap();
    let (mut answers, mut stream) = (Vec::new(), answer.into_inner());
    while let Some(WhispersResponse { id, result }) = within("an answer", stream.message()).await.unwrap() {
        answers.push((id, result.unwrap()));
    }
    answers.sort_by_key(|(id, result)| (*id, matches!(result, whispers_response::Result::Delivered(_))));
    let [(7, whispers_response::Result::Failure(failure)), (7, _), (u64::MAX, whispers_response::Result::Delivered(_))] =
        &answers[..]
    else {
        panic!("{answers:?}")
    };
    let status = Status::from(failure.clone());
    assert_eq!((Reason::of(&status), status.code()), (Some(Reason::InvalidField), tonic::Code::InvalidArgument), "{status:?}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_ends_in_order_when_its_peer_stops() {
    let peer = Peer::sharing(&[]).await;
    peer.handle.handlers().on("HANG".parse().unwrap(), |_| pending::<()>(), &Handle::current()).unwrap();
    let stream = open(&peer).await;
    let hanging = tokio::spawn({
        let stream = Arc::clone(&stream);
        async move { stream.send(to("sharer", "HANG")).await }
    });
    eventually("the first", async || (peer.handle.inbox().status().received == 1).then_some(())).await;
    let _folder = peer.stop().await;
    // It was delivered, and the peer did not cut it off.
    within("its answer", hanging).await.unwrap().unwrap();
    let status = within("an answer", stream.send(to("sharer", "PING"))).await.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unavailable, "{status:?}");
}
