//! Replicas that are killed, paused, and cut off from etcd and from each other, while peers keep their leases.

use super::{crowd::Crowd, three::*};
use crate::{cable::Cable, etcd::Etcd, support::*};
use registry::{Config, State};
use std::time::Duration;
use tokio::net::TcpListener;

const TTL: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_killed_or_paused_costs_no_lease() {
    let Some(etcd) = Etcd::start() else { return };
    let mut replicas: Vec<Program> = (0..3).map(|_| program(&etcd.endpoints(), "/signals", TTL, None)).collect();
    let clients: Vec<Client> = replicas.iter().map(Program::client).collect();
    let mut observer = clients[1].clone();
    let addresses: Vec<_> = replicas.iter().map(|replica| replica.address).collect();
    all_settled(&addresses).await;
    let mut crowd = Crowd::new(TTL, &clients);
    crowd.join(&[0, 1, 2], 60).await;
    // Longer than its lease in etcd and than the ttl: the others take over, and it comes back to shards that are not its own.
    replicas[2].signal(rustix::process::Signal::STOP);
    crowd.are_alive(&mut observer, 4 * TTL).await;
    replicas[2].signal(rustix::process::Signal::CONT);
    crowd.are_alive(&mut observer, 2 * TTL).await;
    replicas.remove(0).kill();
    crowd.are_alive(&mut observer, 4 * TTL).await;
    crowd.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_is_cut_off_from_etcd_and_from_its_fellows_costs_no_lease() {
    let Some(etcd) = Etcd::start() else { return };
    let mut replicas = vec![Running::start(over(&etcd, "/cut", TTL)).await, Running::start(over(&etcd, "/cut", TTL)).await];
    // The third reaches etcd, and is reached by the others, by cables; what it calls itself at the others it reaches.
    let to_etcd = Cable::to(etcd.client_port(0)).await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let to_it = Cable::to(listener.local_addr().unwrap().port()).await;
    let mut config = over(&etcd, "/cut", TTL);
    if let State::Etcd(address) = &mut config.state {
        address.endpoints = vec![format!("http://{}", to_etcd.address)];
    }
    let config = Config { replica_address: Some(to_it.address.into()), ..config };
    replicas.push(Running::start_on(listener, config).await);
    settled(&replicas).await;
    let clients: Vec<Client> = replicas.iter().map(Running::client).collect();
    let mut crowd = Crowd::new(TTL, &clients);
    crowd.join(&[0, 1, 2], 60).await;
    let mut observer = clients[0].clone();
    crowd.are_alive(&mut observer, TTL).await;
    to_etcd.cut();
    crowd.are_alive(&mut observer, 3 * TTL).await;
    to_it.cut();
    crowd.are_alive(&mut observer, 4 * TTL).await;
    to_etcd.mend();
    to_it.mend();
    settled(&replicas).await;
    crowd.are_alive(&mut observer, 2 * TTL).await;
    crowd.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_replica_that_missed_changes_which_etcd_dropped_reads_all_records_again() {
    let Some(etcd) = Etcd::start() else { return };
    let there = Running::start(over(&etcd, "/compacted", TTL)).await;
    let to_etcd = Cable::to(etcd.client_port(0)).await;
    let mut config = over(&etcd, "/compacted", Duration::from_secs(60));
    if let State::Etcd(address) = &mut config.state {
        address.endpoints = vec![format!("http://{}", to_etcd.address)];
    }
    let behind = Running::start(config).await;
    let replicas = vec![there, behind];
    settled(&replicas).await;
    let (mut there, mut behind) = (replicas[0].client(), replicas[1].client());
    let stays = register(&mut there, "stays", "10.0.0.1:7801").await;
    let goes = register(&mut there, "goes", "10.0.0.2:7801").await;
    to_etcd.cut();
    leave(&mut there, &goes.cookie).await.unwrap();
    let mut latest = 0;
    for number in 0..5 {
        latest = register(&mut there, &format!("new-{number}"), "10.0.0.3:7801").await.revision;
    }
    etcd.compact();
    to_etcd.mend();
    let ask = || p2pdi::v1::PQueryRequest { since_revision: goes.revision, ..Default::default() };
    let answer = eventually("it has read them", async || {
        let answer = query(&mut behind.clone(), &stays.cookie, ask()).await.ok()?;
        (answer.revision >= latest).then_some(answer)
    })
    .await;
    let mut listed: Vec<_> = names(&answer.peers).into_iter().map(str::to_owned).collect();
    listed.retain(|name| name != "stays");
    assert!(answer.start_over, "{answer:?}");
    assert_eq!(listed, ["new-0", "new-1", "new-2", "new-3", "new-4"]);
    assert!(keep_alive(&mut behind, &goes.cookie).await.is_err());
}
