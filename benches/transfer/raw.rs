//! The same messages over the same transport without disk and hash on either side: the limit that tonic sets.

use bytes::Bytes;
use p2pdi::{
    channel::{RESPONSE_MAX_BYTES, lazy},
    metrics::Metrics,
    server::{Limits, Shutdown, serve as serve_on},
    v1::{
        AvailabilityRequest, AvailabilityResponse, Chunk, GetRfcRequest, GetRfcResponse, LinkRequest, LinkResponse,
        ListPeersRequest, ListPeersResponse, PingRequest, PingResponse, RfcQueryRequest, RfcQueryResponse, SwarmRequest,
        SwarmResponse, WhisperRequest, WhisperResponse, WhispersRequest, WhispersResponse,
        get_rfc_response::Part,
        peer_client::PeerClient,
        peer_server::{Peer, PeerServer},
    },
};
use std::{
    net::SocketAddr,
    time::{Duration, Instant},
};
use tokio::{
    net::TcpListener,
    runtime::{Builder, Runtime},
};
use tokio_stream::Iter;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, service::Routes};

const CHUNK_BYTES: u64 = 256 * 1024;

struct Raw {
    bytes: u64,
}

type Chunks = Iter<Box<dyn Iterator<Item = Result<GetRfcResponse, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for Raw {
    type RFCQueryStream = Iter<std::iter::Empty<Result<RfcQueryResponse, Status>>>;
    type GetRFCStream = Chunks;
    type LinkStream = Iter<std::iter::Empty<Result<LinkResponse, Status>>>;
    type WhispersStream = Iter<std::iter::Empty<Result<WhispersResponse, Status>>>;
    type AvailabilityStream = Iter<std::iter::Empty<Result<AvailabilityResponse, Status>>>;

    async fn link(&self, _: Request<Streaming<LinkRequest>>) -> Result<Response<Self::LinkStream>, Status> {
        Err(Status::unimplemented("streams only"))
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        Err(Status::unimplemented("streams only"))
    }

    async fn get_rfc(&self, _: Request<GetRfcRequest>) -> Result<Response<Chunks>, Status> {
        let data = Bytes::from(vec![7; usize::try_from(CHUNK_BYTES).unwrap()]);
        let chunk = move |index: u64| {
            Ok(GetRfcResponse { part: Some(Part::Chunk(Chunk { offset: index * CHUNK_BYTES, data: data.clone() })) })
        };
        let chunks: Box<dyn Iterator<Item = _> + Send> = Box::new((0..self.bytes / CHUNK_BYTES).map(chunk));
        Ok(Response::new(tokio_stream::iter(chunks)))
    }

    async fn rfc_query(&self, _: Request<RfcQueryRequest>) -> Result<Response<Self::RFCQueryStream>, Status> {
        Err(Status::unimplemented("streams only"))
    }

    async fn whisper(&self, _: Request<WhisperRequest>) -> Result<Response<WhisperResponse>, Status> {
        Err(Status::unimplemented("streams only"))
    }

    async fn whispers(&self, _: Request<Streaming<WhispersRequest>>) -> Result<Response<Self::WhispersStream>, Status> {
        Err(Status::unimplemented("streams only"))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Err(Status::unimplemented("streams only"))
    }

    async fn availability(
        &self,
        _: Request<Streaming<AvailabilityRequest>>,
    ) -> Result<Response<Self::AvailabilityStream>, Status> {
        Err(Status::unimplemented("streams only"))
    }

    async fn swarm(&self, _: Request<SwarmRequest>) -> Result<Response<SwarmResponse>, Status> {
        Err(Status::unimplemented("streams only"))
    }
}

/// Serves until it is killed.
pub(crate) fn serve(bytes: u64) {
    Runtime::new().unwrap().block_on(async {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        println!("listening on {}", listener.local_addr().unwrap());
        let router = Routes::new(PeerServer::new(Raw { bytes })).into_axum_router();
        serve_on(listener, router, &Limits::default(), None, &Metrics::default(), Shutdown::at(CancellationToken::new()))
            .await
            .unwrap();
    });
}

/// Receives the whole stream on one thread, as `p2pctl` does.
pub(crate) fn receive(server: SocketAddr, bytes: u64) -> Duration {
    Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
        let begun = Instant::now();
        let mut client = PeerClient::new(lazy(&server.into())).max_decoding_message_size(RESPONSE_MAX_BYTES);
        let mut stream = client.get_rfc(GetRfcRequest::default()).await.unwrap().into_inner();
        let mut got = 0;
        while let Some(GetRfcResponse { part: Some(Part::Chunk(chunk)) }) = stream.message().await.unwrap() {
            got += chunk.data.len() as u64;
        }
        assert_eq!(got, bytes);
        begun.elapsed()
    })
}
