//! Peers with the name of a registered one, which get nothing that is meant for it while the registry answers.

use super::*;
use p2pdi::{
    endpoint::Endpoint,
    v1::{WhisperRequest, WhisperResponse},
};
use peerd::Bootnode;
use std::net::Ipv4Addr;
use tonic::Status;

/// The lowest id there is.
const LOWEST: &str = "00000000000000000000000000000000";
/// Whispers in each case: one that goes to the wrong peer by chance is seen.
const WHISPERS: usize = 20;

/// A peer with the name of another and the lowest id, linked to `victims`. It dials from an address of its own.
async fn impostor(name: &str, registry: Option<SocketAddr>, victims: &[&Peer]) -> Peer {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir_all(folder.path().join("state")).unwrap();
    fs::create_dir_all(folder.path().join("share")).unwrap();
    fs::write(folder.path().join("state/id"), format!("{LOWEST}\n")).unwrap();
    let config = NodeConfig {
        registries: registry.map(Into::into).into_iter().collect(),
        bootnodes: victims.iter().map(|victim| bootnode(victim)).collect(),
        dial_from: Some(Ipv4Addr::new(127, 0, 0, 77).into()),
        ..peer::config(name, &folder)
    };
    let impostor = Peer::start(config, folder).await;
    for victim in victims {
        let id = victim.handle.identity().id();
        eventually("a link to each victim", async || {
            impostor.handle.mesh().view().linked.iter().any(|contact| contact.id() == id).then_some(())
        })
        .await;
    }
    impostor
}

fn bootnode(peer: &Peer) -> Bootnode {
    format!("{}:{}", peer.handle.identity().name(), peer.address.port()).parse().unwrap()
}

async fn whisper(via: &Peer, to: &str, body: &str) -> Result<WhisperResponse, Status> {
    let request = WhisperRequest { to: to.into(), body: body.to_owned().into(), from: "tester".into(), ..Default::default() };
    within("an answer", via.client().whisper(request)).await.map(tonic::Response::into_inner)
}

fn received(peer: &Peer) -> usize {
    peer.handle.inbox().latest(usize::MAX).iter().filter(|message| message.from == "tester").count()
}

async fn knows_of_conflict(peer: &Peer) {
    eventually("the conflict is known", async || (!peer.handle.mesh().view().name_conflicts.is_empty()).then_some(())).await;
}

#[tokio::test]
async fn a_peer_with_the_name_of_a_registered_one_and_the_lowest_id_gets_no_whisper() {
    let registry = Running::in_memory().await;
    let victim = member("victim", registry.address, &[]).await;
    let sender = member("sender", registry.address, &[]).await;
    for peer in [&victim, &sender] {
        until(peer, SessionState::Registered).await;
    }
    // One asks no registry, the other is refused by it.
    for of in [None, Some(registry.address)] {
        let impostor = impostor("victim", of, &[&victim, &sender]).await;
        if of.is_some() {
            until(&impostor, SessionState::Refused).await;
        }
        knows_of_conflict(&victim).await;
        assert_eq!(victim.handle.mesh().view().yields_to(), None, "a registered peer keeps its name");
        let before = received(&victim);
        for number in 0..WHISPERS {
            for via in [&sender, &victim] {
                assert_eq!(whisper(via, "victim", &number.to_string()).await.unwrap().delivered_by, "victim");
            }
        }
        assert_eq!((received(&victim) - before, received(&impostor)), (2 * WHISPERS, 0));
        let found = sender.handle.session().find(&"victim".parse().unwrap()).await.unwrap().unwrap();
        assert_eq!(found.id(), victim.handle.identity().id());
        impostor.stop().await;
    }
    victim.stop().await;
    sender.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn a_registered_peer_that_cannot_be_dialled_is_reached_through_the_mesh_and_its_impostor_is_not() {
    let registry = Running::in_memory().await;
    let relay = member("relay", registry.address, &[]).await;
    let sender = Peer::configured(&[], |config| {
        config.name = "sender".parse().unwrap();
        config.registries = vec![registry.address.into()];
        config.bootnodes = vec![bootnode(&relay)];
    })
    .await;
    // Nothing listens there; it is reached over the link that it opened.
    let nowhere = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    let hidden = Peer::configured(&[], |config| {
        config.name = "hidden".parse().unwrap();
        config.registries = vec![registry.address.into()];
        config.advertise = Some(Endpoint::from(nowhere));
        config.bootnodes = vec![bootnode(&relay)];
    })
    .await;
    for peer in [&relay, &sender, &hidden] {
        until(peer, SessionState::Registered).await;
    }
    let impostor = impostor("hidden", None, &[&relay, &sender]).await;
    eventually("a route", async || whisper(&sender, "hidden", "first").await.ok()).await;
    let before = received(&hidden);
    for number in 0..WHISPERS {
        assert_eq!(whisper(&sender, "hidden", &number.to_string()).await.unwrap().delivered_by, "hidden");
    }
    assert_eq!((received(&hidden) - before, received(&impostor)), (WHISPERS, 0));
    for peer in [hidden, sender, relay, impostor] {
        peer.stop().await;
    }
    registry.stop().await;
}

#[tokio::test]
async fn while_the_registry_is_down_a_registered_peer_keeps_its_name() {
    let registry = Running::in_memory().await;
    let proxy = Proxy::to(registry.address).await;
    let victim = member("victim", proxy.address, &[]).await;
    until(&victim, SessionState::Registered).await;
    proxy.close();
    until(&victim, SessionState::Unreachable).await;
    let impostor = impostor("victim", None, &[&victim]).await;
    knows_of_conflict(&victim).await;
    assert_eq!(victim.handle.mesh().view().yields_to(), None);
    assert_eq!(whisper(&victim, "victim", "to it").await.unwrap().delivered_by, "victim");
    assert_eq!((received(&victim), received(&impostor)), (1, 0));
    victim.stop().await;
    impostor.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn peers_of_another_network_are_refused_by_the_registry_and_by_each_other_and_never_listed() {
    let registry = Running::in_memory().await;
    let here = member("here", registry.address, &[]).await;
    until(&here, SessionState::Registered).await;
    let there = Peer::configured(&[], |config| {
        config.name = "there".parse().unwrap();
        config.network = "other".parse().unwrap();
        config.registries = vec![registry.address.into()];
        config.bootnodes = vec![bootnode(&here)];
    })
    .await;
    let refused = until(&there, SessionState::Refused).await;
    assert!(refused.detail.contains("network default") && refused.detail.contains("network other"), "{refused:?}");
    for (from, to) in [(&here, &there), (&there, &here)] {
        let error = within("an answer", from.handle.mesh().join(to.address.into())).await.unwrap_err();
        assert_eq!(p2pdi::status::Reason::of(&error), Some(p2pdi::status::Reason::WrongNetwork), "{error:?}");
        assert!(error.message().contains("network default") && error.message().contains("network other"), "{error:?}");
        let view = from.handle.mesh().view();
        assert_eq!((view.linked.len(), view.known().count()), (0, 0), "{view:?}");
    }
    assert_eq!(active(registry.address).await, ["here"]);
    there.stop().await;
    here.stop().await;
    registry.stop().await;
}
