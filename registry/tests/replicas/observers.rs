//! Observers, which no store keeps.

use super::three::*;
use crate::{etcd::Etcd, support::*};
use p2pdi::{
    status::Reason,
    v1::{FreeNameRequest, RegisterRequest, RegisterResponse},
};
use std::time::{Duration, Instant};
use tonic::Status;

const TTL: Duration = Duration::from_secs(30);

#[tokio::test(flavor = "multi_thread")]
async fn an_observer_may_move_between_replicas() {
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/observer", 2, TTL).await;
    let (mut a, mut b) = (replicas[0].client(), replicas[1].client());
    register(&mut a, "one", "10.0.0.1:7801").await;
    let observer = observe(&mut a, "looking").await;
    eventually("the other replica lists it", async || (listed(&mut b.clone(), &observer.cookie).await == ["one"]).then_some(()))
        .await;
    assert_eq!(keep_alive(&mut b, &observer.cookie).await.unwrap().name, "looking");
    leave(&mut b, &observer.cookie).await.unwrap();
    let nobody = "5a".repeat(16);
    assert_refused(keep_alive(&mut b, &nobody).await, Reason::CookieUnknown);
}

async fn try_observe(client: &mut Client, name: &str) -> Result<RegisterResponse, Status> {
    let ask = RegisterRequest { name: name.into(), observer: true, ..RegisterRequest::default() };
    client.register(ask).await.map(tonic::Response::into_inner)
}

#[tokio::test(flavor = "multi_thread")]
async fn the_name_of_an_observer_is_nobody_elses_until_it_leaves_whichever_replica_it_tells() {
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/observer-names", 3, TTL).await;
    let [mut a, mut b, mut c] = [0, 1, 2].map(|index| replicas[index].client());
    let one = observe(&mut a, "looking").await;
    for client in [&mut b, &mut c] {
        assert_refused(try_observe(client, "LOOKING").await, Reason::NameTaken);
    }
    // With its cookie it takes it again anywhere.
    let ask = || RegisterRequest { name: "looking".into(), observer: true, ..RegisterRequest::default() };
    let again = c.register(with_cookie(ask(), &one.cookie)).await.unwrap().into_inner();
    assert_eq!(again.cookie, one.cookie);
    leave(&mut b, &one.cookie).await.unwrap();
    let two = observe(&mut c, "looking").await;
    assert_refused(keep_alive(&mut a, &one.cookie).await, Reason::CookieUnknown);
    // An operator frees it at another one.
    assert!(a.free_name(FreeNameRequest { name: "looking".into() }).await.unwrap().into_inner().was_held);
    assert_refused(keep_alive(&mut c, &two.cookie).await, Reason::CookieUnknown);
    observe(&mut b, "looking").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn of_observers_that_ask_for_one_name_at_several_replicas_at_once_exactly_one_gets_it() {
    // A replica that does not answer for so long is not waited for: on a busy machine two may be given the name.
    const ANSWERED_WITHIN: Duration = Duration::from_millis(500);
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/observer-race", 3, TTL).await;
    let mut answered = 0;
    for round in 0..30 {
        let name = format!("o{round}");
        let mut clients = [0, 1, 2].map(|index| replicas[index].client());
        let [a, b, c] = &mut clients;
        let began = Instant::now();
        let asked = tokio::join!(try_observe(a, &name), try_observe(b, &name), try_observe(c, &name));
        let mut given = Vec::new();
        for outcome in [asked.0, asked.1, asked.2] {
            match outcome {
                Ok(registered) => given.push(registered.cookie),
                Err(status) => assert_eq!(Reason::of(&status), Some(Reason::NameTaken), "{status:?}"),
            }
        }
        if given.len() > 1 && began.elapsed() >= ANSWERED_WITHIN {
            continue;
        }
        answered += 1;
        assert_eq!(given.len(), 1, "round {round}");
        for client in &mut clients {
            assert_eq!(keep_alive(client, &given[0]).await.unwrap().name, name);
        }
    }
    assert!(answered > 20, "{answered} of 30 rounds in time");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_ends_an_observer_with_its_name_at_another_replica() {
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/observer-peer", 2, TTL).await;
    let [mut a, mut b] = [0, 1].map(|index| replicas[index].client());
    let observer = observe(&mut a, "both").await;
    let peer = register(&mut b, "both", "10.0.0.1:7801").await;
    // The first replica knows of the peer once it has reached the peer's revision.
    let ask = p2pdi::v1::PQueryRequest { min_revision: peer.revision, ..Default::default() };
    query(&mut a, &peer.cookie, ask).await.unwrap();
    assert_refused(keep_alive(&mut a, &observer.cookie).await, Reason::CookieUnknown);
    assert_refused(try_observe(&mut a, "both").await, Reason::NameTaken);
}

#[tokio::test(flavor = "multi_thread")]
async fn observers_do_not_wait_long_for_a_replica_that_stands_still() {
    let Some(etcd) = Etcd::start() else { return };
    let replicas: Vec<Program> = (0..2).map(|_| program(&etcd.endpoints(), "/observer-still", TTL, None)).collect();
    all_settled(&replicas.iter().map(|replica| replica.address).collect::<Vec<_>>()).await;
    replicas[1].signal(rustix::process::Signal::STOP);
    let began = Instant::now();
    let observer = observe(&mut replicas[0].client(), "looking").await;
    leave(&mut replicas[0].client(), &observer.cookie).await.unwrap();
    assert!(began.elapsed() < Duration::from_secs(10), "{:?}", began.elapsed());
    replicas[1].signal(rustix::process::Signal::CONT);
}
