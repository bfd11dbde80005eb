//! A holder that lies: it is registered, announces that it has the whole document, and sends wrong bytes in every fourth piece.

use bytes::Bytes;
use p2pdi::{
    channel::{REGISTRY_RESPONSE_MAX_BYTES, lazy},
    content::{PieceHashes, Pieces},
    cookie::COOKIE_HEADER,
    endpoint::Endpoint,
    metrics::Metrics,
    server::{Limits, Shutdown, serve as serve_on},
    v1::{
        AnnounceRequest, AvailabilityRequest, AvailabilityResponse, AvailabilityStart, AvailabilityUpdate, Chunk, Contact,
        Document, GetRfcHeader, GetRfcRequest, GetRfcResponse, Holding, KeepAliveRequest, LinkRequest, LinkResponse,
        ListPeersRequest, ListPeersResponse, PingRequest, PingResponse, RegisterRequest, RfcQueryRequest, RfcQueryResponse,
        SwarmRequest, SwarmResponse, WhisperRequest, WhisperResponse, WhispersRequest, WhispersResponse,
        get_rfc_request::Document as Wanted,
        get_rfc_response::Part,
        peer_server::{Peer, PeerServer},
        registry_client::RegistryClient,
    },
};
use std::{fs, net::SocketAddr, path::Path, pin::Pin, sync::Arc, time::Duration};
use tokio::{net::TcpListener, runtime::Runtime, sync::mpsc, time::interval};
use tokio_stream::{Stream, StreamExt as _};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, metadata::AsciiMetadataValue, service::Routes};

const CHUNK_BYTES: u64 = 256 * 1024;
const PIECES_PER_LIE: usize = 4;
/// How often it renews its lease and its announcement.
const RENEW: Duration = Duration::from_secs(3);

#[derive(Clone)]
struct Liar {
    contact: Contact,
    data: Bytes,
    hashes: Arc<PieceHashes>,
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

impl Liar {
    fn document(&self) -> Document {
        Document {
            name: "content.bin".into(),
            size: self.data.len() as u64,
            blake3: self.hashes.merge().to_field(),
            ..Document::default()
        }
    }

    fn chunk(&self, from: u64, end: u64) -> Chunk {
        let to = (from / CHUNK_BYTES * CHUNK_BYTES + CHUNK_BYTES).min(end);
        let mut data = self.data.slice(from as usize..to as usize);
        if self.hashes.pieces().index_at(from).is_multiple_of(PIECES_PER_LIE) {
            let mut wrong = data.to_vec();
            wrong[0] ^= 1;
            data = wrong.into();
        }
        Chunk { offset: from, data }
    }
}

#[tonic::async_trait]
impl Peer for Liar {
    type RFCQueryStream = Answers<RfcQueryResponse>;
    type GetRFCStream = Answers<GetRfcResponse>;
    type LinkStream = Answers<LinkResponse>;
    type WhispersStream = Answers<WhispersResponse>;
    type AvailabilityStream = Answers<AvailabilityResponse>;

    async fn link(&self, _: Request<Streaming<LinkRequest>>) -> Result<Response<Self::LinkStream>, Status> {
        Err(Status::unimplemented("it has no links"))
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        Ok(Response::new(ListPeersResponse { peer: Some(self.contact.clone()), documents: 1, ..ListPeersResponse::default() }))
    }

    async fn rfc_query(&self, _: Request<RfcQueryRequest>) -> Result<Response<Self::RFCQueryStream>, Status> {
        let holding = Holding { document: Some(self.document()), holders: Vec::new() };
        let answer = RfcQueryResponse { version: 1, holdings: vec![holding], ..RfcQueryResponse::default() };
        Ok(Response::new(Box::pin(tokio_stream::once(Ok(answer)))))
    }

    async fn get_rfc(&self, request: Request<GetRfcRequest>) -> Result<Response<Self::GetRFCStream>, Status> {
        let request = request.into_inner();
        let document = self.document();
        if !matches!(&request.document, Some(Wanted::Blake3(hash)) if *hash == document.blake3) {
            return Err(Status::not_found("no such document here"));
        }
        let size = self.data.len() as u64;
        let end = if request.length == 0 { size } else { request.offset.saturating_add(request.length).min(size) };
        let header = GetRfcHeader {
            document: Some(document),
            piece_size: self.hashes.pieces().piece_size(),
            piece_hashes: if request.without_piece_hashes { Bytes::new() } else { self.hashes.joined() },
            offset: request.offset,
            served_length: end.saturating_sub(request.offset),
        };
        let (this, mut at) = (self.clone(), request.offset);
        let chunks = std::iter::from_fn(move || {
            let chunk = (at < end).then(|| this.chunk(at, end))?;
            at += chunk.data.len() as u64;
            Some(Part::Chunk(chunk))
        });
        let parts = std::iter::once(Part::Header(header)).chain(chunks);
        Ok(Response::new(Box::pin(tokio_stream::iter(parts.map(|part| Ok(GetRfcResponse { part: Some(part) }))))))
    }

    async fn whisper(&self, _: Request<WhisperRequest>) -> Result<Response<WhisperResponse>, Status> {
        Err(Status::unimplemented("it takes no messages"))
    }

    async fn whispers(&self, _: Request<Streaming<WhispersRequest>>) -> Result<Response<Self::WhispersStream>, Status> {
        Err(Status::unimplemented("it takes no messages"))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        let Contact { id, name, endpoint } = self.contact.clone();
        Ok(Response::new(PingResponse { id, name, endpoint, documents: 1, ..PingResponse::default() }))
    }

    async fn availability(
        &self,
        request: Request<Streaming<AvailabilityRequest>>,
    ) -> Result<Response<Self::AvailabilityStream>, Status> {
        let start = AvailabilityStart {
            blake3: self.hashes.merge().to_field(),
            size: self.data.len() as u64,
            peer: Some(self.contact.clone()),
            complete: true,
            ..AvailabilityStart::default()
        };
        let update = AvailabilityUpdate { start: Some(start), ..AvailabilityUpdate::default() };
        let (sender, receiver) = mpsc::channel(1);
        let _ = sender.send(Ok(AvailabilityResponse { update: Some(update) })).await;
        // It stays open for as long as the other side's does.
        tokio::spawn(async move {
            let mut updates = request.into_inner();
            while let Some(Ok(_)) = updates.next().await {}
            drop(sender);
        });
        Ok(Response::new(Box::pin(tokio_stream::wrappers::ReceiverStream::new(receiver))))
    }

    async fn swarm(&self, _: Request<SwarmRequest>) -> Result<Response<SwarmResponse>, Status> {
        Err(Status::unimplemented("it shows nothing"))
    }
}

/// Serves until it is killed.
pub(crate) fn run(file: &Path, listen: SocketAddr, registry: &str) {
    let data = Bytes::from(fs::read(file).unwrap());
    let pieces = Pieces::of_size(data.len() as u64).unwrap();
    let hash = |index: usize| {
        let (range, mut hasher) = (pieces.range(index), pieces.hasher(index));
        hasher.update(&data[range.start as usize..range.end as usize]);
        hasher.finalize()
    };
    let hashes = Arc::new(PieceHashes::new(pieces, (0..pieces.count()).map(hash).collect()).unwrap());
    let contact = Contact { id: vec![0x1a; 16].into(), name: "liar".into(), endpoint: listen.to_string() };
    let registry: Endpoint = registry.parse().unwrap();
    Runtime::new().unwrap().block_on(async {
        let listener = TcpListener::bind(listen).await.unwrap();
        tokio::spawn(announce(registry, contact.clone(), data.len() as u64, hashes.merge().to_field()));
        let router = Routes::new(PeerServer::new(Liar { contact, data, hashes })).into_axum_router();
        serve_on(listener, router, &Limits::default(), None, &Metrics::default(), Shutdown::at(CancellationToken::new()))
            .await
            .unwrap();
    });
}

async fn announce(registry: Endpoint, contact: Contact, size: u64, blake3: Bytes) {
    let mut client = RegistryClient::new(lazy(&registry)).max_decoding_message_size(REGISTRY_RESPONSE_MAX_BYTES);
    let Contact { id, name, endpoint } = contact;
    let registered = client.register(RegisterRequest { id, name, endpoint, ..RegisterRequest::default() }).await.unwrap();
    let cookie: AsciiMetadataValue = registered.into_inner().cookie.parse().unwrap();
    let mut renewals = interval(RENEW);
    loop {
        renewals.tick().await;
        let mut alive = Request::new(KeepAliveRequest { documents: 1, index_version: 1, ..KeepAliveRequest::default() });
        alive.metadata_mut().insert(COOKIE_HEADER, cookie.clone());
        client.keep_alive(alive).await.unwrap();
        let mut announce =
            Request::new(AnnounceRequest { blake3: blake3.clone(), size, had: size, ..AnnounceRequest::default() });
        announce.metadata_mut().insert(COOKIE_HEADER, cookie.clone());
        // A registry without swarms refuses; the leechers ask for holders then.
        let _ = client.announce(announce).await;
    }
}
