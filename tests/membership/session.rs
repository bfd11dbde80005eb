//! A peer's session with a registry that stops, restarts, loses its records or refuses the name.

use super::*;
use p2pdi::status::Reason;
use peerd::{
    identity::StateError,
    node::{Node, NodeError},
};

#[tokio::test]
async fn a_registry_that_starts_after_its_peer_is_found() {
    let proxy = Proxy::closed().await;
    let peer = member("early", proxy.address, &[("rfc1.txt", b"one")]).await;
    let status = until(&peer, SessionState::Unreachable).await;
    assert!(status.detail.contains("does not answer") && status.registrations == 0, "{status:?}");
    assert_eq!(status.registry, format!("http://{}", proxy.address));
    peer.assert_serves("rfc1.txt", b"one").await;
    let registry = Running::in_memory().await;
    proxy.open(registry.address);
    let status = until(&peer, SessionState::Registered).await;
    assert_eq!(status.registrations, 1);
    assert_eq!(active(registry.address).await, ["early"]);
    peer.stop().await;
    assert!(active(registry.address).await.is_empty(), "a peer that stops leaves");
    registry.stop().await;
}

#[tokio::test]
async fn a_peer_does_not_register_again_after_a_registry_restarts_with_its_records() {
    let state = tempfile::tempdir().unwrap();
    let registry = Running::in_folder(state.path()).await;
    let proxy = Proxy::to(registry.address).await;
    let peer = member("rider", proxy.address, &[("rfc1.txt", b"one")]).await;
    until(&peer, SessionState::Registered).await;
    proxy.close();
    registry.stop().await;
    until(&peer, SessionState::Unreachable).await;
    peer.assert_serves("rfc1.txt", b"one").await;
    let registry = Running::in_folder(state.path()).await;
    proxy.open(registry.address);
    let status = until(&peer, SessionState::Registered).await;
    assert_eq!(status.registrations, 1, "{status:?}");
    assert_eq!(active(registry.address).await, ["rider"]);
    peer.stop().await;
    assert!(active(registry.address).await.is_empty());
    registry.stop().await;
}

#[tokio::test]
async fn a_peer_registers_again_after_its_lease_expired_while_the_registry_was_unreachable() {
    let registry = Running::in_memory().await;
    let proxy = Proxy::to(registry.address).await;
    let peer = member("sleeper", proxy.address, &[]).await;
    until(&peer, SessionState::Registered).await;
    proxy.close();
    eventually("the end of the lease", async || active(registry.address).await.is_empty().then_some(())).await;
    proxy.open(registry.address);
    eventually("its return", async || (active(registry.address).await == ["sleeper"]).then_some(())).await;
    let status = until(&peer, SessionState::Registered).await;
    assert_eq!(status.registrations, 2, "{status:?}");
    peer.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn peers_register_again_with_a_registry_that_lost_its_records() {
    let registry = Running::in_memory().await;
    let proxy = Proxy::to(registry.address).await;
    let mut peers = Vec::new();
    for name in ["a", "b", "c"] {
        peers.push(member(name, proxy.address, &[]).await);
    }
    for peer in &peers {
        until(peer, SessionState::Registered).await;
    }
    let fresh = Running::in_memory().await;
    proxy.open(fresh.address);
    registry.stop().await;
    eventually("all of them", async || (active(fresh.address).await == ["a", "b", "c"]).then_some(())).await;
    for peer in &peers {
        let status = until(peer, SessionState::Registered).await;
        assert_eq!(status.registrations, 2, "{status:?}");
        eventually("the other two", async || (peer.handle.session().known().len() == 2).then_some(())).await;
    }
    for peer in peers {
        peer.stop().await;
    }
    assert!(active(fresh.address).await.is_empty());
    fresh.stop().await;
}

#[tokio::test]
async fn a_registry_that_does_not_answer_delays_neither_serving_nor_stopping() {
    let registry = Running::in_memory().await;
    let proxy = Proxy::to(registry.address).await;
    let peer = member("patient", proxy.address, &[("rfc1.txt", b"one")]).await;
    until(&peer, SessionState::Registered).await;
    proxy.stop_answering();
    peer.assert_serves("rfc1.txt", b"one").await;
    let status = until(&peer, SessionState::Unreachable).await;
    assert!(status.detail.contains("still trying"), "{status:?}");
    // Whispers to unknown peers do not wait for it either, and do not take its silence for a no.
    let whisper = p2pdi::v1::WhisperRequest { to: "stranger".into(), ..Default::default() };
    let status = within("an answer", peer.client().whisper(whisper)).await.unwrap_err();
    assert_eq!(Reason::of(&status), Some(Reason::RegistryUnavailable), "{status:?}");
    let said = status.message();
    assert!(said.starts_with("it is unknown whether there is a route to stranger: the registry did not answer ("), "{said}");
    assert!(said.ends_with("; try again in a few seconds"), "{said}");
    peer.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn a_name_in_use_is_refused_with_a_reason_and_registered_once_it_is_free() {
    let registry = Running::in_memory().await;
    let first = member("twin", registry.address, &[]).await;
    until(&first, SessionState::Registered).await;
    let second = member("TWIN", registry.address, &[("rfc1.txt", b"one")]).await;
    let status = until(&second, SessionState::Refused).await;
    assert!(status.detail.contains("twin") && status.registrations == 0, "{status:?}");
    assert!(status.detail.contains("p2pctl registry expire") && status.detail.contains("still trying"), "{status:?}");
    second.assert_serves("rfc1.txt", b"one").await;
    // The first peer keeps its lease meanwhile.
    assert_eq!(first.handle.session().status().registrations, 1);
    assert_eq!(active(registry.address).await, ["twin"]);
    first.stop().await;
    until(&second, SessionState::Registered).await;
    assert_eq!(active(registry.address).await, ["TWIN"]);
    second.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn a_peer_that_was_killed_gets_its_record_back() {
    let registry = Running::in_memory().await;
    let folder = tempfile::tempdir().unwrap();
    let proxy = Proxy::to(registry.address).await;
    let peer = Peer::start(member_config("phoenix", proxy.address, &folder), folder).await;
    until(&peer, SessionState::Registered).await;
    let id = peer.handle.identity().id();
    // It cannot send Leave.
    proxy.close();
    let folder = peer.stop().await;
    assert_eq!(active(registry.address).await, ["phoenix"]);
    proxy.open(registry.address);
    // At another address, while its lease still runs: the cookie in its folder proves that it is the same.
    let peer = Peer::start(member_config("phoenix", proxy.address, &folder), folder).await;
    let status = until(&peer, SessionState::Registered).await;
    assert_eq!((status.registrations, peer.handle.identity().id()), (1, id));
    peer.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn a_peer_that_lost_its_state_gets_its_name_back_when_its_lease_and_the_reservation_have_ended() {
    let registry = Running::in_memory().await;
    let proxy = Proxy::to(registry.address).await;
    let peer = member("amnesiac", proxy.address, &[]).await;
    until(&peer, SessionState::Registered).await;
    // It cannot send Leave.
    proxy.close();
    let (address, _lost) = (peer.address, peer.stop_keeping_address().await);
    proxy.open(registry.address);
    // The same name, address and endpoint are no proof.
    let folder = tempfile::tempdir().unwrap();
    let peer = Peer::listening_on(&address.to_string(), member_config("amnesiac", proxy.address, &folder), folder).await;
    until(&peer, SessionState::Refused).await;
    assert_eq!(until(&peer, SessionState::Registered).await.registrations, 1);
    peer.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn a_state_folder_is_used_by_one_peer_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("share")).unwrap();
    let config = peer::config("one", &folder);
    let first = Peer::start(config.clone(), folder).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let error = Node::open(config.clone(), listener).map(|_| ()).unwrap_err();
    assert!(matches!(error, NodeError::State(StateError::Locked { .. })), "{error}");
    assert!(error.to_string().contains("in use by another process"), "{error}");
    first.client().ping(p2pdi::v1::PingRequest {}).await.unwrap();
    let folder = first.stop().await;
    Peer::start(config, folder).await.stop().await;
}
