//! Names are in certificates: with TLS nobody is taken for somebody else, at the registry, on links, in messages.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by a panic, in its helpers too"
)]

mod authority;
mod forged;
mod link;
mod registering;
#[path = "../../peerd/tests/support/mod.rs"]
mod support;
mod whispers;

use authority::Authority;
use p2pdi::{channel::Dial, id::PeerId, tls::Tls};
use peerd::inbox::Message;
use registry::{Config, Registry, RegistryError, State};
use std::{net::SocketAddr, time::Duration};
use support::{eventually, peer::Peer, within};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

/// A network with a CA, a registry, and peers.
struct Network {
    authority: Authority,
    registry: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), RegistryError>>,
}

impl Network {
    async fn new() -> Self {
        let authority = Authority::new();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (registry, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let tls = Some(authority.issue(&["localhost", "127.0.0.1"], "registry"));
        let config = Config { state: State::Memory, ttl: Duration::from_secs(20), tls, ..Config::default() };
        let serving = tokio::spawn(Registry::open(&config).unwrap().serve(listener, stop.clone()));
        Self { authority, registry, stop, serving }
    }

    /// A peer with a certificate for its name, linked to the peers at `others`.
    async fn peer(&self, name: &str, others: &[&Peer]) -> Peer {
        let tls = self.authority.peer(name);
        let bootnodes = others.iter().map(|other| other.address.to_string().parse().unwrap()).collect();
        let registry = self.registry;
        Peer::configured(&[], |config| {
            config.name = name.parse().unwrap();
            config.registries = vec![registry.into()];
            config.bootnodes = bootnodes;
            config.tls = Some(tls);
        })
        .await
    }

    async fn stop(self) {
        self.stop.cancel();
        within("the registry's end", self.serving).await.unwrap().unwrap();
    }
}

fn dial(tls: &Tls) -> Dial {
    Dial::with(Some(tls.clone()))
}

fn id_of(name: &str) -> PeerId {
    PeerId::of_name(&name.parse().unwrap())
}

/// Waits until two peers are neighbours.
async fn until_linked(one: &Peer, other: &Peer) {
    let name = other.handle.identity().name().clone();
    eventually("a link", async || {
        one.handle.mesh().view().neighbours.iter().any(|(contact, _)| *contact.name() == name).then_some(())
    })
    .await;
}

/// Waits for a message in the inbox with this body.
async fn received(peer: &Peer, body: &'static str) -> Message {
    eventually(body, async || peer.handle.inbox().latest(100).into_iter().find(|message| message.body == body)).await
}

fn has(peer: &Peer, body: &str) -> bool {
    peer.handle.inbox().latest(100).iter().any(|message| message.body == body)
}
