//! Getting the messages of another, and sending messages as another.

use crate::{A, ATTACKER, B, Network, connect, link::Link, reason};
use p2pdi::{
    id::PeerId,
    status::Reason,
    v1::{Relay, WhisperRequest, link_frame::Body, peer_client::PeerClient},
};

#[test]
fn a_peer_with_the_lowest_id_and_the_name_of_a_registered_one_gets_none_of_its_messages() {
    for network in Network::both() {
        let _registry = network.registry();
        let [a, b] = network.peers([&[], &[]]);
        let (mallory, victims) = (network.mallory(), [a.address, b.address]);
        let whispers = || {
            for number in 0..4 {
                for (machine, via) in [(B, b.address), (A, a.address)] {
                    let arguments = ["whisper", "a", &format!("secret-{number}"), "--via", &via.to_string()];
                    network.p2pctl(machine, &arguments).exits(0).stdout_has(&["delivered by a"]);
                }
            }
        };
        network.on(ATTACKER, async || {
            let mut links = Vec::new();
            for to in victims {
                for id in [PeerId::from_u128(0), PeerId::of_name(&"a".parse().unwrap())] {
                    links.extend(Link::open(to, mallory.as_ref(), "a", id).await);
                    // Where there are certificates, who shows none opens nothing.
                    assert!(!network.is_certified() || Link::open(to, None, "a", id).await.is_none());
                }
            }
            assert!(!network.is_certified() || links.is_empty(), "the certificate is for another name");
            whispers();
            for link in &mut links {
                let heard = link.heard().await;
                assert!(!heard.iter().any(|body| matches!(body, Body::Relay(_))), "{heard:?}");
            }
        });
        assert_eq!(network.received(A, a.address), 8);
    }
}

#[test]
fn nobody_sends_messages_as_another_where_there_are_certificates() {
    for network in Network::both() {
        let _registry = network.registry();
        let [a, b] = network.peers([&[], &[]]);
        let (mallory, victims) = (network.mallory(), [a.address, b.address]);
        let whisper = || WhisperRequest {
            to: "a".into(),
            from: "b".into(),
            body: "made up".into(),
            message_id: vec![7; 16].into(),
            ..WhisperRequest::default()
        };
        network.on(ATTACKER, async || {
            for to in victims {
                let sent = match connect(to, mallory.as_ref()).await {
                    Ok(channel) => PeerClient::new(channel).whisper(whisper()).await,
                    Err(error) => panic!("{error}"),
                };
                match network.is_certified() {
                    true => assert_eq!(reason(sent), Some(Reason::NameNotYours)),
                    // As the README says: the sender is whoever the message says.
                    false => assert_eq!(sent.unwrap().into_inner().delivered_by, "a"),
                }
                if network.is_certified()
                    && let Ok(channel) = connect(to, None).await
                {
                    PeerClient::new(channel).whisper(whisper()).await.expect_err("it shows no certificate");
                }
            }
            // On a link of her own, to the peer and through another.
            let id = PeerId::of_name(&"mallory".parse().unwrap());
            for to in victims {
                let Some(mut link) = Link::open(to, mallory.as_ref(), "mallory", id).await else {
                    panic!("a peer of the network links to others");
                };
                let relay = Relay {
                    id: vec![9; 16].into(),
                    to: "a".into(),
                    from: "b".into(),
                    body: "made up".into(),
                    hops: 1,
                    message_id: vec![9; 16].into(),
                    ..Relay::default()
                };
                link.send(Body::Relay(relay)).await;
                link.heard().await;
            }
        });
        if network.is_certified() {
            assert_eq!(network.received(A, a.address), 0);
        }
    }
}
