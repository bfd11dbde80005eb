//! Whispers to peers that the registry knows.

use super::*;
use crate::support::holder::Holder;
use p2pdi::{
    status::Reason,
    v1::{WhisperRequest, WhisperResponse},
};
use std::time::Instant;
use tokio::task::JoinSet;
use tonic::Status;

async fn whisper(via: &Peer, to: &str) -> Result<WhisperResponse, Status> {
    let request = WhisperRequest { to: to.into(), body: "hello".into(), from: "tester".into(), ..Default::default() };
    within("an answer", via.client().whisper(request)).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_whisper_reaches_a_peer_that_has_just_registered() {
    let registry = Running::in_memory().await;
    let a = member("a", registry.address, &[]).await;
    until(&a, SessionState::Registered).await;
    let b = member("b", registry.address, &[]).await;
    until(&b, SessionState::Registered).await;
    let answer = whisper(&a, "B").await.unwrap();
    assert_eq!((answer.delivered_by.as_str(), answer.hops), ("b", 1));
    assert!(answer.round_trip.is_some_and(|took| took.seconds > 0 || took.nanos > 0));
    let inbox = b.handle.inbox().latest(1);
    assert_eq!((inbox[0].from.as_str(), &inbox[0].body[..]), ("tester", &b"hello"[..]));
    assert_eq!(a.handle.inbox().status().received, 0);

    b.stop().await;
    let status = whisper(&a, "b").await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::NoRoute));
    assert!(status.message().starts_with("request cannot be fulfilled: no route to b"), "{}", status.message());
    let status = whisper(&a, "nobody").await.unwrap_err();
    assert_eq!(status.message(), "request cannot be fulfilled: no route to nobody");
    a.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn an_answer_from_another_peer_does_not_count_as_delivery() {
    let registry = Running::in_memory().await;
    let a = member("a", registry.address, &[]).await;
    until(&a, SessionState::Registered).await;
    let long = "x".repeat(100_000);
    for (name, claim) in [("wanted-1", "somebody-else"), ("wanted-2", ""), ("wanted-3", "\u{1b}[2J"), ("wanted-4", &long)] {
        let other = Holder::claiming(claim).await;
        register(
            registry.address,
            RegisterRequest { name: name.into(), endpoint: other.address.to_string(), ..Default::default() },
        )
        .await;
        let status = whisper(&a, name).await.unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::NoRoute), "{status:?}");
        assert!(status.message().contains("another peer answers"), "{}", status.message());
    }
    let right = Holder::claiming("Wanted-5").await;
    let request = RegisterRequest { name: "wanted-5".into(), endpoint: right.address.to_string(), ..Default::default() };
    register(registry.address, request).await;
    assert_eq!(whisper(&a, "wanted-5").await.unwrap().delivered_by, "Wanted-5");
    a.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn a_receiver_that_does_not_answer_is_reported_as_no_route_in_time() {
    let registry = Running::in_memory().await;
    let a = member("a", registry.address, &[]).await;
    until(&a, SessionState::Registered).await;
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (name, address) in [("silent", silent.local_addr().unwrap()), ("gone", gone)] {
        let request = RegisterRequest { name: name.into(), endpoint: address.to_string(), ..Default::default() };
        register(registry.address, request).await;
        let status = whisper(&a, name).await.unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::NoRoute), "{status:?}");
        assert!(status.message().contains("it is known but does not answer"), "{}", status.message());
    }
    a.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn a_registry_that_stalls_is_reported_as_such_and_not_as_a_peer_that_does_not_exist() {
    let registry = Running::in_memory().await;
    let proxy = Proxy::to(registry.address).await;
    let a = member("a", proxy.address, &[]).await;
    until(&a, SessionState::Registered).await;
    assert_eq!(Reason::of(&whisper(&a, "nobody").await.unwrap_err()), Some(Reason::NoRoute));
    // A hundred lookups, of ten names, while the session still counts as registered: in time, and none is taken for a no.
    proxy.stop_answering();
    let begun = Instant::now();
    let mut whispers = JoinSet::new();
    for number in 0..100 {
        let mut client = a.client();
        let request = WhisperRequest { to: format!("peer-{}", number % 10), ..Default::default() };
        whispers.spawn(async move { within("an answer", client.whisper(request)).await.unwrap_err() });
    }
    for status in whispers.join_all().await {
        assert_eq!(Reason::of(&status), Some(Reason::RegistryUnavailable), "{status:?}");
    }
    assert!(begun.elapsed() < Duration::from_secs(15), "{:?}", begun.elapsed());
    proxy.open(registry.address);
    until(&a, SessionState::Registered).await;
    eventually("an answer of the registry", async || {
        (Reason::of(&whisper(&a, "peer-1").await.unwrap_err()) == Some(Reason::NoRoute)).then_some(())
    })
    .await;
    a.stop().await;
    registry.stop().await;
}
