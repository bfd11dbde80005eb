//! A real peer in this process.

use super::{PATIENCE, eventually, pause, source, within};
use p2pdi::{
    endpoint::Endpoint,
    v1::{
        GetRfcHeader, GetRfcRequest, get_rfc_request::Document as DocumentSelector, get_rfc_response::Part,
        peer_client::PeerClient,
    },
};
use peerd::{
    config::NodeConfig,
    documents::share::ShareError,
    holders::source::Source,
    node::{Node, NodeError, NodeHandle},
};
use std::{
    fs,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    time::Instant,
};
use tempfile::TempDir;
use tokio::{
    net::{TcpListener, TcpSocket},
    task::JoinHandle,
};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    codegen::{Body, Bytes, StdError},
    transport::{self, Channel},
};

/// A node with its folders.
pub struct Peer {
    pub address: SocketAddr,
    pub handle: NodeHandle,
    pub folder: TempDir,
    stop: CancellationToken,
    running: JoinHandle<Result<(), NodeError>>,
}

impl Peer {
    /// A peer without a registry that shares these files.
    pub async fn sharing(files: &[(&str, &[u8])]) -> Self {
        Self::configured(files, |_| {}).await
    }

    /// The same, with its configuration changed.
    pub async fn configured(files: &[(&str, &[u8])], change: impl FnOnce(&mut NodeConfig)) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let share = folder.path().join("share");
        fs::create_dir(&share).unwrap();
        for (name, content) in files {
            let path = share.join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        let mut config = config("sharer", &folder);
        change(&mut config);
        let peer = Self::start(config, folder).await;
        within("the share", peer.handle.share().settled()).await;
        peer
    }

    pub async fn start(config: NodeConfig, folder: TempDir) -> Self {
        Self::listening_on("127.0.0.1:0", config, folder).await
    }

    /// The same, on another address.
    pub async fn listening_on(address: &str, config: NodeConfig, folder: TempDir) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let address = listener.local_addr().unwrap();
        let (mut listener, deadline) = (listener, Instant::now() + PATIENCE);
        // A peer that just stopped in this process has its state folder until its last task is gone.
        let node = loop {
            match Node::open(config.clone(), listener) {
                Err(NodeError::Share(ShareError::StateInUse { .. })) if Instant::now() < deadline => {
                    pause().await;
                    listener = TcpListener::bind(address).await.unwrap();
                }
                opened => break opened.unwrap(),
            }
        };
        let (handle, stop) = (node.handle(), CancellationToken::new());
        let running = tokio::spawn(node.run(stop.clone()));
        Self { address, handle, folder, stop, running }
    }

    pub fn share(&self) -> PathBuf {
        self.folder.path().join("share")
    }

    pub fn client(&self) -> PeerClient<Channel> {
        client(self.address)
    }

    /// A client whose connection comes from the local address `from`.
    pub fn client_from(&self, from: IpAddr) -> PeerClient<Channel> {
        client_from(self.address, Some(from))
    }

    pub fn source(&self, name: &str) -> Source {
        source(name, self.address)
    }

    /// Fetches a small document to check that the peer serves.
    pub async fn assert_serves(&self, name: &str, content: &[u8]) {
        let got = within("an answer", get(&mut self.client(), by_name(name))).await.unwrap();
        assert!(got.1 == content, "{name} has {} bytes, {} expected", got.1.len(), content.len());
    }

    /// Waits until no document is being sent.
    pub async fn until_idle(&self) {
        eventually("the end of all uploads", async || {
            let load = self.client().ping(p2pdi::v1::PingRequest {}).await.unwrap().into_inner().load.unwrap();
            (load.uploads == 0).then_some(())
        })
        .await;
    }

    pub async fn stop(self) -> TempDir {
        self.stop.cancel();
        within("the peer's end", self.running).await.unwrap().unwrap();
        self.folder
    }

    /// The same, and nothing else gets its address, where connections are refused, until the socket is dropped: what binds port 0 might.
    /// A peer that is to listen there again can.
    pub async fn stop_keeping_address(self) -> (TempDir, TcpSocket) {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_reuseaddr(true).unwrap();
        let address = self.address;
        let folder = self.stop().await;
        socket.bind(address).unwrap();
        (folder, socket)
    }
}

/// A peer's configuration in `folder`.
pub fn config(name: &str, folder: &TempDir) -> NodeConfig {
    NodeConfig { share: Some(folder.path().join("share")), ..NodeConfig::new(name.parse().unwrap(), folder.path().join("state")) }
}

pub fn client(address: SocketAddr) -> PeerClient<Channel> {
    client_from(address, None)
}

fn client_from(address: SocketAddr, from: Option<IpAddr>) -> PeerClient<Channel> {
    let endpoint: Endpoint = address.into();
    let channel = transport::Endpoint::from_shared(format!("http://{endpoint}")).unwrap().local_address(from);
    // Small windows, so that a caller that does not read is noticed soon.
    let channel = channel.initial_stream_window_size(65_535).initial_connection_window_size(65_535).connect_lazy();
    PeerClient::new(channel).max_decoding_message_size(p2pdi::channel::RESPONSE_MAX_BYTES)
}

pub fn by_name(name: &str) -> GetRfcRequest {
    GetRfcRequest { document: Some(DocumentSelector::Name(name.into())), ..Default::default() }
}

pub fn by_number(number: u32) -> GetRfcRequest {
    GetRfcRequest { document: Some(DocumentSelector::Number(number)), ..Default::default() }
}

/// The header and the joined chunks of an answer. Checks that the chunks are contiguous.
pub async fn get<T>(client: &mut PeerClient<T>, request: GetRfcRequest) -> Result<(GetRfcHeader, Vec<u8>), Status>
where
    T: tonic::client::GrpcService<tonic::body::Body>,
    T::Error: Into<StdError>,
    T::ResponseBody: Body<Data = Bytes> + Send + 'static,
    <T::ResponseBody as Body>::Error: Into<StdError> + Send,
{
    let mut stream = client.get_rfc(request).await?.into_inner();
    let Some(Part::Header(header)) = stream.message().await?.and_then(|message| message.part) else {
        panic!("no header first");
    };
    let mut data = Vec::new();
    while let Some(message) = stream.message().await? {
        let Some(Part::Chunk(chunk)) = message.part else { panic!("not a chunk") };
        assert_eq!(chunk.offset, header.offset + data.len() as u64);
        data.extend_from_slice(&chunk.data);
    }
    assert_eq!(data.len() as u64, header.served_length);
    Ok((header, data))
}
