//! Test peers, and waiting with a deadline.

use crate::proxy::Proxy;
use p2pdi::{
    endpoint::Endpoint,
    id::PeerId,
    server::Limits,
    v1::{WhisperRequest, control_client::ControlClient, peer_client::PeerClient},
};
use peerd::{
    Bootnode,
    config::NodeConfig,
    node::{Node, NodeHandle},
};
use socket2::SockRef;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, OnceLock},
    time::{Duration, Instant},
};
use tempfile::TempDir;
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Channel;

/// Far longer than anything here takes, so that no test fails on a busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A running peer. When dropped, it ends without a goodbye.
pub(crate) struct TestPeer {
    pub(crate) handle: NodeHandle,
    pub(crate) address: SocketAddr,
    stop: CancellationToken,
    /// Its own runtime, so that it can be ended at any point, as by `kill -9`.
    runtime: Option<Runtime>,
    _state: TempDir,
}

pub(crate) struct Setup {
    pub(crate) name: String,
    pub(crate) bootnodes: Vec<Bootnode>,
    pub(crate) advertise: Option<Endpoint>,
    pub(crate) registry: Option<Endpoint>,
    /// The local address it dials from, and the proxy in front of it.
    pub(crate) dial_from: Option<IpAddr>,
    pub(crate) proxy: Option<Proxy>,
    pub(crate) id: Option<PeerId>,
    /// The kernel keeps little of what it sends to those that dialled it.
    pub(crate) has_small_buffers: bool,
}

impl Setup {
    pub(crate) fn named(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            bootnodes: Vec::new(),
            advertise: None,
            registry: None,
            dial_from: None,
            proxy: None,
            id: None,
            has_small_buffers: false,
        }
    }

    pub(crate) fn with_bootnodes<'a>(mut self, peers: impl IntoIterator<Item = &'a TestPeer>) -> Self {
        let bootnode =
            |peer: &TestPeer| format!("{}:{}", peer.handle.identity().name(), peer.handle.identity().endpoint().port());
        self.bootnodes = peers.into_iter().map(|peer| bootnode(peer).parse().unwrap()).collect();
        self
    }

    pub(crate) async fn start(self) -> TestPeer {
        let state = tempfile::tempdir().unwrap();
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        if self.has_small_buffers {
            // Connections that are accepted have the same.
            SockRef::from(&listener).set_send_buffer_size(64 * 1024).unwrap();
        }
        if let Some(proxy) = &self.proxy {
            proxy.leads_to(address);
        }
        if let Some(id) = self.id {
            // A peer keeps the id that it finds in its state folder.
            std::fs::create_dir(state.path().join("state")).unwrap();
            std::fs::write(state.path().join("state/id"), format!("{id}\n")).unwrap();
        }
        let config = NodeConfig {
            advertise: self.advertise.or(self.proxy.as_ref().map(|proxy| proxy.address().into())),
            dial_from: self.dial_from,
            registries: self.registry.into_iter().collect(),
            bootnodes: self.bootnodes,
            limits: Limits { grace: Duration::from_secs(2), ..Limits::default() },
            ..NodeConfig::new(self.name.parse().unwrap(), state.path().join("state"))
        };
        let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let stop = CancellationToken::new();
        let until = stop.clone();
        let listener = listener.into_std().unwrap();
        let (sender, handle) = tokio::sync::oneshot::channel();
        runtime.spawn(async move {
            let node = Node::open(config, TcpListener::from_std(listener).unwrap()).unwrap();
            assert!(sender.send(node.handle()).is_ok());
            node.run(until).await.unwrap();
        });
        TestPeer { handle: handle.await.unwrap(), address, stop, runtime: Some(runtime), _state: state }
    }
}

impl TestPeer {
    pub(crate) async fn client(&self) -> PeerClient<Channel> {
        PeerClient::connect(format!("http://{}", self.address)).await.unwrap()
    }

    pub(crate) async fn control(&self) -> ControlClient<Channel> {
        ControlClient::connect(format!("http://{}", self.address)).await.unwrap()
    }

    pub(crate) fn is_linked_to(&self, other: &Self) -> bool {
        self.handle.mesh().view().neighbours.iter().any(|(contact, _)| contact.id() == other.handle.identity().id())
    }

    /// The number of its neighbours.
    pub(crate) fn neighbours(&self) -> usize {
        self.handle.mesh().view().neighbours.len()
    }

    /// Its counts.
    pub(crate) fn mesh(&self) -> p2pdi::v1::MeshStatus {
        self.handle.mesh().view().status.clone()
    }

    /// Broadcasts `body` without waiting for acknowledgements.
    pub(crate) async fn say_to_all(&self, body: impl Into<bytes::Bytes>) {
        let kind = "text".parse().unwrap();
        self.handle.mesh().broadcast(&kind, body.into(), Duration::ZERO).await.unwrap();
    }

    /// Bodies of the messages it has, as text.
    pub(crate) fn messages(&self) -> Vec<String> {
        let text = |message: peerd::inbox::Message| String::from_utf8(message.body.to_vec()).unwrap();
        self.handle.inbox().latest(1_000).into_iter().map(text).collect()
    }

    /// One HTTP/1.1 request as curl makes it: status code and body.
    pub(crate) async fn get(&self, path: &str, headers: &[&str]) -> (u16, String) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let mut stream = tokio::net::TcpStream::connect(self.address).await.unwrap();
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let port = self.address.port();
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost:{port}\r\nAccept: */*\r\nConnection: close\r\n{headers}\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
        let code = answer.split(' ').nth(1).unwrap().parse().unwrap();
        (code, answer.split_once("\r\n\r\n").unwrap().1.to_owned())
    }

    /// Stops it with a goodbye.
    pub(crate) async fn stop(mut self) {
        self.stop.cancel();
        let address = self.address;
        until("it is gone", async || tokio::net::TcpStream::connect(address).await.is_err()).await;
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

impl Drop for TestPeer {
    fn drop(&mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

/// Lines with `word` that this process has logged since the first call. Each test looks for a name of its own.
pub(crate) fn logged(word: &str) -> Vec<String> {
    static LOG: OnceLock<Arc<Mutex<Vec<u8>>>> = OnceLock::new();
    let log = LOG.get_or_init(|| {
        let log = Arc::new(Mutex::new(Vec::new()));
        let writer = Log(Arc::clone(&log));
        tracing_subscriber::fmt().with_ansi(false).with_writer(move || writer.clone()).init();
        log
    });
    let log = String::from_utf8_lossy(&log.lock().unwrap()).into_owned();
    log.lines().filter(|line| line.contains(word)).map(str::to_owned).collect()
}

#[derive(Clone)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

pub(crate) fn whisper(to: &str, body: &str) -> WhisperRequest {
    WhisperRequest { to: to.to_owned(), body: body.to_owned().into(), ..Default::default() }
}

/// Waits until a condition is true.
pub(crate) async fn until(what: &str, mut condition: impl AsyncFnMut() -> bool) {
    let begun = Instant::now();
    while !condition().await {
        assert!(begun.elapsed() < PATIENCE, "timed out after {PATIENCE:?}: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}
