//! Replicas that stop, and an etcd that is away.

use super::three::*;
use crate::{etcd::Etcd, support::*};
use p2pdi::{status::Reason, v1::PQueryRequest};
use std::time::{Duration, Instant};
use tokio::{
    task::JoinSet,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// A peer that keeps its lease alive at one replica, and goes to the next one when that one refuses.
pub(crate) async fn keep_on(
    mut clients: Vec<Client>,
    cookie: String,
    every: Duration,
    stop: CancellationToken,
) -> Result<(), String> {
    let mut ticks = interval(every);
    let mut at = 0;
    while stop.run_until_cancelled(ticks.tick()).await.is_some() {
        let mut tries = 0;
        loop {
            let call = timeout(every / 2, keep_alive(&mut clients[at], &cookie));
            match call.await.unwrap_or_else(|_| Err(tonic::Status::deadline_exceeded("no answer"))) {
                Ok(_) => break,
                Err(status) if matches!(Reason::of(&status), Some(Reason::LeaseExpired | Reason::CookieUnknown)) => {
                    return Err(format!("{status:?}"));
                }
                Err(status) => {
                    tries += 1;
                    if tries > 40 {
                        return Err(format!("nobody answers: {status:?}"));
                    }
                    at = (at + 1) % clients.len();
                    if tries % clients.len() == 0 {
                        ticks.tick().await;
                    }
                }
            }
        }
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_peer_that_calls_one_replica_only_stays_alive_at_all_and_one_that_calls_nobody_ends() {
    let ttl = Duration::from_secs(2);
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/alive", 3, ttl).await;
    let mut clients: Vec<Client> = replicas.iter().map(Running::client).collect();
    let stop = CancellationToken::new();
    let mut keeping = JoinSet::new();
    for number in 0..30 {
        let client = clients[number % 3].clone();
        let registered = register(&mut clients[number % 3], &format!("p{number}"), "10.0.0.1:7801").await;
        keeping.spawn(keep_on(vec![client], registered.cookie, ttl / 4, stop.clone()));
    }
    let silent = register(&mut clients[0], "silent", "10.0.0.1:7801").await;
    let watching = observe(&mut clients[0], "watching").await.cookie;
    let began = Instant::now();
    eventually("the silent one ends", async || {
        // The replica that keeps its lease lists it until it runs out, the others until that is stored.
        for client in &clients {
            let listed = listed(&mut client.clone(), &watching).await;
            assert!(listed.len() >= 30, "{listed:?}");
            if listed.contains(&"silent".to_owned()) {
                return None;
            }
        }
        Some(())
    })
    .await;
    assert!(began.elapsed() < ttl + Duration::from_secs(8), "{:?}", began.elapsed());
    for client in &mut clients {
        assert_refused(keep_alive(client, &silent.cookie).await, Reason::LeaseExpired);
    }
    while began.elapsed() < 4 * ttl {
        tokio::task::yield_now().await;
        for client in &mut clients {
            keep_alive(client, &watching).await.unwrap();
            assert_eq!(listed(client, &watching).await.len(), 30);
        }
    }
    stop.cancel();
    while let Some(kept) = keeping.join_next().await {
        kept.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn shards_of_a_replica_that_stops_are_taken_over_and_nobody_alive_ends() {
    let ttl = Duration::from_secs(3);
    let Some(etcd) = Etcd::start() else { return };
    let mut replicas = start(&etcd, "/stops", 3, ttl).await;
    let clients: Vec<Client> = replicas.iter().map(Running::client).collect();
    let stop = CancellationToken::new();
    let mut keeping = JoinSet::new();
    for number in 0..40 {
        let mut order = clients.clone();
        order.rotate_left(number % 3);
        let registered = register(&mut order[0], &format!("p{number}"), "10.0.0.1:7801").await;
        keeping.spawn(keep_on(order, registered.cookie, ttl / 4, stop.clone()));
    }
    let stopped = Instant::now();
    replicas.remove(0).stop().await;
    // The others end their calls to it, and take its shards, before the grace period is over.
    assert!(stopped.elapsed() < Duration::from_secs(5), "{:?}", stopped.elapsed());
    settled(&replicas).await;
    let mut client = replicas[0].client();
    let watching = observe(&mut client, "watching").await.cookie;
    let began = Instant::now();
    while began.elapsed() < 3 * ttl {
        assert_eq!(listed(&mut client, &watching).await.len(), 40);
    }
    stop.cancel();
    while let Some(kept) = keeping.join_next().await {
        kept.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn without_etcd_leases_go_on_from_memory_and_registrations_wait() {
    let ttl = Duration::from_secs(2);
    let Some(mut etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/away", 2, ttl).await;
    let clients: Vec<Client> = replicas.iter().map(Running::client).collect();
    let stop = CancellationToken::new();
    let mut keeping = JoinSet::new();
    let mut cookies = Vec::new();
    for number in 0..20 {
        let mut order = clients.clone();
        order.rotate_left(number % 2);
        let registered = register(&mut order[0], &format!("p{number}"), "10.0.0.1:7801").await;
        cookies.push(registered.cookie.clone());
        keeping.spawn(keep_on(order, registered.cookie, ttl / 4, stop.clone()));
    }
    etcd.kill(0);
    let mut client = clients[0].clone();
    eventually("the replica says that the store is away", async || {
        (status_of(&replicas[0]).await?["store"] == "failing").then_some(())
    })
    .await;
    assert_refused(client.register(asking("new", "10.0.0.1:7801")).await, Reason::StoreUnavailable);
    let began = Instant::now();
    while began.elapsed() < 5 * ttl {
        let ask = PQueryRequest::default();
        assert_eq!(all(&mut client, &cookies[0], ask).await.unwrap().peers.len(), 19);
    }
    // Programs that only ask are in no store: they come and go as before.
    let observer = observe(&mut client, "looking").await;
    assert_eq!(listed(&mut clients[1].clone(), &observer.cookie).await.len(), 20);
    leave(&mut client, &observer.cookie).await.unwrap();
    etcd.restart(0);
    let registered =
        eventually("registrations work again", async || client.clone().register(asking("new", "10.0.0.1:7801")).await.ok())
            .await
            .into_inner();
    let ask = PQueryRequest { min_revision: registered.revision, ..PQueryRequest::default() };
    assert_eq!(all(&mut client, &cookies[0], ask).await.unwrap().peers.len(), 20);
    stop.cancel();
    while let Some(kept) = keeping.join_next().await {
        kept.unwrap().unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_stops_before_its_grace_period_is_over_although_etcd_is_away() {
    let Some(mut etcd) = Etcd::start() else { return };
    let mut replicas = start(&etcd, "/stop-alone", 2, Duration::from_secs(5)).await;
    etcd.kill(0);
    eventually("the replica says that the store is away", async || {
        (status_of(&replicas[0]).await?["store"] == "failing").then_some(())
    })
    .await;
    // The other one is not told that it may end its calls to this one.
    let stopped = Instant::now();
    replicas.remove(0).stop().await;
    assert!(stopped.elapsed() < Duration::from_secs(8), "{:?}", stopped.elapsed());
}
