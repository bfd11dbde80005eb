//! Joins: a peer becomes a neighbour, or the error says why not.

use crate::{
    raw::{RawServer, contact, frame, hello},
    support::{Setup, TestPeer},
};
use futures_util::future::join_all;
use p2pdi::{
    status::Reason,
    v1::{JoinRequest, JoinResponse, LinkFrame, NeighbourReply, link_frame::Body},
};
use std::net::SocketAddr;
use tonic::Status;

async fn join(peer: &TestPeer, at: SocketAddr) -> Result<JoinResponse, Status> {
    join_endpoint(peer, at.to_string()).await
}

async fn join_endpoint(peer: &TestPeer, endpoint: String) -> Result<JoinResponse, Status> {
    let request = JoinRequest { endpoint };
    peer.control().await.join(request).await.map(tonic::Response::into_inner)
}

/// A server that says hello, and answers requests to become its neighbour with `reply`.
async fn server_replying(reply: Vec<LinkFrame>) -> RawServer {
    RawServer::start(move |address, received| match received.body {
        Some(Body::Hello(_)) => vec![hello(contact(7, "other", &address.to_string()))],
        Some(Body::Join(_) | Body::NeighbourRequest(_)) => reply.clone(),
        _ => Vec::new(),
    })
    .await
}

#[tokio::test]
async fn a_join_returns_when_the_peer_is_a_neighbour_and_reports_whether_it_was_one_before() {
    let (a, b) = (Setup::named("A").start().await, Setup::named("B").start().await);
    let joined = join(&a, b.address).await.unwrap();
    assert!(a.is_linked_to(&b));
    assert_eq!((joined.peer.unwrap().name.as_str(), joined.already_linked), ("B", false));
    for (peer, other) in [(&a, &b), (&b, &a)] {
        let again = join(peer, other.address).await.unwrap();
        assert!(again.already_linked && peer.is_linked_to(other));
    }
    assert_eq!((a.neighbours(), b.neighbours()), (1, 1));
}

#[tokio::test]
async fn a_join_that_is_refused_or_gets_no_answer_fails_with_the_reason() {
    let a = Setup::named("A").start().await;
    let refusing =
        server_replying(vec![frame(Body::NeighbourReply(NeighbourReply { accepted: false, peers: Vec::new() }))]).await;
    let refused = join(&a, refusing.address).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::NeighboursFull), "{refused}");
    assert!(refused.message().contains("as many neighbours as it accepts"), "{refused}");
    let silent = server_replying(Vec::new()).await;
    let refused = join(&a, silent.address).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::NoRoute), "{refused}");
    assert!(refused.message().contains("did not say in time"), "{refused}");
    assert_eq!(a.neighbours(), 0);
}

/// Two dials of one peer to another may reach it in another order than they return: then each side has another link as its first.
#[tokio::test]
async fn joins_that_cross_each_other_all_succeed() {
    for round in 0..30 {
        let (a, b) = (Setup::named("A").start().await, Setup::named("B").start().await);
        let (at_a, at_b) = (a.address.port(), b.address.port());
        // One peer under two names is dialled twice.
        let from_a = (0..4).map(|index| join_endpoint(&a, format!("{}:{at_b}", ["127.0.0.1", "localhost"][index % 2])));
        let from_b = (0..round % 3).map(|index| join_endpoint(&b, format!("{}:{at_a}", ["127.0.0.1", "localhost"][index % 2])));
        for joined in join_all(from_a.chain(from_b)).await {
            assert!(joined.is_ok(), "round {round}: {joined:?}");
        }
        assert!(a.is_linked_to(&b) && b.is_linked_to(&a));
    }
}
