//! Announce against a real server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use p2pdi::{
    status::Reason,
    v1::{AnnounceRequest, AnnounceResponse, Contact, KeepAliveRequest, Load, RegisterRequest, SwarmPeer},
};
use registry::Config;
use std::{collections::BTreeMap, time::Duration};
use support::*;
use tonic::Status;

const SIZE: u64 = 1 << 20;

fn said(had: u64) -> AnnounceRequest {
    AnnounceRequest { blake3: vec![7; 32].into(), size: SIZE, had, ..Default::default() }
}

async fn announce(client: &mut Client, cookie: &str, said: AnnounceRequest) -> Result<AnnounceResponse, Status> {
    Ok(client.announce(with_cookie(said, cookie)).await?.into_inner())
}

fn contact(peer: &SwarmPeer) -> &Contact {
    peer.peer.as_ref().unwrap()
}

#[tokio::test]
async fn members_of_a_swarm_learn_of_each_other_until_they_leave() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let labels = BTreeMap::from([("zone".to_owned(), "east".to_owned())]);
    let a = client.register(RegisterRequest { labels, ..asking("a", "10.0.0.1:7801") }).await.unwrap().into_inner();
    let b = register(&mut client, "b", "10.0.0.2:7801").await;
    let get = observe(&mut client, "get").await;

    let first = announce(&mut client, &a.cookie, said(0)).await.unwrap();
    assert_eq!((first.others.len(), first.search, first.members), (0, true, 1));
    let second = announce(&mut client, &b.cookie, said(SIZE)).await.unwrap();
    let other = &second.others[0];
    assert_eq!((contact(other).name.as_str(), other.zone.as_str(), contact(other).id.clone()), ("a", "east", a.peer.unwrap().id));
    assert!((10..=60).contains(&second.interval.unwrap().seconds), "{:?}", second.interval);

    // An observer serves what it has at a port of its own.
    let third =
        announce(&mut client, &get.cookie, AnnounceRequest { endpoint: "10.0.0.3:9000".into(), ..said(5) }).await.unwrap();
    assert_eq!((third.others.len(), third.members, third.whole), (2, 3, 1));
    let again = announce(&mut client, &a.cookie, said(100)).await.unwrap();
    let mut seen: Vec<_> = again.others.iter().map(|other| (contact(other).endpoint.as_str(), other.had)).collect();
    seen.sort_unstable();
    assert_eq!(seen, [("10.0.0.2:7801", SIZE), ("10.0.0.3:9000", 5)]);

    leave(&mut client, &b.cookie).await.unwrap();
    leave(&mut client, &get.cookie).await.unwrap();
    let alone = announce(&mut client, &a.cookie, said(100)).await.unwrap();
    assert_eq!((alone.others.len(), alone.members), (0, 1));
    assert_refused(announce(&mut client, &b.cookie, said(SIZE)).await, Reason::LeaseExpired);
    registry.stop().await;
}

#[tokio::test]
async fn a_lease_that_runs_out_ends_the_membership_and_announces_do_not_extend_it() {
    let registry = Running::start(Config { ttl: Duration::from_secs(1), ..in_memory() }).await;
    let mut client = registry.client();
    let a = register(&mut client, "a", "10.0.0.1:7801").await;
    let get = observe(&mut client, "get").await;
    let b = register(&mut client, "b", "10.0.0.2:7801").await;
    announce(&mut client, &get.cookie, AnnounceRequest { endpoint: "10.0.0.3:9000".into(), ..said(5) }).await.unwrap();
    let seen = eventually("the leases of a and of the observer are over", async || {
        let lost = announce(&mut client.clone(), &a.cookie, said(0)).await;
        keep_alive(&mut client.clone(), &b.cookie).await.unwrap();
        let seen = announce(&mut client.clone(), &b.cookie, said(0)).await.unwrap();
        lost.is_err_and(|error| Reason::of(&error) == Some(Reason::LeaseExpired)).then_some(seen).filter(|seen| seen.members == 1)
    });
    assert_eq!(seen.await.others.len(), 0);
    registry.stop().await;
}

#[tokio::test]
async fn what_one_member_finds_is_reported_to_the_others() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let a = register(&mut client, "a", "10.0.0.1:7801").await;
    let b = register(&mut client, "b", "10.0.0.2:7801").await;
    assert!(announce(&mut client, &a.cookie, said(0)).await.unwrap().search);
    let waiting = announce(&mut client, &b.cookie, said(0)).await.unwrap();
    assert!(!waiting.search && waiting.interval.unwrap().seconds <= 2, "{waiting:?}");
    let found =
        SwarmPeer { peer: Some(Contact { endpoint: "seed.example:7801".into(), ..Default::default() }), ..Default::default() };
    announce(&mut client, &a.cookie, AnnounceRequest { holders: vec![found], ..said(0) }).await.unwrap();
    let told = announce(&mut client, &b.cookie, said(0)).await.unwrap();
    let reported: Vec<_> = told.others.iter().filter(|other| other.reported).collect();
    assert_eq!((reported.len(), contact(reported[0]).endpoint.as_str()), (1, "seed.example:7801"));
    assert!(reported[0].complete && !told.search && told.whole == 0);
    registry.stop().await;
}

#[tokio::test]
async fn an_announce_by_hash_alone_is_answered_with_the_size() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let a = register(&mut client, "a", "10.0.0.1:7801").await;
    let b = register(&mut client, "b", "10.0.0.2:7801").await;
    let unknown = AnnounceRequest { size: 0, ..said(0) };
    let first = announce(&mut client, &a.cookie, unknown.clone()).await.unwrap();
    assert_eq!((first.search, first.size, first.whole), (true, 0, 0));
    assert_eq!(announce(&mut client, &b.cookie, said(SIZE)).await.unwrap().size, SIZE);
    let told = announce(&mut client, &a.cookie, unknown).await.unwrap();
    assert_eq!((contact(&told.others[0]).name.as_str(), told.size, told.members), ("b", SIZE, 2));
    registry.stop().await;
}

#[tokio::test]
async fn the_least_loaded_peer_comes_first() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    for (name, uploads) in [("busy", 50), ("free", 0)] {
        let peer = register(&mut client, name, &format!("{name}.example:7801")).await;
        let load = Some(Load { uploads, ..Default::default() });
        client.keep_alive(with_cookie(KeepAliveRequest { load, ..Default::default() }, &peer.cookie)).await.unwrap();
        announce(&mut client, &peer.cookie, said(SIZE)).await.unwrap();
    }
    let asking = register(&mut client, "asking", "10.0.0.9:7801").await;
    // A newcomer's load counts as none for some seconds, so at first either of them is named.
    eventually("the free one is named first, each time", async || {
        let mut client = client.clone();
        for _ in 0..20 {
            let answer = announce(&mut client, &asking.cookie, AnnounceRequest { want: 1, ..said(0) }).await.unwrap();
            if contact(&answer.others[0]).name != "free" {
                return None;
            }
        }
        Some(())
    })
    .await;
    registry.stop().await;
}

#[tokio::test]
async fn wrong_announces_are_refused_with_the_field() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let a = register(&mut client, "a", "10.0.0.1:7801").await;
    let reported = |endpoint: &str| SwarmPeer {
        peer: Some(Contact { endpoint: endpoint.into(), ..Default::default() }),
        ..Default::default()
    };
    for (field, wrong) in [
        ("blake3", AnnounceRequest { blake3: vec![7; 31].into(), ..said(0) }),
        ("size", AnnounceRequest { size: u64::MAX, ..said(0) }),
        ("had", said(SIZE + 1)),
        ("endpoint", AnnounceRequest { endpoint: "10.0.0.3:9000".into(), ..said(0) }),
        ("endpoint", AnnounceRequest { endpoint: "nonsense".into(), ..said(0) }),
        ("endpoint", AnnounceRequest { holders: vec![reported("0.0.0.0:1")], ..said(0) }),
        ("holders", AnnounceRequest { holders: vec![SwarmPeer::default()], ..said(0) }),
        ("holders", AnnounceRequest { holders: vec![reported("10.0.0.1:1"); 9], ..said(0) }),
    ] {
        let refused = assert_refused(announce(&mut client, &a.cookie, wrong).await, Reason::InvalidField);
        assert_eq!(p2pdi::status::metadata(&refused, "field").as_deref(), Some(field), "{refused:?}");
    }
    assert_refused(client.announce(said(0)).await, Reason::CookieMissing);
    assert_refused(announce(&mut client, &"0".repeat(32), said(0)).await, Reason::CookieUnknown);
    registry.stop().await;
}
