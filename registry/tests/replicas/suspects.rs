//! Many peers that fall silent at once.

use super::{crowd::Crowd, three::*};
use crate::{etcd::Etcd, support::*};
use p2pdi::v1::PQueryRequest;
use std::{
    collections::BTreeSet,
    time::{Duration, Instant},
};

/// What a replica lists: those it holds for alive, and the suspects. These come last.
async fn looked_at(client: &Client, cookie: &str) -> [BTreeSet<String>; 2] {
    let mut client = client.clone();
    keep_alive(&mut client, cookie).await.unwrap();
    let listed = all(&mut client, cookie, PQueryRequest::default()).await.unwrap().peers;
    let first = listed.iter().position(|peer| peer.suspect).unwrap_or(listed.len());
    assert!(listed[first..].iter().all(|peer| peer.suspect), "suspects come last: {listed:?}");
    let (alive, suspects) = listed.split_at(first);
    [alive, suspects].map(|peers| peers.iter().map(|peer| peer.name.clone()).collect())
}

/// How many suspects the replicas keep, all together.
async fn kept(replicas: &[Running]) -> Option<u64> {
    let mut kept = 0;
    for replica in replicas {
        kept += status_of(replica).await?["replica"]["suspects"].as_u64()?;
    }
    Some(kept)
}

#[tokio::test(flavor = "multi_thread")]
async fn many_that_fall_silent_at_once_are_suspects_of_every_replica_and_end_by_three_ttls() {
    const ALIVE: usize = 60;
    const SILENT: usize = 140;
    let ttl = Duration::from_secs(5);
    let Some(etcd) = Etcd::start() else { return };
    let replicas = start(&etcd, "/suspects", 3, ttl).await;
    let mut clients: Vec<Client> = replicas.iter().map(Running::client).collect();
    let mut crowd = Crowd::new(ttl, &clients);
    crowd.join(&[0, 1, 2], ALIVE + SILENT).await;
    let mut observers = Vec::new();
    for (number, client) in clients.iter_mut().enumerate() {
        observers.push(observe(client, &format!("watching-{number}")).await.cookie);
    }
    crowd.silence(SILENT);
    let silent = Instant::now();
    // More than 15 % of them, so that each replica holds most of those whose leases it keeps, and tells the others.
    let suspects = eventually("every replica lists the suspects of all", async || {
        let mut seen = BTreeSet::new();
        for (client, observer) in clients.iter().zip(&observers) {
            let [alive, suspects] = looked_at(client, observer).await;
            seen.insert((alive.len(), suspects));
        }
        // All see the same, and those that are neither alive nor held have ended.
        let (_, suspects) =
            seen.pop_first().filter(|(alive, suspects)| seen.is_empty() && *alive == ALIVE && !suspects.is_empty())?;
        (kept(&replicas).await? == u64::try_from(suspects.len()).ok()?).then_some(suspects)
    })
    .await;
    // At most what the brake lets through: 30 of 200, some more where shards are few.
    assert!(suspects.len() > SILENT / 2, "{} of {SILENT} are held", suspects.len());
    assert!(silent.elapsed() > ttl / 2, "a lease was over after {:?}", silent.elapsed());
    eventually("the suspects end", async || {
        let mut held = 0;
        for (client, observer) in clients.iter().zip(&observers) {
            let [alive, suspects] = looked_at(client, observer).await;
            assert!(alive.len() == ALIVE, "no peer that calls is a suspect, or ends: {} of {ALIVE}", alive.len());
            held += suspects.len();
        }
        (held == 0).then_some(())
    })
    .await;
    // Their latest calls were up to a quarter of a ttl before they fell silent.
    let held = silent.elapsed();
    assert!(held > ttl * 2 && held < ttl * 3 + Duration::from_secs(10), "{held:?}");
    assert_eq!(kept(&replicas).await, Some(0));
    crowd.end().await;
}
