//! Three peers: A, B, and C with bootnodes A and B.

use crate::support::{Setup, TestPeer, until, whisper};
use p2pdi::{
    status::Reason,
    v1::{BroadcastRequest, JoinRequest, ListPeersRequest, SubscribeRequest, TopologyRequest},
};
use std::time::{Duration, Instant};

async fn a_b_c() -> (TestPeer, TestPeer, TestPeer) {
    let (a, b) = (Setup::named("A").start().await, Setup::named("B").start().await);
    let c = Setup::named("C").with_bootnodes([&a, &b]).start().await;
    until("C is linked to both", async || c.is_linked_to(&a) && c.is_linked_to(&b)).await;
    (a, b, c)
}

#[tokio::test]
async fn every_peer_whispers_to_every_other() {
    let (a, b, c) = a_b_c().await;
    for (from, to) in [(&c, &a), (&c, &b), (&b, &c), (&a, &c), (&a, &b), (&b, &b)] {
        let (sender, name) = (from.handle.identity().name().to_string(), to.handle.identity().name().to_string());
        let body = format!("{sender} to {name}");
        let answer = from.client().await.whisper(whisper(&name.to_lowercase(), &body)).await.unwrap().into_inner();
        assert_eq!(answer.delivered_by, name);
        // A and B may be linked by now, or not.
        let hops = if sender == name { 0..=0 } else { 1..=2 };
        assert!(hops.contains(&answer.hops), "{body}: {answer:?}");
        assert_eq!(to.messages().iter().filter(|message| **message == body).count(), 1, "{:?}", to.messages());
    }
    let begun = Instant::now();
    let refused = a.client().await.whisper(whisper("nobody", "hello")).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::NoRoute));
    assert_eq!(refused.message(), "request cannot be fulfilled: no route to nobody");
    // Every peer was asked, so the answer comes long before the deadline of five seconds.
    assert!(begun.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn a_burst_of_the_longest_messages_arrives_and_closes_no_link() {
    let a = Setup::named("A").start().await;
    let b = Setup::named("B").with_bootnodes([&a]).start().await;
    until("they are linked", async || a.is_linked_to(&b) && b.is_linked_to(&a)).await;
    let linked = || a.handle.mesh().view().linked.len();
    let client = a.client().await;
    let mut sending = tokio::task::JoinSet::new();
    for number in 0..60 {
        let mut client = client.clone();
        // The longest body, and each one different.
        let body = number.to_string() + &"x".repeat(256 * 1024 - 2);
        sending.spawn(async move { client.whisper(whisper("B", &body)).await });
    }
    while let Some(sent) = sending.join_next().await {
        assert_eq!(sent.unwrap().unwrap().into_inner().delivered_by, "B");
        assert_eq!(linked(), 1);
    }
    let status = b.handle.inbox().status();
    assert_eq!((status.received, status.messages + status.dropped), (60, 60));
}

#[tokio::test]
async fn peers_that_cannot_be_dialled_whisper_along_links_of_another_peer() {
    let middle = Setup::named("middle").start().await;
    // As behind NATs: they dial others, and cannot be dialled. Port 1 refuses.
    let hidden = |name: &str| Setup { advertise: Some("127.0.0.1:1".parse().unwrap()), ..Setup::named(name) };
    let left = hidden("left").with_bootnodes([&middle]).start().await;
    let right = hidden("right").with_bootnodes([&middle]).start().await;
    until("they are linked", async || middle.is_linked_to(&left) && middle.is_linked_to(&right)).await;
    until("they have the links as well", async || left.is_linked_to(&middle) && right.is_linked_to(&middle)).await;
    let answer = left.client().await.whisper(whisper("right", "hello")).await.unwrap().into_inner();
    assert_eq!((answer.delivered_by.as_str(), answer.hops), ("right", 2));
    assert_eq!(right.messages(), ["hello"]);
    let large = "x".repeat(256 * 1024);
    right.client().await.whisper(whisper("left", &large)).await.unwrap();
    assert_eq!(left.messages()[0].len(), large.len());
    assert_eq!(middle.messages().len(), 0);
    until("it is counted", async || middle.handle.mesh().view().status.relayed == 2).await;
    // The following whispers use the known route: they are more than the middle peer accepts seeks for at once.
    let mut client = left.client().await;
    for number in 0..150 {
        let answer = client.whisper(whisper("right", &number.to_string())).await.unwrap().into_inner();
        assert_eq!((answer.delivered_by.as_str(), answer.hops), ("right", 2));
    }
    assert_eq!(right.messages().len(), 151);
    // When the route is gone, a whisper is refused.
    drop(middle);
    until("the loss is detected", async || left.handle.mesh().view().neighbours.is_empty()).await;
    let refused = left.client().await.whisper(whisper("right", "hello")).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::NoRoute));
}

#[tokio::test]
async fn seeks_above_the_rate_limit_are_refused_as_busy() {
    let middle = Setup::named("middle").start().await;
    let left = Setup::named("left").with_bootnodes([&middle]).start().await;
    until("they are linked", async || left.is_linked_to(&middle) && middle.is_linked_to(&left)).await;
    let client = left.client().await;
    let (mut unknown, mut busy) = (0, 0);
    until("some seeks are refused", async || {
        let mut asking = tokio::task::JoinSet::new();
        // Far more than the middle peer forwards in a second.
        for number in 0..500 {
            let mut client = client.clone();
            asking.spawn(async move { client.whisper(whisper(&format!("nobody-{number}"), "hello")).await });
        }
        while let Some(asked) = asking.join_next().await {
            let refused = asked.unwrap().unwrap_err();
            match Reason::of(&refused) {
                // Every peer was asked: there is no route.
                Some(Reason::NoRoute) => unknown += 1,
                Some(Reason::TooManySeeks) => busy += 1,
                _ => panic!("{refused}"),
            }
        }
        busy > 0
    })
    .await;
    assert!(unknown > 0, "all {busy} seeks were refused");
    until("it may seek again", async || {
        let refused = left.client().await.whisper(whisper("nobody", "hello")).await.unwrap_err();
        Reason::of(&refused) == Some(Reason::NoRoute)
    })
    .await;
}

#[tokio::test]
async fn curl_whispers_and_broadcasts_and_other_sites_do_not() {
    let (a, _b, c) = a_b_c().await;
    let (code, text) = c.get("/whisper?name=a&message=hello%20there", &[]).await;
    assert_eq!((code, text.as_str()), (200, "delivered by A\n"));
    assert_eq!(a.messages(), ["hello there"]);
    let (code, text) = c.get("/whisper?name=foo&message=hello", &[]).await;
    assert_eq!((code, text.as_str()), (404, "request cannot be fulfilled: no route to foo\n"));
    assert_eq!(c.get("/whisper?name=a", &[]).await.0, 400);
    assert_eq!(c.get("/whisper?name=two%20words&message=x", &[]).await.0, 400);
    for header in ["Origin: http://evil.example", "Sec-Fetch-Site: cross-site"] {
        assert_eq!(c.get("/whisper?name=a&message=evil", &[header]).await.0, 403);
        assert_eq!(c.get("/broadcast?message=evil", &[header]).await.0, 403);
    }
    assert_eq!(a.messages().len(), 1);
    let (code, text) = c.get("/broadcast?message=to%20all", &[]).await;
    assert_eq!((code, text.as_str()), (200, "2 of 2 known peers have it\n"));
    let (code, text) = c.get("/broadcast?message=never&wait=2m", &[]).await;
    assert_eq!((code, text.as_str()), (400, "wait: is too long; acknowledgements are gathered for at most 60 s\n"));
    let (_, json) = c.get("/broadcast?message=again", &["Accept: application/json"]).await;
    assert!(json.contains(r#""acknowledged":2"#) && json.contains(r#""missing":[]"#), "{json}");
    assert!(c.get("/", &[]).await.1.contains("linked"));
}

#[tokio::test]
async fn a_ping_is_answered_with_the_address_and_an_unknown_kind_is_counted() {
    let (a, _b, c) = a_b_c().await;
    let ping = p2pdi::v1::WhisperRequest { kind: "PING".into(), ..whisper("A", "") };
    let answer = c.client().await.whisper(ping).await.unwrap().into_inner();
    assert_eq!((answer.reply_kind.as_str(), &answer.reply[..]), ("PONG", a.address.to_string().as_bytes()));
    let odd = p2pdi::v1::WhisperRequest { kind: "ODD".into(), ..whisper("A", "?") };
    c.client().await.whisper(odd).await.unwrap();
    assert_eq!(a.handle.inbox().status().unclaimed, 1);
    assert!(a.messages().is_empty());
}

#[tokio::test]
async fn the_operator_joins_subscribes_broadcasts_and_lists_the_topology() {
    let (a, b) = (Setup::named("A").start().await, Setup::named("B").start().await);
    let joined = a.control().await.join(JoinRequest { endpoint: b.address.to_string() }).await.unwrap().into_inner();
    assert_eq!(joined.peer.unwrap().name, "B");
    until("they are linked", async || a.is_linked_to(&b) && b.is_linked_to(&a)).await;
    let nobody = a.control().await.join(JoinRequest { endpoint: "127.0.0.1:1".into() }).await.unwrap_err();
    assert_eq!(Reason::of(&nobody), Some(Reason::NoRoute));
    let itself = a.control().await.join(JoinRequest { endpoint: a.address.to_string() }).await.unwrap_err();
    assert!(itself.message().contains("this peer itself"), "{itself}");

    let listen = SubscribeRequest { kinds: vec!["news".into()] };
    let mut messages = b.control().await.subscribe(listen).await.unwrap().into_inner();
    assert!(messages.message().await.unwrap().unwrap().message.is_none());
    let news =
        BroadcastRequest { kind: "news".into(), body: "hear".into(), wait: Some(prost_types::Duration { seconds: 5, nanos: 0 }) };
    let tally = a.control().await.broadcast(news).await.unwrap().into_inner();
    assert_eq!((tally.known, tally.acknowledged, tally.missing.len()), (1, 1, 0));
    let long = BroadcastRequest { wait: Some(prost_types::Duration { seconds: 60, nanos: 1 }), ..BroadcastRequest::default() };
    let refused = a.control().await.broadcast(long).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::InvalidField), "{refused}");
    assert!(refused.message().starts_with("wait: ") && refused.message().contains("at most 60 s"), "{refused}");
    let message = messages.message().await.unwrap().unwrap().message.unwrap();
    assert_eq!((message.from.as_str(), message.kind.as_str(), &message.body[..]), ("A", "news", &b"hear"[..]));
    assert!(message.broadcast);

    let listed = b.client().await.list_peers(ListPeersRequest {}).await.unwrap().into_inner();
    assert_eq!(listed.neighbours.len(), 1);
    let topology = b.control().await.topology(TopologyRequest {}).await.unwrap().into_inner();
    assert_eq!(topology.peers.unwrap().neighbours[0].peer.as_ref().unwrap().name, "A");
    b.stop().await;
    until("A has received the goodbye", async || a.handle.mesh().view().neighbours.is_empty()).await;
}
