//! Whispers: who they are for, and who they are from.

use crate::{Network, dial, has, id_of, link::Link, received, support::within, until_linked};
use crate::{forged::signed, support::peer::Peer};
use p2pdi::{
    id::PeerId,
    signed::Statement,
    status::Reason,
    tls::{Expected, Tls},
    v1::{WhisperRequest, WhisperResponse, peer_client::PeerClient},
};
use tonic::Status;

fn whisper(to: &str, from: &str, body: &'static str) -> WhisperRequest {
    WhisperRequest { to: to.into(), from: from.into(), body: body.into(), message_id: vec![7; 16].into(), ..Default::default() }
}

async fn send(via: &Peer, tls: &Tls, request: WhisperRequest) -> Result<WhisperResponse, Status> {
    let channel = dial(tls).connect(&via.address.into(), Expected::Anyone).await.unwrap();
    within("an answer", PeerClient::new(channel).whisper(request)).await.map(tonic::Response::into_inner)
}

#[tokio::test]
async fn a_peer_with_the_lowest_id_and_the_name_of_another_gets_no_message() {
    let network = Network::new().await;
    let a = network.peer("a", &[]).await;
    let b = network.peer("b", &[&a]).await;
    until_linked(&b, &a).await;
    let impostor = network.authority.peer("impostor");
    for (name, id) in [
        ("a", PeerId::from_u128(0)),
        ("a", id_of("a")),
        ("impostor", PeerId::from_u128(0)),
        ("impostor", id_of("a")),
        ("b", id_of("b")),
    ] {
        for peer in [&a, &b] {
            assert!(Link::open(peer, &impostor, name, id).await.ends_unheard().await, "{name} {id}");
        }
    }
    assert!(!Link::open(&b, &impostor, "impostor", id_of("impostor")).await.ends_unheard().await);
    for _ in 0..4 {
        let answer = b.handle.whisper(whisper("a", "b", "for a")).await.unwrap();
        assert_eq!(answer.delivered_by, "a");
    }
    assert_eq!(received(&a, "for a").await.from, "b");
    network.stop().await;
}

#[tokio::test]
async fn a_whisper_is_from_whom_the_certificate_says() {
    let network = Network::new().await;
    let peer = network.peer("a", &[]).await;
    let (mallory, operator) = (network.authority.peer("mallory"), network.authority.issue(&[], "operator/alice"));
    for from in ["b", "a.mallory", "\u{e9}"] {
        let status = send(&peer, &mallory, whisper("a", from, "made up")).await.unwrap_err();
        assert!(matches!(Reason::of(&status), Some(Reason::NameNotYours | Reason::InvalidField)), "{status:?}");
    }
    // Signed by herself, and said to be from another.
    let (from, to) = ("b".parse().unwrap(), "a".parse().unwrap());
    let statement =
        Statement::Whisper { network: "default", from: &from, to: &to, message_id: &[7; 16], kind: "", body: b"made up" };
    let signature = Some(signed(&mallory, &statement));
    let status = send(&peer, &mallory, WhisperRequest { signature, ..whisper("a", "b", "made up") }).await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::NameNotYours));
    assert!(!has(&peer, "made up"));
    send(&peer, &mallory, whisper("a", "MALLORY", "her own")).await.unwrap();
    assert_eq!(received(&peer, "her own").await.from, "MALLORY");
    send(&peer, &operator, whisper("a", "alice", "of an operator")).await.unwrap();
    assert_eq!(received(&peer, "of an operator").await.from, "alice");
    network.stop().await;
}

#[tokio::test]
async fn a_whisper_is_passed_on_with_the_signature_of_its_sender_only() {
    let network = Network::new().await;
    let a = network.peer("a", &[]).await;
    let b = network.peer("b", &[&a]).await;
    until_linked(&b, &a).await;
    let mallory = network.authority.peer("mallory");
    let status = send(&b, &mallory, whisper("a", "mallory", "unsigned")).await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::NameNotYours), "{status:?}");
    let (from, to) = ("mallory".parse().unwrap(), "a".parse().unwrap());
    let statement =
        Statement::Whisper { network: "default", from: &from, to: &to, message_id: &[7; 16], kind: "", body: b"signed" };
    let request = WhisperRequest { signature: Some(signed(&mallory, &statement)), ..whisper("a", "mallory", "signed") };
    assert_eq!(send(&b, &mallory, request.clone()).await.unwrap().delivered_by, "a");
    assert_eq!(received(&a, "signed").await.from, "mallory");
    // The same signature for another body, or another receiver.
    for changed in [WhisperRequest { body: "other".into(), ..request.clone() }, WhisperRequest { to: "b".into(), ..request }] {
        let status = send(&b, &mallory, changed).await.unwrap_err();
        assert_eq!(Reason::of(&status), Some(Reason::NameNotYours), "{status:?}");
    }
    network.stop().await;
}
