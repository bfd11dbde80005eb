//! Announces of real peers at a real registry.

use super::*;
use p2pdi::{content::ContentHash, v1::AnnounceRequest};
use peerd::{
    holders::tracker::{Announced, Announcement, Tracker},
    session::AnnounceError,
};

fn said(had: u64) -> Announcement {
    Announcement {
        hash: ContentHash::of(b"x"),
        size: 100,
        had,
        done: false,
        holders: Vec::new(),
        searched: false,
        starved: false,
    }
}

async fn announce(peer: &Peer, had: u64) -> Result<Announced, AnnounceError> {
    Tracker::announce(peer.handle.session(), said(had)).await
}

#[tokio::test]
async fn peers_learn_of_each_other_and_are_forgotten_when_they_stop() {
    let registry = Running::in_memory().await;
    let (a, b) = (member("a", registry.address, &[]).await, member("b", registry.address, &[]).await);
    // At once: it waits for the registration.
    assert!(announce(&a, 0).await.unwrap().search);
    let told = announce(&b, 100).await.unwrap();
    let other = &told.others[0];
    assert_eq!((other.source.label(), &other.source.endpoint, other.had), ("a", a.handle.contact().endpoint(), 0));
    assert_eq!((told.members, told.whole, told.search), (2, 1, false));
    assert!(announce(&a, 0).await.unwrap().others[0].complete);
    b.stop().await;
    let told = eventually("b is gone", async || announce(&a, 0).await.ok().filter(|told| told.members == 1)).await;
    assert!(told.others.is_empty());
    a.stop().await;
    registry.stop().await;
}

#[tokio::test]
async fn an_announce_at_a_registry_that_lost_its_records_registers_the_peer_again_first() {
    let registry = Running::in_memory().await;
    let proxy = Proxy::to(registry.address).await;
    let peer = member("a", proxy.address, &[]).await;
    announce(&peer, 0).await.unwrap();
    let fresh = Running::in_memory().await;
    proxy.open(fresh.address);
    registry.stop().await;
    let told = eventually("the new registry", async || announce(&peer, 5).await.ok()).await;
    assert_eq!(told.members, 1);
    assert_eq!(active(fresh.address).await, ["a"]);
    peer.stop().await;
    fresh.stop().await;
}

#[tokio::test]
async fn a_peer_without_a_registry_has_no_tracker() {
    let peer = Peer::configured(&[], |config| config.registries.clear()).await;
    assert_eq!(peer.handle.session().announce(AnnounceRequest::default()).await, Err(AnnounceError::NoTracker));
    peer.stop().await;
}
