//! Relayed messages and broadcasts with an origin that is made up.

use crate::{
    Network, has, id_of,
    link::Link,
    received,
    support::{eventually, within},
    until_linked,
};
use p2pdi::{
    id::PeerId,
    signed::{ChainHash, Proof, Statement},
    tls::Tls,
    v1::{
        self, Acknowledge, Advert, Advertise, Announcement, Broadcast, BroadcastId, Contact, Relay, Signature, link_frame::Body,
    },
};
use peerd::inbox::MessageKind;
use prost::Message as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The signature of a statement, with the chain.
pub(crate) fn signed(tls: &Tls, statement: &Statement<'_>) -> Signature {
    let signed_at_ms = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as u64;
    let signature = tls.sign(&statement.to_bytes(signed_at_ms)).unwrap();
    let chain: Vec<_> = tls.identity().unwrap().chain().iter().map(|der| der.to_vec().into()).collect();
    let chain_hash = ChainHash::of(&chain);
    Proof { scheme: signature.scheme, value: signature.bytes.into(), signed_at_ms, chain_hash, chain }.into()
}

fn announcement(name: &str, id: PeerId, body: &'static str) -> bytes::Bytes {
    let sender = Contact { id: id.to_field(), name: name.into(), endpoint: "127.0.0.1:9".into() };
    Announcement { sender: Some(sender), kind: "text".into(), body: body.into(), acknowledge: false }.encode_to_vec().into()
}

/// A broadcast of the peer `name` with the origin `id`, which `signer` signed as that peer's.
fn broadcast(signer: Option<&Tls>, name: &str, id: PeerId, sequence: u64, body: &'static str) -> Body {
    let (payload, incarnation) = (announcement(name, id, body), 1_790_000_000_000);
    let signer_name = name.parse().unwrap();
    let statement =
        Statement::Broadcast { network: "default", origin: id, name: &signer_name, incarnation, sequence, payload: &payload };
    let signature = signer.map(|tls| signed(tls, &statement));
    let id = BroadcastId { origin: id.to_field(), incarnation, sequence };
    Body::Broadcast(Broadcast { id: Some(id), hops: 1, age_ms: 0, payload, signature })
}

fn misbehaviour(peer: &crate::support::peer::Peer) -> u64 {
    peer.handle.mesh().view().status.misbehaviour
}

#[tokio::test]
async fn a_broadcast_with_a_made_up_origin_goes_nowhere_and_counts_against_who_passed_it_on() {
    let network = Network::new().await;
    let (a, mallory) = (network.peer("a", &[]).await, network.authority.peer("mallory"));
    let b = network.peer("b", &[&a]).await;
    until_linked(&b, &a).await;
    let link = Link::neighbour(&b, &mallory).await;
    let forged = [
        broadcast(None, "a", id_of("a"), 1, "forged"),
        broadcast(Some(&mallory), "a", id_of("a"), 2, "forged"),
        // Her own name, and the id of another: its counts would be used up.
        broadcast(Some(&mallory), "mallory", id_of("a"), u64::MAX, "forged"),
        broadcast(Some(&mallory), "mallory", PeerId::from_u128(0), 1, "forged"),
    ];
    let before = misbehaviour(&b);
    for body in forged.clone() {
        link.send(body).await;
    }
    // A payload that its origin did not sign.
    let Body::Broadcast(genuine) = broadcast(Some(&mallory), "mallory", id_of("mallory"), 9, "genuine") else { unreachable!() };
    let changed = Broadcast { payload: announcement("mallory", id_of("mallory"), "forged"), ..genuine.clone() };
    link.send(Body::Broadcast(changed)).await;
    link.send(Body::Broadcast(genuine)).await;
    for peer in [&a, &b] {
        assert_eq!(received(peer, "genuine").await.from, "mallory");
        assert!(!has(peer, "forged"));
    }
    eventually("the count", async || (misbehaviour(&b) - before == forged.len() as u64 + 1).then_some(())).await;
    assert_eq!(misbehaviour(&a), 0);
    // Broadcasts of the peer whose id was used arrive as ever.
    a.handle.mesh().broadcast(&"text".parse::<MessageKind>().unwrap(), "of a".into(), Duration::ZERO).await.unwrap();
    assert_eq!(received(&b, "of a").await.from, "a");
    network.stop().await;
}

#[tokio::test]
async fn adverts_do_not_make_a_peer_count_on_from_a_life_that_it_never_had() {
    let network = Network::new().await;
    let (b, mallory) = (network.peer("b", &[]).await, network.authority.peer("mallory"));
    let mut link = Link::neighbour(&b, &mallory).await;
    let incarnation = 1_900_000_000_000;
    let advert = Advert { origin: id_of("b").to_field(), incarnation, sequences: vec![5], age_ms: 0 };
    link.send(Body::Advertise(Advertise { adverts: vec![advert] })).await;
    // It asks for the proof, which there is not.
    let asked = link.find("a pull", |body| matches!(body, Body::Graft(_))).await;
    let Body::Graft(v1::Graft { ids, .. }) = asked else { unreachable!() };
    assert_eq!((ids.len(), ids[0].incarnation), (1, incarnation));
    b.handle.mesh().broadcast(&"text".parse::<MessageKind>().unwrap(), "of b".into(), Duration::ZERO).await.unwrap();
    let sent = link.find("the broadcast", |body| matches!(body, Body::Broadcast(_) | Body::Advertise(_))).await;
    let said = match sent {
        Body::Broadcast(broadcast) => broadcast.id.unwrap().incarnation,
        Body::Advertise(advertise) => advertise.adverts[0].incarnation,
        _ => unreachable!(),
    };
    assert!(said < incarnation, "{said}");
    network.stop().await;
}

#[tokio::test]
async fn a_relayed_message_with_a_made_up_sender_goes_nowhere() {
    let network = Network::new().await;
    let (a, mallory) = (network.peer("a", &[]).await, network.authority.peer("mallory"));
    let b = network.peer("b", &[&a]).await;
    until_linked(&b, &a).await;
    let mut link = Link::neighbour(&b, &mallory).await;
    let relay = |id: u8, from: &str, to: &str, body: &'static str, by: Option<&str>| {
        let message_id = [id; 16];
        let (sender, receiver) = (by.unwrap_or(from).parse().unwrap(), to.parse().unwrap());
        let statement = Statement::Whisper {
            network: "default",
            from: &sender,
            to: &receiver,
            message_id: &message_id,
            kind: "text",
            body: body.as_bytes(),
        };
        Body::Relay(Relay {
            id: message_id.to_vec().into(),
            to: to.into(),
            kind: "text".into(),
            body: body.into(),
            from: from.into(),
            hops: 1,
            message_id: message_id.to_vec().into(),
            to_id: bytes::Bytes::new(),
            signature: by.map(|_| signed(&mallory, &statement)),
        })
    };
    // To the neighbour, and to one beyond; without a signature, with one of hers, and with one for another name.
    let mut id = 1;
    for to in ["b", "a"] {
        for by in [None, Some("a"), Some("mallory")] {
            link.send(relay(id, "a", to, "forged", by)).await;
            id += 1;
        }
    }
    // What she says herself needs no signature to the neighbour, and one beyond it.
    link.send(relay(50, "mallory", "b", "to b", None)).await;
    link.send(relay(51, "mallory", "a", "unsigned", None)).await;
    link.send(relay(52, "mallory", "a", "to a", Some("mallory"))).await;
    assert_eq!(received(&b, "to b").await.from, "mallory");
    assert_eq!(received(&a, "to a").await.from, "mallory");
    let reply = link.find("the reply", |body| matches!(body, Body::RelayReply(reply) if reply.id[..] == [52; 16])).await;
    let Body::RelayReply(reply) = reply else { unreachable!() };
    assert!(reply.delivered && reply.delivered_by == "a" && reply.signature.is_some());
    for peer in [&a, &b] {
        assert!(!has(peer, "forged") && !has(peer, "unsigned"));
    }
    assert_eq!(misbehaviour(&a), 0);
    network.stop().await;
}

#[tokio::test]
async fn nobody_acknowledges_a_broadcast_for_peers_that_do_not_have_it() {
    let network = Network::new().await;
    let (b, mallory) = (network.peer("b", &[]).await, network.authority.peer("mallory"));
    let mut link = Link::neighbour(&b, &mallory).await;
    let sender = b.handle.mesh().clone();
    let kind = "text".parse::<MessageKind>().unwrap();
    let counted = tokio::spawn(async move { sender.broadcast(&kind, "who has it".into(), Duration::from_secs(2)).await });
    let sent = link.find("the broadcast", |body| matches!(body, Body::Broadcast(_))).await;
    let Body::Broadcast(Broadcast { id, .. }) = sent else { unreachable!() };
    let BroadcastId { origin, incarnation, sequence } = id.clone().unwrap();
    let acknowledge = |name: &str| {
        let by = name.parse().unwrap();
        let origin = PeerId::from_field("origin", &origin).unwrap();
        let statement = Statement::Acknowledgement { network: "default", by: &by, origin, incarnation, sequence };
        let peer = Contact { id: id_of(name).to_field(), name: name.into(), endpoint: "127.0.0.1:9".into() };
        Acknowledge { id: id.clone(), peers: vec![peer], signatures: vec![signed(&mallory, &statement)] }
    };
    let before = misbehaviour(&b);
    // Of herself, and of others that she makes up.
    for name in ["mallory", "made-up-1", "made-up-2"] {
        link.send(Body::Acknowledge(acknowledge(name))).await;
    }
    link.send(Body::Acknowledge(Acknowledge { signatures: Vec::new(), ..acknowledge("made-up-3") })).await;
    let counts = within("the count", counted).await.unwrap().unwrap();
    assert_eq!(counts.acknowledged, 1, "{counts:?}");
    assert_eq!(misbehaviour(&b) - before, 3);
    network.stop().await;
}

#[tokio::test]
async fn a_signed_message_that_is_repeated_is_delivered_once() {
    let network = Network::new().await;
    let (a, mallory) = (network.peer("a", &[]).await, network.authority.peer("mallory"));
    let link = Link::neighbour(&a, &mallory).await;
    let bob = network.authority.peer("bob");
    let relay = |number: u16, id: u128| {
        let message_id = u128::from(number).to_be_bytes();
        let (from, to) = ("bob".parse().unwrap(), "a".parse().unwrap());
        let statement =
            Statement::Whisper { network: "default", from: &from, to: &to, message_id: &message_id, kind: "text", body: b"once" };
        let signature = Some(signed(&bob, &statement));
        let (id, message_id) = (id.to_be_bytes().to_vec().into(), message_id.to_vec().into());
        Relay {
            id,
            to: "a".into(),
            kind: "text".into(),
            body: "once".into(),
            from: "bob".into(),
            message_id,
            signature,
            ..Relay::default()
        }
    };
    let first = relay(1, 1);
    for id in 1..=20_u128 {
        link.send(Body::Relay(Relay { id: id.to_be_bytes().to_vec().into(), ..first.clone() })).await;
    }
    link.send(Body::Relay(relay(2, 100))).await;
    let twice =
        async || (a.handle.inbox().latest(100).iter().filter(|message| message.body == "once").count() >= 2).then_some(());
    eventually("the second message", twice).await;
    assert_eq!(a.handle.inbox().latest(100).iter().filter(|message| message.body == "once").count(), 2);
    network.stop().await;
}
