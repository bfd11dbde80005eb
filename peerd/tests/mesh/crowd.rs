//! Fifty peers.

use crate::support::{Setup, TestPeer, until};
use p2pdi::v1::{BroadcastRequest, BroadcastResponse};
use std::collections::BTreeSet;

const PEERS: usize = 50;
const KILLED: usize = 15;

/// Whether links lead from each to each.
pub(crate) fn is_one_network(peers: &[TestPeer]) -> bool {
    let ids: Vec<_> = peers.iter().map(|peer| peer.handle.identity().id()).collect();
    let (mut reached, mut next) = (BTreeSet::from([ids[0]]), vec![0]);
    while let Some(at) = next.pop() {
        for (contact, _) in &peers[at].handle.mesh().view().neighbours {
            if let Some(index) = ids.iter().position(|id| *id == contact.id())
                && reached.insert(contact.id())
            {
                next.push(index);
            }
        }
    }
    reached.len() == peers.len()
}

/// Of the kind that is acknowledged and not shown.
async fn broadcast(from: &TestPeer, kind: &str) -> BroadcastResponse {
    let wait = Some(prost_types::Duration { seconds: 10, nanos: 0 });
    let request = BroadcastRequest { kind: kind.to_owned(), wait, ..Default::default() };
    from.control().await.broadcast(request).await.unwrap().into_inner()
}

pub(crate) fn times_heard(peers: &[TestPeer], body: &str) -> Vec<usize> {
    peers.iter().map(|peer| peer.messages().iter().filter(|message| *message == body).count()).collect()
}

#[tokio::test]
async fn fifty_peers_hear_a_broadcast_once_and_survive_the_death_of_fifteen() {
    let mut peers = vec![Setup::named("p0").start().await];
    for index in 1..PEERS {
        let bootnodes = [&peers[0], &peers[index / 2]];
        let setup = Setup::named(&format!("p{index}")).with_bootnodes(bootnodes);
        peers.push(setup.start().await);
    }
    until("all are linked", async || is_one_network(&peers)).await;
    peers[7].say_to_all("first").await;
    until("all have heard", async || times_heard(&peers, "first").iter().sum::<usize>() == PEERS - 1).await;
    assert!(times_heard(&peers, "first").iter().enumerate().all(|(at, times)| *times == usize::from(at != 7)));
    // By the counts as well, which are a moment old: each has delivered it once, and what came again was counted and not shown.
    let counted = |peer: &TestPeer| peer.mesh().broadcasts;
    until("the counts say so", async || peers.iter().enumerate().all(|(at, peer)| counted(peer) == u64::from(at != 7))).await;
    assert!(peers.iter().all(|peer| peer.handle.inbox().status().received <= 1));
    // A link that is replaced takes acknowledgements on it with it, so the count holds once the network has come to rest.
    until("all acknowledge one", async || broadcast(&peers[7], "PING").await.acknowledged == PEERS as u64 - 1).await;

    // Every third or so, the first bootnode among them, without a goodbye.
    let mut index = 0;
    peers.retain(|_| {
        index += 1;
        !(index % 3 == 1 && index / 3 < KILLED)
    });
    assert_eq!(peers.len(), PEERS - KILLED);
    until("the dead are noticed and the rest is one network", async || {
        let alive: BTreeSet<_> = peers.iter().map(|peer| peer.handle.identity().id()).collect();
        let no_dead =
            |peer: &TestPeer| peer.handle.mesh().view().neighbours.iter().all(|(contact, _)| alive.contains(&contact.id()));
        peers.iter().all(no_dead) && is_one_network(&peers)
    })
    .await;
    peers[3].say_to_all("second").await;
    until("all have heard", async || times_heard(&peers, "second").iter().sum::<usize>() == peers.len() - 1).await;
    assert!(times_heard(&peers, "second").iter().enumerate().all(|(at, times)| *times == usize::from(at != 3)));
}
