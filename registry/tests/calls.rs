//! Register, KeepAlive, PQuery and Leave against a real server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use p2pdi::{
    status::{Reason, metadata},
    v1::{FreeNameRequest, KeepAliveRequest, Load, PQueryRequest, PeerState, RegisterRequest},
};
use std::{collections::BTreeMap, time::Duration};
use support::*;

#[tokio::test]
async fn a_peer_registers_is_listed_to_others_and_leaves() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let a = register(&mut client, "a", "10.0.0.1:7801").await;
    let b = register(&mut client, "B", "b.example:7801").await;
    assert_eq!(a.cookie.len(), 32);
    assert_ne!(a.cookie, b.cookie);
    let record = a.peer.unwrap();
    assert_eq!((record.name.as_str(), record.registration_count, record.state()), ("a", 1, PeerState::Active));
    assert_eq!(record.id.len(), 16);
    let (ttl, interval) = (a.ttl.unwrap(), a.keep_alive_interval.unwrap());
    assert_eq!(ttl.seconds, 30);
    assert!((8..=10).contains(&interval.seconds), "a third of the ttl, with jitter: {interval}");

    let seen = query(&mut client, &a.cookie, PQueryRequest::default()).await.unwrap();
    assert_eq!((names(&seen.peers), seen.active_peers), (vec!["B"], 2));
    assert_eq!(seen.peers[0].endpoint, "b.example:7801");

    leave(&mut client, &b.cookie).await.unwrap();
    leave(&mut client, &b.cookie).await.expect("again is not an error");
    assert_refused(keep_alive(&mut client, &b.cookie).await, Reason::LeaseExpired);
    let seen = query(&mut client, &a.cookie, PQueryRequest { since_revision: seen.revision, ..Default::default() }).await;
    let seen = seen.unwrap();
    assert_eq!((seen.peers.len(), seen.gone[0].name.as_str(), seen.active_peers), (0, "B", 1));
    registry.stop().await;
}

#[tokio::test]
async fn a_peer_that_comes_back_gets_its_record_back() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let first = register(&mut client, "a", "10.0.0.1:7801").await;
    leave(&mut client, &first.cookie).await.unwrap();
    let second = client.register(with_cookie(asking("A", "10.0.0.2:7801"), &first.cookie)).await.unwrap().into_inner();
    let (before, now) = (first.peer.unwrap(), second.peer.unwrap());
    assert_eq!(now.first_registered_at, before.first_registered_at);
    assert_eq!((now.registration_count, now.id == before.id, now.name.as_str()), (2, true, "A"));
    assert_eq!(second.cookie, first.cookie);
    keep_alive(&mut client, &second.cookie).await.unwrap();
    registry.stop().await;
}

#[tokio::test]
async fn a_peer_that_presents_its_cookie_keeps_it_also_at_a_new_endpoint() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let first = register(&mut client, "a", "10.0.0.1:7801").await;
    let moved = client.register(with_cookie(asking("a", "10.0.0.9:7801"), &first.cookie)).await.unwrap().into_inner();
    assert_eq!((moved.cookie.as_str(), moved.peer.unwrap().endpoint.as_str()), (first.cookie.as_str(), "10.0.0.9:7801"));
    leave(&mut client, &first.cookie).await.unwrap();
    let back = client.register(with_cookie(asking("a", "10.0.0.9:7801"), &first.cookie)).await.unwrap().into_inner();
    assert_eq!(back.cookie, first.cookie);
    registry.stop().await;
}

#[tokio::test]
async fn a_name_with_a_lease_goes_only_to_the_holder_of_its_cookie() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let first = register(&mut client, "a", "10.0.0.1:7801").await;
    let refused = assert_refused(client.register(asking("A", "10.0.0.2:7801")).await, Reason::NameTaken);
    let seconds: u64 = metadata(&refused, "retry_after_seconds").unwrap().parse().unwrap();
    assert!((601..=630).contains(&seconds) && refused.message().contains(&format!("{seconds} s")), "{refused:?}");
    // Another peer's cookie and an unknown one count as none.
    let other = register(&mut client, "other", "10.0.0.3:7801").await;
    for cookie in [other.cookie.as_str(), &"0".repeat(32)] {
        assert_refused(client.register(with_cookie(asking("a", "10.0.0.2:7801"), cookie)).await, Reason::NameTaken);
    }
    // So does a caller from the same address with the same endpoint.
    assert_refused(client.register(asking("a", "10.0.0.1:7801")).await, Reason::NameTaken);
    assert_eq!(keep_alive(&mut client, &first.cookie).await.unwrap().registration_count, 1);
    leave(&mut client, &first.cookie).await.unwrap();
    let refused = assert_refused(client.register(asking("a", "10.0.0.1:7801")).await, Reason::NameTaken);
    assert!(refused.message().contains("reserved") && refused.message().contains("600 s"), "{refused:?}");
    keep_alive(&mut client, &other.cookie).await.unwrap();
    registry.stop().await;
}

#[tokio::test]
async fn an_operator_on_the_registrys_machine_frees_a_name() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let first = register(&mut client, "a", "10.0.0.1:7801").await;
    let free = FreeNameRequest { name: "A".into() };
    assert!(client.free_name(free.clone()).await.unwrap().into_inner().was_held);
    assert!(!client.free_name(free).await.unwrap().into_inner().was_held);
    assert_refused(keep_alive(&mut client, &first.cookie).await, Reason::CookieUnknown);
    let second = register(&mut client, "a", "10.0.0.2:7801").await;
    assert_eq!(keep_alive(&mut client, &second.cookie).await.unwrap().registration_count, 1);
    registry.stop().await;
}

#[tokio::test]
async fn a_name_is_free_after_its_lease_and_its_reservation_ran_out() {
    let config = registry::Config { ttl: Duration::from_secs(2), name_hold: Duration::ZERO, ..in_memory() };
    let registry = Running::start(config).await;
    let mut client = registry.client();
    let first = register(&mut client, "a", "10.0.0.1:7801").await;
    let watcher = register(&mut client, "watcher", "10.0.0.3:7801").await;
    let gone = eventually("the lease of a ends", || {
        let mut client = client.clone();
        let cookie = watcher.cookie.clone();
        async move {
            let since = PQueryRequest { since_revision: watcher.revision, ..Default::default() };
            let seen = query(&mut client, &cookie, since).await.unwrap();
            (!seen.gone.is_empty()).then_some(seen.gone)
        }
    });
    assert_eq!(gone.await[0].name, "a");
    assert_refused(keep_alive(&mut client, &first.cookie).await, Reason::LeaseExpired);
    assert_refused(query(&mut client, &first.cookie, PQueryRequest::default()).await, Reason::LeaseExpired);
    leave(&mut client, &first.cookie).await.unwrap();
    register(&mut client, "a", "10.0.0.2:7801").await;
    registry.stop().await;
}

#[tokio::test]
async fn load_is_listed_and_does_not_change_the_revision() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let a = register(&mut client, "a", "10.0.0.1:7801").await;
    let b = register(&mut client, "b", "10.0.0.2:7801").await;
    let load = Load { uploads: 3, upload_bytes_per_second: 1 << 40, downloads: 2, links: 5 };
    let report = KeepAliveRequest { load: Some(load), index_version: 77, documents: 3 };
    let kept = client.keep_alive(with_cookie(report, &a.cookie)).await.unwrap().into_inner();
    assert_eq!(kept.revision, b.revision);
    let seen = query(&mut client, &b.cookie, PQueryRequest::default()).await.unwrap();
    assert_eq!((seen.peers[0].load, seen.peers[0].index_version, seen.revision), (Some(load), 77, b.revision));
    registry.stop().await;
}

#[tokio::test]
async fn observers_query_and_are_not_listed_unless_asked_for() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let a = register(&mut client, "a", "10.0.0.1:7801").await;
    let observer = observe(&mut client, "watching").await;
    assert_eq!((observer.revision, observer.peer.unwrap().endpoint.as_str()), (a.revision, ""));
    let seen = query(&mut client, &observer.cookie, PQueryRequest::default()).await.unwrap();
    assert_eq!((names(&seen.peers), seen.active_peers), (vec!["a"], 1));
    let list = |include_observers| PQueryRequest { include_observers, ..Default::default() };
    assert!(query(&mut client, &a.cookie, list(false)).await.unwrap().peers.is_empty());
    assert_eq!(names(&query(&mut client, &a.cookie, list(true)).await.unwrap().peers), ["watching"]);
    assert_refused(client.register(asking("Watching", "10.0.0.2:7801")).await, Reason::NameTaken);
    let ask = RegisterRequest { name: "A".into(), observer: true, ..Default::default() };
    assert_refused(client.register(ask).await, Reason::NameTaken);
    leave(&mut client, &observer.cookie).await.unwrap();
    assert_refused(keep_alive(&mut client, &observer.cookie).await, Reason::CookieUnknown);
    register(&mut client, "watching", "10.0.0.2:7801").await;
    registry.stop().await;
}

#[tokio::test]
async fn listings_are_paged_filtered_and_sampled() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let me = observe(&mut client, "me").await.cookie;
    for number in 0..25 {
        let zone = if number % 5 == 0 { "eu" } else { "us" };
        let labels = BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
        let ask = RegisterRequest { labels, ..asking(&format!("peer-{number:02}"), "10.0.0.1:7801") };
        client.register(ask).await.unwrap();
    }
    let (mut all, mut page_token, mut pages) = (Vec::new(), String::new(), 0);
    loop {
        let page = PQueryRequest { page_size: 10, page_token, ..Default::default() };
        let page = query(&mut client, &me, page).await.unwrap();
        all.extend(page.peers);
        (page_token, pages) = (page.next_page_token, pages + 1);
        if page_token.is_empty() {
            break;
        }
    }
    let expected: Vec<_> = (0..25).map(|number| format!("peer-{number:02}")).collect();
    assert_eq!((names(&all), pages), (expected.iter().map(String::as_str).collect(), 3));

    let eu = BTreeMap::from([("zone".to_owned(), "eu".to_owned())]);
    let found = query(&mut client, &me, PQueryRequest { labels: eu, name: "PEER-1*".into(), ..Default::default() }).await;
    assert_eq!(names(&found.unwrap().peers), ["peer-10", "peer-15"]);
    let found = query(&mut client, &me, PQueryRequest { name: "Peer-07".into(), ..Default::default() }).await.unwrap();
    assert_eq!(names(&found.peers), ["peer-07"]);
    let some = query(&mut client, &me, PQueryRequest { sample: 7, ..Default::default() }).await.unwrap().peers;
    let mut distinct = names(&some);
    distinct.dedup();
    assert_eq!(distinct.len(), 7);

    // A token is valid only for its query.
    let first = query(&mut client, &me, PQueryRequest { page_size: 10, ..Default::default() }).await.unwrap();
    let page_token = first.next_page_token;
    for (name, token) in [("peer-*", page_token.as_str()), ("", "nonsense"), ("", &page_token.replace(&page_token[..4], "ffff"))]
    {
        let page = PQueryRequest { name: name.into(), page_token: token.into(), ..Default::default() };
        assert_refused(query(&mut client, &me, page).await, Reason::PageTokenInvalid);
    }
    registry.stop().await;
}

#[tokio::test]
async fn a_delta_lists_what_changed_and_one_from_an_unknown_revision_starts_over() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let me = observe(&mut client, "me").await.cookie;
    let a = register(&mut client, "a", "10.0.0.1:7801").await;
    let b = register(&mut client, "b", "10.0.0.1:7802").await;
    register(&mut client, "c", "10.0.0.1:7803").await;
    let since = |since_revision| PQueryRequest { since_revision, ..Default::default() };
    let seen = query(&mut client, &me, since(a.revision)).await.unwrap();
    assert_eq!((names(&seen.peers), seen.start_over), (vec!["b", "c"], false));
    leave(&mut client, &b.cookie).await.unwrap();
    let later = query(&mut client, &me, since(seen.revision)).await.unwrap();
    assert_eq!((later.peers.len(), later.gone.len(), later.gone[0].name.as_str()), (0, 1, "b"));
    assert!(query(&mut client, &me, since(later.revision)).await.unwrap().gone.is_empty());
    let future = query(&mut client, &me, since(later.revision + 1)).await.unwrap();
    assert_eq!((names(&future.peers), future.start_over), (vec!["a", "c"], true));
    registry.stop().await;
}

#[tokio::test]
async fn concurrent_registrations_of_one_name_end_with_one_holder() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Running::start(in_folder(folder.path())).await;
    let tasks: Vec<_> = (0..20)
        .map(|_| {
            let mut client = registry.client();
            tokio::spawn(async move { client.register(asking("a", "10.0.0.1:7801")).await })
        })
        .collect();
    let mut held = Vec::new();
    for task in tasks {
        match task.await.unwrap() {
            Ok(answer) => held.push(answer.into_inner()),
            refused => drop(assert_refused(refused, Reason::NameTaken)),
        }
    }
    let [holder] = held.as_slice() else { panic!("{held:?}") };
    assert_eq!(holder.peer.as_ref().unwrap().registration_count, 1);
    keep_alive(&mut registry.client(), &holder.cookie).await.unwrap();
    registry.stop().await;
}

#[tokio::test]
async fn a_caller_of_another_network_is_refused_with_both_names() {
    let registry = Running::start(registry::Config { network: "lab".parse().unwrap(), ..in_memory() }).await;
    let mut client = registry.client();
    let ask = |network: &str| RegisterRequest { network: network.into(), ..asking("a", "10.0.0.1:7801") };
    for network in ["", "default", "other"] {
        let refused = assert_refused(client.register(ask(network)).await, Reason::WrongNetwork);
        assert_eq!(metadata(&refused, "network").as_deref(), Some("lab"));
        assert!(refused.message().contains("--network lab"), "{refused:?}");
    }
    assert_refused(client.register(ask("..")).await, Reason::InvalidField);
    client.register(ask("LAB")).await.unwrap();
    registry.stop().await;
}
