//! A registry and peers in one process.

use crate::failure::{Failure, Outcome};
use p2pdi::{endpoint::Endpoint, server::Limits, v1::SessionState};
use peerd::{
    config::NodeConfig,
    node::{Node, NodeHandle},
};
use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// Time limit for a cluster to become ready: a large share is hashed first.
const READY_TIMEOUT: Duration = Duration::from_secs(600);
/// Grace period for calls at shutdown.
const GRACE: Duration = Duration::from_secs(2);

/// A running registry with running peers.
pub(super) struct Cluster {
    registry: Endpoint,
    peers: Vec<NodeHandle>,
    /// The registry and the peers.
    running: JoinSet<Outcome>,
    stop_peers: CancellationToken,
    stop_registry: CancellationToken,
    folder: PathBuf,
}

impl Cluster {
    /// Starts a registry with its embedded store below `folder`, on `port` or a free one.
    pub(super) async fn start(folder: &Path, port: u16) -> Outcome<Self> {
        let (stop_peers, stop_registry) = (CancellationToken::new(), CancellationToken::new());
        let listener = bind(port).await?;
        let registry = Endpoint::from(listener.local_addr()?);
        let config = registry::Config {
            state: registry::State::Folder(folder.join("registry")),
            grace: GRACE,
            ..registry::Config::default()
        };
        let server = registry::Registry::open(&config).map_err(|error| Failure::refused(error.to_string()))?;
        let mut running = JoinSet::new();
        let until = stop_registry.clone();
        running.spawn(async move { server.serve(listener, until).await.map_err(|error| Failure::refused(error.to_string())) });
        Ok(Self { registry, peers: Vec::new(), running, stop_peers, stop_registry, folder: folder.to_owned() })
    }

    /// Adds a peer that shares `share`, on `port` or a free one.
    pub(super) async fn add_peer(&mut self, name: &str, share: Option<PathBuf>, port: u16) -> Outcome {
        let config = NodeConfig {
            registry: Some(self.registry.clone()),
            share,
            limits: Limits { grace: GRACE, ..Limits::default() },
            ..NodeConfig::new(name.parse()?, self.folder.join("peers").join(name))
        };
        let node = Node::open(config, bind(port).await?)?;
        self.peers.push(node.handle());
        let stop = self.stop_peers.clone();
        self.running.spawn(async move { Ok(node.run(stop).await?) });
        Ok(())
    }

    /// Waits until every peer is registered and has indexed its share.
    pub(super) async fn ready(&mut self) -> Outcome {
        let ready = async {
            for peer in &self.peers {
                peer.share().settled().await;
                // Fails only when the peer has ended, which the other branch reports.
                let _ = peer.session().state().wait_for(|state| *state == SessionState::Registered).await;
            }
        };
        tokio::select! {
            ready = timeout(READY_TIMEOUT, ready) => ready.map_err(|_| Failure::refused("the peers were not ready in time")),
            ended = self.running.join_next() => Err(match ended {
                Some(Ok(Err(failure))) => failure,
                _ => Failure::refused("a part of the cluster ended early"),
            }),
        }
    }

    pub(super) fn registry(&self) -> &Endpoint {
        &self.registry
    }

    pub(super) fn peers(&self) -> &[NodeHandle] {
        &self.peers
    }

    /// Waits until one server ends. That is an error unless `stop` was called.
    pub(super) async fn ended(&mut self) -> Outcome {
        match self.running.join_next().await {
            Some(Ok(ended)) => ended,
            Some(Err(panicked)) => Err(Failure::refused(format!("a part of the cluster failed: {panicked}"))),
            None => Ok(()),
        }
    }

    /// Stops the peers first, so that they can leave, then the registry.
    pub(super) async fn stop(mut self) -> Outcome {
        self.stop_peers.cancel();
        // The registry stops last.
        while self.running.len() > 1 {
            self.ended().await?;
        }
        self.stop_registry.cancel();
        self.ended().await
    }
}

async fn bind(port: u16) -> Outcome<TcpListener> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    TcpListener::bind(address).await.map_err(|error| {
        Failure::refused(format!("cannot listen on {address}: {error}"))
            .hint("choose another port with --port, or 0 for free ones")
    })
}
