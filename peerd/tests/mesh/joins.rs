//! What a join comes to: a neighbour, or a word why not.

use crate::{
    stranger::{Impostor, contact, frame, hello},
    support::{Setup, TestPeer},
};
use p2pdi::{
    status::Reason,
    v1::{JoinRequest, JoinResponse, LinkFrame, NeighbourReply, link_frame::Body},
};
use std::net::SocketAddr;
use tonic::Status;

async fn join(peer: &TestPeer, at: SocketAddr) -> Result<JoinResponse, Status> {
    let request = JoinRequest { endpoint: at.to_string() };
    peer.control().await.join(request).await.map(tonic::Response::into_inner)
}

/// A server that greets, and says `reply` to who wants to be its neighbour.
async fn greets_and_then(reply: Vec<LinkFrame>) -> Impostor {
    Impostor::start(move |address, said| match said.body {
        Some(Body::Hello(_)) => vec![hello(contact(7, "other", &address.to_string()))],
        Some(Body::Join(_) | Body::NeighbourRequest(_)) => reply.clone(),
        _ => Vec::new(),
    })
    .await
}

#[tokio::test]
async fn a_join_is_answered_once_the_other_is_a_neighbour_and_says_if_it_was_one_before() {
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
async fn a_join_that_is_refused_or_never_answered_says_so() {
    let a = Setup::named("A").start().await;
    let refusing =
        greets_and_then(vec![frame(Body::NeighbourReply(NeighbourReply { accepted: false, peers: Vec::new() }))]).await;
    let refused = join(&a, refusing.address).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::NeighboursFull), "{refused}");
    assert!(refused.message().contains("as many neighbours as it accepts"), "{refused}");
    let silent = greets_and_then(Vec::new()).await;
    let refused = join(&a, silent.address).await.unwrap_err();
    assert_eq!(Reason::of(&refused), Some(Reason::NoRoute), "{refused}");
    assert!(refused.message().contains("did not say in time"), "{refused}");
    assert_eq!(a.neighbours(), 0);
}
