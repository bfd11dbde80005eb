//! Members of etcd that die, are cut off from each other, and start again.

use super::{crowd::Crowd, three::*};
use crate::{etcd::Etcd, members::Members, support::*};
use std::time::Duration;

const TTL: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn of_three_members_of_etcd_one_may_die() {
    let Some(mut etcd) = Etcd::start_members(3) else { return };
    let replicas = start(&etcd, "/member", 2, Duration::from_secs(10)).await;
    let mut client = replicas[0].client();
    register(&mut client, "before", "10.0.0.1:7801").await;
    for member in 0..3 {
        etcd.kill(member);
        let name = format!("during-{member}");
        eventually("a registration", async || client.clone().register(asking(&name, "10.0.0.1:7801")).await.ok()).await;
        etcd.restart(member);
        etcd.await_health();
    }
    let watching = observe(&mut client, "watching").await.cookie;
    assert_eq!(listed(&mut client, &watching).await, ["before", "during-0", "during-1", "during-2"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_leader_of_etcd_that_is_cut_off_from_the_other_members_costs_no_lease() {
    let Some(members) = Members::start().await else { return };
    let replicas = start(&members.etcd, "/leader", 3, TTL).await;
    let clients: Vec<Client> = replicas.iter().map(Running::client).collect();
    let mut crowd = Crowd::new(TTL, &clients);
    crowd.join(&[0, 1, 2], 40).await;
    let mut observer = clients[0].clone();
    // Twice, so that the second one is not the member that everybody called first.
    for round in 0..2 {
        let leader = members.leader().await;
        members.isolate(leader);
        crowd.silence(2);
        for (at, client) in clients.iter().enumerate() {
            let name = format!("during-{round}-{at}");
            let ask = || asking(&name, "10.0.0.1:7801");
            let registered = eventually("a registration", async || client.clone().register(ask()).await.ok()).await.into_inner();
            leave(&mut client.clone(), &registered.cookie).await.unwrap();
        }
        crowd.are_alive(&mut observer, 4 * TTL).await;
        members.mend();
        members.etcd.await_health();
        settled(&replicas).await;
        crowd.join(&[0, 1, 2], 5).await;
    }
    crowd.are_all_that_is_listed(&mut observer).await;
    crowd.end().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_is_there_after_all_members_of_etcd_were_killed_at_once() {
    let Some(mut etcd) = Etcd::start_members(3) else { return };
    let replicas = start(&etcd, "/all-members", 2, TTL).await;
    let clients: Vec<Client> = replicas.iter().map(Running::client).collect();
    let mut crowd = Crowd::new(TTL, &clients);
    crowd.join(&[0, 1], 40).await;
    (0..3).for_each(|member| etcd.kill(member));
    (0..3).for_each(|member| etcd.restart(member));
    etcd.await_health();
    settled(&replicas).await;
    crowd.silence(2);
    crowd.join(&[0, 1], 5).await;
    crowd.are_all_that_is_listed(&mut clients[1].clone()).await;
    crowd.end().await;
}
