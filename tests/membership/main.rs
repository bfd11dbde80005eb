//! Peers and a real registry: registration despite failures, listings of other peers' documents, and whispers.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    reason = "a test fails by a panic, in its helpers too"
)]

mod announce;
mod front;
mod hundred;
mod impostors;
mod messages;
mod old_client;
mod proxy;
mod remote_index;
mod replicas;
mod session;
mod settling;
#[path = "../../peerd/tests/support/mod.rs"]
mod support;

use p2pdi::{
    cookie::COOKIE_HEADER,
    v1::{PQueryRequest, PeerRecord, RegisterRequest, RegistrySession, SessionState, registry_client::RegistryClient},
};
use peerd::config::NodeConfig;
use proxy::Proxy;
use registry::{Config, Registry, RegistryError, State};
use std::{fs, net::SocketAddr, path::Path, time::Duration};
use support::{
    eventually,
    peer::{self, Peer},
    within,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{Request, transport::Channel};

/// Short, so that leases expire within a test.
const TTL: Duration = Duration::from_secs(2);

/// Short as well: a peer that lost its cookie gets its name back within a test.
const NAME_HOLD: Duration = Duration::from_secs(1);

/// A registry in this process.
struct Running {
    address: SocketAddr,
    stop: CancellationToken,
    serving: JoinHandle<Result<(), RegistryError>>,
}

impl Running {
    async fn start(state: State) -> Self {
        Self::start_with(Config { state, ttl: TTL, name_hold: NAME_HOLD, ..Config::default() }).await
    }

    async fn start_with(config: Config) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, stop) = (listener.local_addr().unwrap(), CancellationToken::new());
        let registry = Registry::open(&config).unwrap();
        let serving = tokio::spawn(registry.serve(listener, stop.clone()));
        Self { address, stop, serving }
    }

    async fn in_memory() -> Self {
        Self::start(State::Memory).await
    }

    async fn in_folder(folder: &Path) -> Self {
        Self::start(State::Folder(folder.to_owned())).await
    }

    async fn stop(self) {
        self.stop.cancel();
        within("the registry's end", self.serving).await.unwrap().unwrap();
    }
}

fn registry_at(address: SocketAddr) -> RegistryClient<Channel> {
    RegistryClient::new(tonic::transport::Endpoint::from_shared(format!("http://{address}")).unwrap().connect_lazy())
}

/// Registers a peer without a `peerd`.
async fn register(registry: SocketAddr, request: RegisterRequest) -> PeerRecord {
    registry_at(registry).register(request).await.unwrap().into_inner().peer.unwrap()
}

/// Names of all active peers.
async fn active(registry: SocketAddr) -> Vec<String> {
    let mut client = registry_at(registry);
    let observer = RegisterRequest { name: format!("observer-{}", rand_name()), observer: true, ..Default::default() };
    let cookie = client.register(observer).await.unwrap().into_inner().cookie;
    let mut request = Request::new(PQueryRequest::default());
    request.metadata_mut().insert(COOKIE_HEADER, cookie.parse().unwrap());
    let mut names: Vec<_> = client.p_query(request).await.unwrap().into_inner().peers.into_iter().map(|peer| peer.name).collect();
    names.sort();
    names
}

fn rand_name() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed).to_string()
}

/// A peer that registers at `registry` and shares `files`.
async fn member(name: &str, registry: SocketAddr, files: &[(&str, &[u8])]) -> Peer {
    Peer::configured(files, |config| {
        config.name = name.parse().unwrap();
        config.registries = vec![registry.into()];
    })
    .await
}

/// The configuration of such a peer with an existing folder.
fn member_config(name: &str, registry: SocketAddr, folder: &tempfile::TempDir) -> NodeConfig {
    fs::create_dir_all(folder.path().join("share")).unwrap();
    NodeConfig { registries: vec![registry.into()], ..peer::config(name, folder) }
}

/// Waits until a peer's session has this state.
async fn until(peer: &Peer, state: SessionState) -> RegistrySession {
    let session = peer.handle.session();
    let mut states = session.state();
    let reached = tokio::time::timeout(support::PATIENCE, states.wait_for(|now| *now == state)).await;
    assert!(reached.is_ok(), "never {state:?}: {:?}", session.status());
    session.status()
}
