//! The service `Peer` of a fetcher.

use crate::{
    connections::slow_reader::SlowReaderGuard,
    rpc::unread,
    transfer::{
        serve::uploads::Uploads,
        swarm::{get, hub::Swarms, update::Start},
    },
};
use p2pdi::{
    contact::Contact,
    content::ContentHash,
    server::Caller,
    status::Reason,
    v1::{
        AvailabilityRequest, AvailabilityResponse, GetRfcRequest, GetRfcResponse, LinkRequest, LinkResponse, ListPeersRequest,
        ListPeersResponse, PingRequest, PingResponse, RfcQueryRequest, RfcQueryResponse, SwarmRequest, SwarmResponse,
        WhisperRequest, WhisperResponse, WhispersRequest, WhispersResponse, get_rfc_request::Document, peer_server::Peer,
    },
};
use std::{pin::Pin, sync::Arc, time::Duration};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

/// Answers for the documents that a program fetches.
pub(super) struct FetcherService {
    contact: Contact,
    swarms: Swarms,
    uploads: Arc<Uploads>,
    unread: Duration,
    stop: CancellationToken,
}

impl FetcherService {
    pub(super) fn new(
        contact: Contact,
        swarms: Swarms,
        uploads: Arc<Uploads>,
        unread: Duration,
        stop: CancellationToken,
    ) -> Self {
        Self { contact, swarms, uploads, unread, stop }
    }

    fn has_not<T>(&self, hash: &ContentHash) -> Result<T, Status> {
        let name = self.contact.name();
        Err(Reason::DocumentUnknown.status(format!("{name} does not fetch b3:{hash} (any more); ask another holder")))
    }

    /// Refuses what its holder has for some only, in the words for what is not here.
    fn may_know(&self, hash: &ContentHash) -> Result<(), Status> {
        if self.swarms.is_confidential(hash) { self.has_not(hash) } else { Ok(()) }
    }

    fn is_no_peer<T>(&self) -> Result<T, Status> {
        Err(Status::unimplemented(format!(
            "{} is a program that fetches documents and serves only those, by hash; ask a peer",
            self.contact.name()
        )))
    }
}

#[tonic::async_trait]
impl Peer for FetcherService {
    type RFCQueryStream = Pin<Box<dyn Stream<Item = Result<RfcQueryResponse, Status>> + Send>>;
    type GetRFCStream = Pin<Box<dyn Stream<Item = Result<GetRfcResponse, Status>> + Send>>;
    type LinkStream = Pin<Box<dyn Stream<Item = Result<LinkResponse, Status>> + Send>>;
    type WhispersStream = Pin<Box<dyn Stream<Item = Result<WhispersResponse, Status>> + Send>>;
    type AvailabilityStream = Pin<Box<dyn Stream<Item = Result<AvailabilityResponse, Status>> + Send>>;

    async fn get_rfc(&self, request: Request<GetRfcRequest>) -> Result<Response<Self::GetRFCStream>, Status> {
        let caller = Caller::of(request.extensions()).cloned();
        let request = request.into_inner();
        let Some(Document::Blake3(hash)) = &request.document else { return self.is_no_peer() };
        let hash = ContentHash::from_field(hash)?;
        self.may_know(&hash)?;
        let Some(source) = self.swarms.source(&hash) else { return self.has_not(&hash) };
        let stream = get::answer(&self.swarms, &self.uploads, source, request, caller.clone()).await?;
        Ok(Response::new(Box::pin(SlowReaderGuard::new(stream, caller, self.unread, unread))))
    }

    async fn availability(
        &self,
        request: Request<Streaming<AvailabilityRequest>>,
    ) -> Result<Response<Self::AvailabilityStream>, Status> {
        let caller = Caller::of(request.extensions()).cloned();
        let whole = |start: &Start| self.has_not(&start.hash);
        let accepted = self.swarms.accept(request.into_inner(), caller.as_ref(), |hash| self.may_know(hash), whole).await?;
        Ok(Response::new(Box::pin(accepted.answer(self.stop.clone()))))
    }

    async fn swarm(&self, request: Request<SwarmRequest>) -> Result<Response<SwarmResponse>, Status> {
        let mut answer = self.swarms.view(&request.into_inner())?;
        answer.swarms.retain(|swarm| ContentHash::from_field(&swarm.blake3).is_ok_and(|hash| self.may_know(&hash).is_ok()));
        Ok(Response::new(answer))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(PingResponse {
            id: self.contact.id().to_field(),
            name: self.contact.name().to_string(),
            endpoint: self.contact.endpoint().to_string(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            index_version: 0,
            documents: 0,
            load: Some(self.uploads.load()),
        }))
    }

    async fn rfc_query(&self, _: Request<RfcQueryRequest>) -> Result<Response<Self::RFCQueryStream>, Status> {
        self.is_no_peer()
    }

    async fn whisper(&self, _: Request<WhisperRequest>) -> Result<Response<WhisperResponse>, Status> {
        self.is_no_peer()
    }

    async fn whispers(&self, _: Request<Streaming<WhispersRequest>>) -> Result<Response<Self::WhispersStream>, Status> {
        self.is_no_peer()
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        self.is_no_peer()
    }

    async fn link(&self, _: Request<Streaming<LinkRequest>>) -> Result<Response<Self::LinkStream>, Status> {
        self.is_no_peer()
    }
}
