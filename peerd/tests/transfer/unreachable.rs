//! Holders that cannot be reached, or do not answer.

use super::*;
use crate::support::{
    holder::{Step, sending},
    source,
};
use std::net::SocketAddr;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};
use tonic::Status;

/// Fetches with this holder first and an honest one second.
async fn with_an_honest_holder(address: SocketAddr) -> Vec<SourceReport> {
    let sample = Sample::rfc48(2);
    let honest = Holder::honest(&sample).await;
    let target = Target::impatient();
    // An honest holder may be slow on a busy machine: it is asked again.
    let fetched = target.fetch(&hash(&sample), vec![source("odd", address), honest.source("honest")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!(kept(&fetched.sources, "honest"), sample.size());
    fetched.sources
}

async fn alone(address: SocketAddr) -> String {
    let target = Target::impatient();
    let error = target.fetch(&DocumentSelector::Number(48), vec![source("odd", address)]).await.unwrap_err();
    assert_eq!(target.files(), []);
    let message = error.to_string();
    assert!(message.starts_with(&format!("no holder could deliver RFC 48: odd ({address}): ")), "{message}");
    message
}

#[tokio::test]
async fn a_refused_connection_is_reported() {
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let message = alone(closed).await;
    assert!(message.contains("refused"), "{message}");
    with_an_honest_holder(closed).await;
}

#[tokio::test]
async fn a_holder_that_accepts_and_never_answers_counts_as_stalled() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let taking = tokio::spawn(async move {
        let mut taken = Vec::new();
        while let Ok((stream, _)) = listener.accept().await {
            taken.push(stream);
        }
    });
    let message = alone(address).await;
    assert!(message.contains("stalled: less than 4096 bytes in 0.5 s"), "{message}");
    with_an_honest_holder(address).await;
    taking.abort();
}

#[tokio::test]
async fn a_holder_that_closes_or_speaks_another_protocol_is_reported() {
    for answer in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", b"SSH-2.0-OpenSSH_9.9\r\n", &[0xff; 4096]] {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let taking = tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _ = stream.write_all(answer).await;
                let _ = stream.read(&mut [0; 64]).await;
            }
        });
        alone(address).await;
        with_an_honest_holder(address).await;
        taking.abort();
    }
}

#[tokio::test]
async fn the_pieces_of_a_stalled_holder_come_from_another_one_before_its_stall_ends_the_request() {
    // With its patience, the first one would wait 20 s for the stalled holder.
    for target in [Target::new(), Target::impatient()] {
        let sample = Sample::rfc48(12);
        let staller = Holder::start({
            let sample = sample.clone();
            move |_, request| {
                let mut steps = sending(sample.answer(request));
                // It sends one piece of the whole, and of a range nothing.
                steps.truncate(if request.length == 0 { 2 } else { 1 });
                steps.push(Step::Stall);
                steps
            }
        })
        .await;
        let honest = Holder::honest(&sample).await;
        let sources = vec![staller.source("staller"), honest.source("honest")];
        let fetched = target.fetch(&hash(&sample), sources).await.unwrap();
        target.assert_holds_only(&sample);
        assert!(fetched.elapsed < Duration::from_secs(10), "it took {:?}", fetched.elapsed);
        assert!(fetched.sources[0].bytes <= PIECE, "{:?}", fetched.sources);
        assert_eq!(kept(&fetched.sources, "honest"), sample.size() - fetched.sources[0].bytes);
        assert_fetched_once(&target, &fetched, &sample, 2 * PIECE);
        // It is asked less: what it does not send is not asked for there again and again.
        assert!(staller.requests().len() <= 5, "{:?}", staller.requests());
    }
}

#[tokio::test]
async fn a_holder_that_is_temporarily_full_is_retried() {
    let sample = Sample::rfc48(2);
    let busy = Holder::start({
        let sample = sample.clone();
        move |earlier, request| match earlier {
            0 | 1 => vec![Step::Fail(Status::resource_exhausted("as many as may be"))],
            _ => sending(sample.answer(request)),
        }
    })
    .await;
    let target = Target::new();
    target.fetch(&hash(&sample), vec![busy.source("busy")]).await.unwrap();
    target.assert_holds_only(&sample);
    assert_eq!(busy.requests().len(), 3);
}

#[tokio::test]
async fn every_holder_is_named_with_its_fault() {
    let sample = Sample::rfc48(2);
    let closed = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let without = Holder::start(|_, _| vec![Step::Fail(Status::not_found("never had it"))]).await;
    let forbidding = Holder::start(|_, _| vec![Step::Fail(Status::permission_denied("not for you"))]).await;
    let target = Target::impatient();
    let sources = vec![source("gone", closed), without.source("without"), forbidding.source("forbidding")];
    let message = target.fetch(&hash(&sample), sources).await.unwrap_err().to_string();
    for part in ["gone (", "refused", "without (", "never had it", "forbidding (", "not for you"] {
        assert!(message.contains(part), "{part} is missing in: {message}");
    }
    let message = target.fetch(&hash(&sample), Vec::new()).await.unwrap_err().to_string();
    assert!(message.ends_with("there are no holders to ask"), "{message}");
}
