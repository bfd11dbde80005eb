//! A client and a server that send any frames or bytes that a test wants on a link.

use crate::support::PATIENCE;
use bytes::{Buf as _, BufMut as _, Bytes};
use p2pdi::{
    id::PeerId,
    link::LinkMessage,
    v1::{
        AvailabilityRequest, AvailabilityResponse, Contact, GetRfcRequest, GetRfcResponse, LinkFrame, LinkHello, LinkPong,
        ListPeersRequest, ListPeersResponse, NeighbourReply, NeighbourRequest, PingRequest, PingResponse, RfcQueryRequest,
        RfcQueryResponse, SwarmRequest, SwarmResponse, WhisperRequest, WhisperResponse, WhispersRequest, WhispersResponse,
        link_frame::Body,
        peer_server::{Peer, PeerServer},
    },
};
use prost::Message as _;
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{net::TcpListener, sync::mpsc, time::timeout};
use tokio_stream::{
    Empty,
    wrappers::{ReceiverStream, TcpListenerStream},
};
use tonic::{
    Request, Response, Status, Streaming,
    client::Grpc,
    codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder},
    codegen::http::uri::PathAndQuery,
    transport::Endpoint,
};

/// A codec that passes bytes unchanged.
#[derive(Clone, Copy)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        *self
    }

    fn decoder(&mut self) -> Self {
        *self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, buf: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buf.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, buf: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        let length = buf.remaining();
        Ok(Some(buf.copy_to_bytes(length)))
    }
}

/// A link on which a test sends any bytes.
pub(crate) struct RawLink {
    out: mpsc::Sender<Bytes>,
    incoming: Streaming<Bytes>,
}

pub(crate) fn contact(id: u128, name: &str, endpoint: &str) -> Contact {
    Contact { id: PeerId::from_u128(id).to_field(), name: name.to_owned(), endpoint: endpoint.to_owned() }
}

pub(crate) fn frame(body: Body) -> LinkFrame {
    LinkFrame { body: Some(body) }
}

pub(crate) fn hello(peer: Contact) -> LinkFrame {
    frame(Body::Hello(LinkHello { peer: Some(peer), incarnation: 1, network: String::new() }))
}

impl RawLink {
    /// Opens a link to the peer at `address`, from the local address `from`.
    pub(crate) async fn open(address: SocketAddr, from: Option<IpAddr>) -> Result<Self, Status> {
        let endpoint = Endpoint::from_shared(format!("http://{address}")).unwrap().local_address(from);
        let channel = endpoint.connect().await.map_err(|error| Status::unavailable(error.to_string()))?;
        Self::open_on(channel).await
    }

    /// Opens one more link on a connection.
    pub(crate) async fn open_on(channel: tonic::transport::Channel) -> Result<Self, Status> {
        let mut client = Grpc::new(channel);
        client.ready().await.map_err(|error| Status::unavailable(error.to_string()))?;
        let (out, queue) = mpsc::channel(64);
        let path = PathAndQuery::from_static("/p2pdi.v1.Peer/Link");
        let incoming = client.streaming(Request::new(ReceiverStream::new(queue)), path, Raw).await?.into_inner();
        Ok(Self { out, incoming })
    }

    /// Opens a link, says hello as `peer`, and becomes a neighbour.
    pub(crate) async fn neighbour(address: SocketAddr, from: Option<IpAddr>, peer: Contact) -> Self {
        let mut link = Self::open(address, from).await.unwrap();
        link.send(hello(peer)).await;
        link.send(frame(Body::NeighbourRequest(NeighbourRequest { urgent: true }))).await;
        loop {
            match link.next().await.expect("it closed the link").body {
                Some(Body::NeighbourReply(reply)) => {
                    assert!(reply.accepted);
                    return link;
                }
                _ => continue,
            }
        }
    }

    /// Sends `frame`; returns false if the link has ended.
    pub(crate) async fn send(&self, frame: LinkFrame) -> bool {
        self.send_bytes(LinkMessage::new(frame).encode_to_vec()).await
    }

    pub(crate) async fn send_bytes(&self, bytes: Vec<u8>) -> bool {
        timeout(PATIENCE, self.out.send(bytes.into())).await.expect("the peer does not read").is_ok()
    }

    /// The next frame from the peer; `None` once it has ended the link.
    pub(crate) async fn next(&mut self) -> Option<LinkFrame> {
        let bytes = timeout(PATIENCE, self.incoming.message()).await.expect("a frame from the peer");
        bytes.ok().flatten().map(|bytes| LinkMessage::decode(bytes).unwrap().frame.unwrap_or_default())
    }

    /// Waits until the peer has ended the link, answering its pings.
    pub(crate) async fn ended(&mut self) {
        while let Some(received) = self.next().await {
            if let Some(Body::Ping(ping)) = received.body {
                self.send(frame(Body::Pong(LinkPong { nonce: ping.nonce }))).await;
            }
        }
    }

    /// The sending and the receiving half.
    pub(crate) fn split(self) -> (mpsc::Sender<Bytes>, Streaming<Bytes>) {
        (self.out, self.incoming)
    }
}

/// What a server sends on a link, given its address and a received frame.
type Script = dyn Fn(SocketAddr, LinkFrame) -> Vec<LinkFrame> + Send + Sync;

/// A server that answers `Peer.Link` as a test wants, and no other call.
pub(crate) struct RawServer {
    pub(crate) address: SocketAddr,
    links: Arc<AtomicUsize>,
}

struct Service {
    address: SocketAddr,
    links: Arc<AtomicUsize>,
    script: Arc<Script>,
}

impl RawServer {
    pub(crate) async fn start(script: impl Fn(SocketAddr, LinkFrame) -> Vec<LinkFrame> + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let links = Arc::new(AtomicUsize::new(0));
        let service = PeerServer::new(Service { address, links: Arc::clone(&links), script: Arc::new(script) });
        let incoming = TcpListenerStream::new(listener);
        tokio::spawn(tonic::transport::Server::builder().add_service(service).serve_with_incoming(incoming));
        Self { address, links }
    }

    /// A server that says hello with this id and name, accepts every neighbour request, and then sends `then`.
    pub(crate) async fn accepting(id: u128, name: &'static str, then: Vec<LinkFrame>) -> Self {
        Self::start(move |address, received| match received.body {
            Some(Body::Hello(_)) => vec![hello(contact(id, name, &address.to_string()))],
            Some(Body::Join(_) | Body::NeighbourRequest(_)) => {
                let accepted = frame(Body::NeighbourReply(NeighbourReply { accepted: true, peers: Vec::new() }));
                [accepted].into_iter().chain(then.iter().cloned()).collect()
            }
            Some(Body::Ping(ping)) => vec![frame(Body::Pong(LinkPong { nonce: ping.nonce }))],
            _ => Vec::new(),
        })
        .await
    }

    /// Links opened to it so far.
    pub(crate) fn links(&self) -> usize {
        self.links.load(Ordering::Relaxed)
    }
}

#[tonic::async_trait]
impl Peer for Service {
    type RFCQueryStream = Empty<Result<RfcQueryResponse, Status>>;
    type GetRFCStream = Empty<Result<GetRfcResponse, Status>>;
    type LinkStream = ReceiverStream<Result<LinkMessage, Status>>;
    type WhispersStream = Empty<Result<WhispersResponse, Status>>;
    type AvailabilityStream = Empty<Result<AvailabilityResponse, Status>>;

    async fn link(&self, request: Request<Streaming<LinkMessage>>) -> Result<Response<Self::LinkStream>, Status> {
        self.links.fetch_add(1, Ordering::Relaxed);
        let (out, queue) = mpsc::channel(64);
        let (script, address, mut frames) = (Arc::clone(&self.script), self.address, request.into_inner());
        tokio::spawn(async move {
            while let Ok(Some(message)) = frames.message().await {
                for answer in script(address, message.frame.unwrap_or_default()) {
                    if out.send(Ok(LinkMessage::new(answer))).await.is_err() {
                        return;
                    }
                }
            }
        });
        Ok(Response::new(ReceiverStream::new(queue)))
    }

    async fn rfc_query(&self, _: Request<RfcQueryRequest>) -> Result<Response<Self::RFCQueryStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn get_rfc(&self, _: Request<GetRfcRequest>) -> Result<Response<Self::GetRFCStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn whisper(&self, _: Request<WhisperRequest>) -> Result<Response<WhisperResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn whispers(&self, _: Request<Streaming<WhispersRequest>>) -> Result<Response<Self::WhispersStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn availability(
        &self,
        _: Request<Streaming<AvailabilityRequest>>,
    ) -> Result<Response<Self::AvailabilityStream>, Status> {
        Err(Status::unimplemented(""))
    }

    async fn swarm(&self, _: Request<SwarmRequest>) -> Result<Response<SwarmResponse>, Status> {
        Err(Status::unimplemented(""))
    }
}
