//! Name conflicts: two peers with one name.

use crate::support::{Setup, TestPeer, logged, until, whisper};
use p2pdi::id::PeerId;

async fn named(name: &str, id: u128, bootnodes: &[&TestPeer]) -> TestPeer {
    let setup = Setup { id: Some(PeerId::from_u128(id)), ..Setup::named(name) };
    setup.with_bootnodes(bootnodes.iter().copied()).start().await
}

/// Whispers to `name` from `from`; returns which of `receivers` got it.
async fn goes_to(from: &TestPeer, name: &str, body: &str, receivers: [&TestPeer; 2]) -> Vec<bool> {
    from.client().await.whisper(whisper(name, body)).await.unwrap();
    receivers.iter().map(|peer| peer.messages().iter().any(|message| message == body)).collect()
}

#[tokio::test]
async fn without_a_registry_two_peers_with_one_name_detect_each_other_and_the_lower_id_gets_the_messages() {
    logged("");
    let middle = named("middle", 50, &[]).await;
    let other = named("other", 60, &[&middle]).await;
    let low = named("A", 1, &[&middle]).await;
    let high = named("a", 99, &[&other]).await;
    until("both know of the conflict", async || low.mesh().namesakes.len() == 1 && high.mesh().namesakes.len() == 1).await;
    assert_eq!(high.mesh().namesakes[0].id, PeerId::from_u128(1).to_field());
    assert_eq!(low.mesh().namesakes[0].name, "a");
    for (number, from) in [&middle, &other, &low].into_iter().enumerate() {
        assert_eq!(goes_to(from, "A", &format!("message {number}"), [&low, &high]).await, [true, false]);
    }
    // Who asks a peer itself means that peer.
    assert_eq!(goes_to(&high, "A", "to that one", [&low, &high]).await, [false, true]);
    let page = high.get("/", &[]).await.1;
    assert!(
        page.contains("conflict   another peer is called A: 00000000000000000000000000000001 at") && page.contains("go there"),
        "{page}"
    );
    assert!(low.get("/", &[]).await.1.contains("messages for a go here"));
    // Both logged it, once each.
    let id = |id: u128| format!("id={}", PeerId::from_u128(id));
    let reports = |number: u128| logged(&id(number)).iter().filter(|line| line.contains("has this peer's name")).count();
    assert_eq!((reports(1), reports(99)), (1, 1));
    let says = |number: u128, words: &str| logged(&id(number)).iter().any(|line| line.contains(words));
    assert!(says(99, "Messages go to this peer, by its lower id, unless a registry") && says(1, "Messages go to that peer"));
    // When the first is gone, the other owns the name.
    drop(low);
    until("it is detected", async || high.mesh().namesakes.is_empty()).await;
    middle.client().await.whisper(whisper("A", "to the remaining peer")).await.unwrap();
    assert!(high.messages().contains(&"to the remaining peer".to_owned()));
}

#[tokio::test]
async fn a_peer_linked_to_two_peers_with_one_name_logs_it_once() {
    logged("");
    let between = named("between", 150, &[]).await;
    let one = named("Twin", 101, &[&between]).await;
    let other = named("twin", 199, &[&between]).await;
    until("both are linked", async || between.is_linked_to(&one) && between.is_linked_to(&other)).await;
    let reports = || logged("two peers have the same name").into_iter().filter(|line| line.contains("win ")).count();
    until("it is logged", async || reports() > 0).await;
    let words = format!("registered with a registry, else to that at {}", one.address);
    assert!(logged("two peers have the same name").iter().any(|line| line.contains(&words)), "{words}");
    drop(other);
    until("the loss is detected", async || between.handle.mesh().view().linked.len() == 1).await;
    let _again = named("twin", 199, &[&between]).await;
    until("it is back", async || between.handle.mesh().view().linked.len() == 2).await;
    assert_eq!(reports(), 1);
}

#[tokio::test]
async fn a_false_report_of_a_name_conflict_changes_nothing() {
    use crate::raw::{RawLink, contact, frame};
    use p2pdi::v1::{LinkPing, Shuffle, link_frame::Body};
    let a = named("a", 99, &[]).await;
    let mut liar = RawLink::neighbour(a.address, None, contact(7, "liar", "127.0.0.1:1")).await;
    let peers = vec![contact(1, "A", "127.0.0.1:1"), contact(2, "a", "127.0.0.1:2")];
    let path = vec![PeerId::from_u128(7).to_field()];
    liar.send(frame(Body::Shuffle(Shuffle { nonce: 1, path, ttl: 1, peers }))).await;
    // Frames are handled in order, so the pong comes after the shuffle.
    liar.send(frame(Body::Ping(LinkPing { nonce: 7 }))).await;
    while !matches!(liar.next().await.unwrap().body, Some(Body::Pong(_))) {}
    for number in 0..10 {
        a.client().await.whisper(whisper("a", &format!("message {number}"))).await.unwrap();
    }
    assert_eq!(a.messages().len(), 10);
    assert!(a.mesh().namesakes.is_empty());
}
