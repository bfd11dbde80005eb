//! Servers and clients with certificates: who is accepted, what is said to who is not, and what changes while they run.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by a panic, in its helpers too; sizes are small"
)]

#[path = "../support/certificates.rs"]
mod certificates;
mod files;
mod network;
mod optional;
#[path = "../../peerd/tests/support/mod.rs"]
mod peers;
mod programs;
mod refusals;
mod reload;
#[path = "../support/mod.rs"]
mod support;

use p2pdi::{
    channel::Dial,
    endpoint::Endpoint,
    status,
    tls::{Expected, Identity, Tls},
    v1::{PingRequest, peer_client::PeerClient},
};
use peers::{peer::Peer, within};
use std::{net::SocketAddr, sync::Arc};

/// A peer whose certificate is for `name`, and which has no registry.
async fn peer(name: &str, tls: Tls) -> Peer {
    Peer::configured(&[], |config| {
        config.name = name.parse().unwrap();
        config.tls = Some(tls);
    })
    .await
}

fn named(name: &str) -> Expected {
    Expected::Peer(name.parse().unwrap())
}

/// Calls the peer at `address` on a new connection. Says who answered, or the error as people see it.
async fn ping(address: SocketAddr, tls: Option<&Tls>, expected: Expected) -> Result<Option<Arc<Identity>>, String> {
    let channel = Dial::with(tls.cloned()).lazy(&[Endpoint::from(address)], expected);
    let answer = within("an answer", PeerClient::new(channel.clone()).ping(PingRequest {})).await;
    answer.map(|_| channel.identity()).map_err(|status| status::describe(&status))
}
