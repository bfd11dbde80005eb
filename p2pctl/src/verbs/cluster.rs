//! A registry and peers in one process.

use crate::{
    args::url,
    failure::{Failure, Outcome},
};
use p2pdi::{
    channel::Dial,
    endpoint::Endpoint,
    network::NETWORK_DEFAULT,
    server::Limits,
    tls::{ClientAuth, Pem, Tls},
    v1::SessionState,
};
use peerd::{
    config::NodeConfig,
    node::{Node, NodeHandle},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
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

/// The network of the certificates of a cluster.
const NETWORK: &str = NETWORK_DEFAULT;

/// A CA that signs the certificates of a cluster, and is forgotten with it.
pub(super) struct Authority {
    ca: CertifiedIssuer<'static, KeyPair>,
}

impl Authority {
    /// A new one.
    pub(super) fn new() -> Outcome<Self> {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.distinguished_name.push(DnType::CommonName, "P2P-DI demo CA");
        Ok(Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate().map_err(unsigned)?).map_err(unsigned)? })
    }

    /// A certificate for `host`, whose id in the network is `id`: `registry`, `peer/NAME` or `operator/NAME`.
    pub(super) fn issue(&self, hosts: &[&str], id: &str) -> Outcome<Tls> {
        let key = KeyPair::generate().map_err(unsigned)?;
        let mut params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>()).map_err(unsigned)?;
        let uri = format!("spiffe://{NETWORK}/{id}").try_into().map_err(unsigned)?;
        params.subject_alt_names.push(SanType::URI(uri));
        let cert = params.signed_by(&key, &self.ca).map_err(unsigned)?;
        let pem = Pem {
            cert: Some(cert.pem().into_bytes()),
            key: Some(key.serialize_pem().into_bytes()),
            ca: self.ca.pem().into_bytes(),
        };
        Tls::from_pem(pem, ClientAuth::Required).map_err(|error| Failure::refused(error.to_string()))
    }
}

fn unsigned(error: rcgen::Error) -> Failure {
    Failure::refused(format!("cannot make a certificate: {error}"))
}

/// A running registry with running peers.
pub(super) struct Cluster {
    registry: Endpoint,
    authority: Option<Authority>,
    peers: Vec<NodeHandle>,
    /// The registry and the peers.
    running: JoinSet<Outcome>,
    stop_peers: CancellationToken,
    stop_registry: CancellationToken,
    folder: PathBuf,
}

impl Cluster {
    /// Starts a registry with its embedded store below `folder`, on `port` or a free one. With an `authority` all connections have TLS.
    pub(super) async fn start(folder: &Path, port: u16, authority: Option<Authority>) -> Outcome<Self> {
        let (stop_peers, stop_registry) = (CancellationToken::new(), CancellationToken::new());
        let listener = bind(port).await?;
        let registry = Endpoint::from(listener.local_addr()?);
        let config = registry::Config {
            state: registry::State::Folder(folder.join("registry")),
            grace: GRACE,
            tls: authority.as_ref().map(|authority| authority.issue(&["localhost", "127.0.0.1"], "registry")).transpose()?,
            ..registry::Config::default()
        };
        let server = registry::Registry::open(&config).map_err(|error| Failure::refused(error.to_string()))?;
        let mut running = JoinSet::new();
        let until = stop_registry.clone();
        running.spawn(async move { server.serve(listener, until).await.map_err(|error| Failure::refused(error.to_string())) });
        Ok(Self { registry, authority, peers: Vec::new(), running, stop_peers, stop_registry, folder: folder.to_owned() })
    }

    /// Adds a peer that shares `share`, on `port` or a free one.
    pub(super) async fn add_peer(&mut self, name: &str, share: Option<PathBuf>, port: u16) -> Outcome {
        let certificate = |authority: &Authority| authority.issue(&[name], &format!("peer/{name}"));
        let config = NodeConfig {
            tls: self.authority.as_ref().map(certificate).transpose()?,
            registries: vec![self.registry.clone()],
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

    /// The registry's URL.
    pub(super) fn url(&self) -> String {
        url(&self.registry, self.authority.is_some())
    }

    /// How an operator of the cluster dials.
    pub(super) fn dial(&self) -> Outcome<Dial> {
        Ok(Dial::with(self.authority.as_ref().map(|authority| authority.issue(&[], "operator/demo")).transpose()?))
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
