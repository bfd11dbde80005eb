//! A network of fifty peers.

use crate::support::{Setup, TestPeer, until};
use p2pdi::v1::{BroadcastRequest, BroadcastResponse};
use std::collections::BTreeSet;

const PEERS: usize = 50;
const KILLED: usize = 15;

/// Whether every peer is reachable from every other along links.
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

/// Sends a broadcast without a body and waits for acknowledgements.
async fn broadcast(from: &TestPeer, kind: &str) -> BroadcastResponse {
    let wait = Some(prost_types::Duration { seconds: 10, nanos: 0 });
    let request = BroadcastRequest { kind: kind.to_owned(), wait, ..Default::default() };
    from.control().await.broadcast(request).await.unwrap().into_inner()
}

pub(crate) fn times_received(peers: &[TestPeer], body: &str) -> Vec<usize> {
    peers.iter().map(|peer| peer.messages().iter().filter(|message| *message == body).count()).collect()
}

#[tokio::test]
async fn fifty_peers_receive_each_broadcast_once_also_after_fifteen_die() {
    let mut peers = vec![Setup::named("p0").start().await];
    for index in 1..PEERS {
        let bootnodes = [&peers[0], &peers[index / 2]];
        let setup = Setup::named(&format!("p{index}")).with_bootnodes(bootnodes);
        peers.push(setup.start().await);
    }
    until("all are linked", async || is_one_network(&peers)).await;
    peers[7].say_to_all("first").await;
    until("all peers have received it", async || times_received(&peers, "first").iter().sum::<usize>() == PEERS - 1).await;
    assert!(times_received(&peers, "first").iter().enumerate().all(|(at, times)| *times == usize::from(at != 7)));
    // The counts, which lag a little, agree: each peer delivered it once, and duplicates did not reach the inbox.
    let counted = |peer: &TestPeer| peer.mesh().broadcasts;
    until("the counts agree", async || peers.iter().enumerate().all(|(at, peer)| counted(peer) == u64::from(at != 7))).await;
    assert!(peers.iter().all(|peer| peer.handle.inbox().status().received <= 1));
    // Acknowledgements on a link that is replaced are lost, so the count is complete only once links no longer change.
    until("all peers acknowledge one broadcast", async || broadcast(&peers[7], "PING").await.acknowledged == PEERS as u64 - 1)
        .await;

    // Every third peer is killed without a goodbye, the first bootnode among them.
    let mut index = 0;
    peers.retain(|_| {
        index += 1;
        !(index % 3 == 1 && index / 3 < KILLED)
    });
    assert_eq!(peers.len(), PEERS - KILLED);
    until("no dead peer is a neighbour and the rest is one network", async || {
        let alive: BTreeSet<_> = peers.iter().map(|peer| peer.handle.identity().id()).collect();
        let no_dead =
            |peer: &TestPeer| peer.handle.mesh().view().neighbours.iter().all(|(contact, _)| alive.contains(&contact.id()));
        peers.iter().all(no_dead) && is_one_network(&peers)
    })
    .await;
    peers[3].say_to_all("second").await;
    until("all peers have received it", async || times_received(&peers, "second").iter().sum::<usize>() == peers.len() - 1).await;
    assert!(times_received(&peers, "second").iter().enumerate().all(|(at, times)| *times == usize::from(at != 3)));
}
