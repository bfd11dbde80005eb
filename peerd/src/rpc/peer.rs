//! The service `Peer`, which every other peer may call.

use super::{access::unread, services::Services};
use crate::{
    connections::slow_reader::SlowReaderGuard,
    documents::{
        catalog::{self, Filter},
        share::SharedDocument,
    },
    mesh::RELAYED_MAX_BYTES,
    transfer::serve::{source::Source, uploads::Upload},
};
use p2pdi::{
    content::ContentHash,
    document::DocumentName,
    field::InvalidField,
    server::Caller,
    status::{Reason, internal},
    v1::{
        AvailabilityRequest, AvailabilityResponse, GetRfcRequest, GetRfcResponse, LinkRequest, LinkResponse, ListPeersRequest,
        ListPeersResponse, PingRequest, PingResponse, RfcQueryRequest, RfcQueryResponse, SwarmRequest, SwarmResponse,
        WhisperRequest, WhisperResponse, get_rfc_request,
        peer_server::{Peer, PeerServer},
    },
};
use std::{net::IpAddr, ops::Range, pin::Pin, sync::Arc, time::Instant};
use tokio::task::spawn_blocking;
use tokio_stream::Stream;
use tonic::{Request, Response, Status, Streaming};

/// Largest request accepted, in bytes: a message with the longest body and all its names.
const REQUEST_MAX_BYTES: usize = RELAYED_MAX_BYTES;

/// The service `Peer`.
pub(crate) struct PeerRpc(Arc<Services>);

impl PeerRpc {
    /// The service, ready to be routed.
    pub(crate) fn server(services: Arc<Services>) -> PeerServer<Self> {
        PeerServer::new(Self(services)).max_decoding_message_size(REQUEST_MAX_BYTES)
    }

    fn document(&self, selector: Option<get_rfc_request::Document>) -> Result<Arc<SharedDocument>, Status> {
        use get_rfc_request::Document;
        let index = self.0.catalog.share().index();
        let (found, what) = match selector {
            Some(Document::Number(0)) => return Err(InvalidField::new("number", "RFC numbers begin at 1").into()),
            Some(Document::Number(number)) => (index.by_number(number).first().cloned(), format!("RFC {number}")),
            Some(Document::Name(name)) => {
                let name = DocumentName::parse(&name)?;
                (index.by_name(name.as_str()).cloned(), name.to_string())
            }
            Some(Document::Blake3(hash)) => {
                let hash = ContentHash::from_field(&hash)?;
                (index.by_hash(&hash).first().cloned(), format!("b3:{hash}"))
            }
            None => return Err(InvalidField::new("document", "name a document: by number, name or blake3 hash").into()),
        };
        found.ok_or_else(|| {
            Reason::DocumentUnknown.status(format!("{} does not have {what}; ask RFCQuery who does", self.0.me.name()))
        })
    }
}

/// The bytes of a document that a request asks for; length 0 means up to the end.
fn range(offset: u64, length: u64, size: u64) -> Result<Range<u64>, Status> {
    let beyond = |what: &str| {
        Reason::RangeBeyondEnd
            .status_with(format!("the range {what} beyond the end: the document has {size} bytes"), [("size", size.to_string())])
    };
    if offset > size {
        return Err(beyond("begins"));
    }
    let end = match length {
        0 => size,
        length => offset.checked_add(length).filter(|end| *end <= size).ok_or_else(|| beyond("ends"))?,
    };
    Ok(offset..end)
}

/// The address of the caller.
fn address<T>(request: &Request<T>) -> Option<IpAddr> {
    Caller::of(request.extensions()).map(|caller| caller.address().ip())
}

#[tonic::async_trait]
impl Peer for PeerRpc {
    type RFCQueryStream = Pin<Box<dyn Stream<Item = Result<RfcQueryResponse, Status>> + Send>>;
    type GetRFCStream = Pin<Box<dyn Stream<Item = Result<GetRfcResponse, Status>> + Send>>;
    type LinkStream = Pin<Box<dyn Stream<Item = Result<LinkResponse, Status>> + Send>>;
    type AvailabilityStream = Pin<Box<dyn Stream<Item = Result<AvailabilityResponse, Status>> + Send>>;

    async fn rfc_query(&self, request: Request<RfcQueryRequest>) -> Result<Response<Self::RFCQueryStream>, Status> {
        let (caller, address) = (Caller::of(request.extensions()).cloned(), address(&request));
        let request = request.into_inner();
        let filter = Filter::try_from(&request)?;
        let is_listing = filter.is_listing();
        let permit = self.0.admit_query(is_listing, address).await?;
        let services = Arc::clone(&self.0);
        let select = move || catalog::answer(&services.catalog, &services.own.get(), &filter, request.if_version, Instant::now());
        // A listing goes through the whole index, which takes up to some 100 ms.
        let messages = if is_listing {
            spawn_blocking(select).await.map_err(|error| internal("selecting documents", &error))?
        } else {
            select()
        };
        // The permit is released with the last message, or when the caller goes away.
        let messages = messages.map(move |message| {
            let _permit = &permit;
            Ok(message)
        });
        Ok(Response::new(Box::pin(SlowReaderGuard::new(tokio_stream::iter(messages), caller, self.0.unread, unread))))
    }

    async fn get_rfc(&self, request: Request<GetRfcRequest>) -> Result<Response<Self::GetRFCStream>, Status> {
        let caller = Caller::of(request.extensions()).cloned();
        let GetRfcRequest { document, offset, length, without_piece_hashes, in_turn, accepts_queued } = request.into_inner();
        let source = Source::Shared(self.0.catalog.share().clone(), self.document(document)?);
        let range = range(offset, length, source.size())?;
        let upload = Upload { source, range, with_piece_hashes: !without_piece_hashes, in_turn, accepts_queued };
        let stream = self.0.uploads.send(upload, caller.clone()).await?;
        Ok(Response::new(Box::pin(SlowReaderGuard::new(stream, caller, self.0.unread, unread))))
    }

    async fn whisper(&self, request: Request<WhisperRequest>) -> Result<Response<WhisperResponse>, Status> {
        self.0.router.deliver(request.into_inner()).await.map(Response::new)
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(self.0.ping()))
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        Ok(Response::new(self.0.list_peers(&self.0.mesh.view())))
    }

    async fn link(&self, request: Request<Streaming<LinkRequest>>) -> Result<Response<Self::LinkStream>, Status> {
        let caller = Caller::of(request.extensions()).map(Caller::address);
        let stream = self.0.mesh.accept(request.into_inner(), caller)?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn availability(
        &self,
        _: Request<Streaming<AvailabilityRequest>>,
    ) -> Result<Response<Self::AvailabilityStream>, Status> {
        Err(Status::unimplemented("this peer is in no swarm"))
    }

    async fn swarm(&self, _: Request<SwarmRequest>) -> Result<Response<SwarmResponse>, Status> {
        Err(Status::unimplemented("this peer is in no swarm"))
    }
}
