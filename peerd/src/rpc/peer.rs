//! The service `Peer`, which every other peer may call.

use super::{
    access::{audience, unread},
    asking::ask_mesh,
    services::Services,
    whispers::Whispers,
};
use crate::{
    connections::slow_reader::SlowReaderGuard,
    documents::{
        catalog::{self, Filter},
        restrictions::Audience,
        share::SharedDocument,
    },
    mesh::RELAYED_MAX_BYTES,
    messages::SENDER_UNKNOWN,
    transfer::{
        serve::source::Source,
        swarm::{get, update::Start},
    },
};
use p2pdi::{
    content::{ContentHash, Pieces},
    document::DocumentName,
    field::InvalidField,
    server::{Admitted, CallClass, Caller},
    status::{Reason, internal},
    v1::{
        AvailabilityRequest, AvailabilityResponse, GetRfcRequest, GetRfcResponse, LinkRequest, LinkResponse, ListPeersRequest,
        ListPeersResponse, PingRequest, PingResponse, RfcQueryRequest, RfcQueryResponse, SwarmRequest, SwarmResponse,
        WhisperRequest, WhisperResponse, WhispersRequest, WhispersResponse, get_rfc_request,
        peer_server::{Peer, PeerServer},
    },
};
use std::{net::IpAddr, pin::Pin, sync::Arc, time::Instant};
use tokio::task::spawn_blocking;
use tokio_stream::{Stream, StreamExt as _};
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

    /// A document that the share has for `audience`.
    fn document(&self, selector: Option<get_rfc_request::Document>, audience: &Audience) -> Result<Arc<SharedDocument>, Status> {
        use get_rfc_request::Document;
        let index = self.0.catalog.share().index();
        let is_for_them = |own: &&Arc<SharedDocument>| self.0.catalog.allows(&own.name, &own.hash, audience);
        let (found, what) = match selector {
            Some(Document::Number(0)) => return Err(InvalidField::new("number", "RFC numbers begin at 1").into()),
            Some(Document::Number(number)) => {
                (index.by_number(number).iter().find(is_for_them).cloned(), format!("RFC {number}"))
            }
            Some(Document::Name(name)) => {
                let name = DocumentName::parse(&name)?;
                (index.by_name(name.as_str()).filter(is_for_them).cloned(), name.to_string())
            }
            Some(Document::Blake3(hash)) => {
                let hash = ContentHash::from_field(&hash)?;
                (index.by_hash(&hash).iter().find(is_for_them).cloned(), format!("b3:{hash}"))
            }
            None => return Err(InvalidField::new("document", "name a document: by number, name or blake3 hash").into()),
        };
        found.ok_or_else(|| self.unknown(&what))
    }

    /// What is asked for is not there, or is not known to be there yet: what does not exist is not asked for again.
    fn unknown(&self, what: &str) -> Status {
        let name = self.0.me.name();
        match self.0.catalog.share().progress().borrow().settled {
            true => Reason::DocumentUnknown.status(format!("{name} does not have {what}")),
            false => Reason::DocumentUnreadable.status(format!(
                "{name} is still reading its share, and does not have {what} so far; try again later, or ask another holder"
            )),
        }
    }

    /// A document of the share, or one that is being fetched: that one by its hash only.
    fn source(&self, selector: Option<get_rfc_request::Document>, audience: &Audience) -> Result<Source, Status> {
        let hash = match &selector {
            Some(get_rfc_request::Document::Blake3(hash)) => Some(ContentHash::from_field(hash)?),
            _ => None,
        };
        let hash = hash.filter(|hash| !self.0.hides(hash, audience));
        match self.document(selector, audience) {
            Ok(document) => {
                let restricted = self.0.catalog.is_restricted(&document.hash);
                Ok(Source::Shared { share: self.0.catalog.share().clone(), document, restricted })
            }
            Err(unknown) => hash.and_then(|hash| self.0.swarms.source(&hash)).ok_or(unknown),
        }
    }
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
    type WhispersStream = Pin<Box<dyn Stream<Item = Result<WhispersResponse, Status>> + Send>>;
    type AvailabilityStream = Pin<Box<dyn Stream<Item = Result<AvailabilityResponse, Status>> + Send>>;

    async fn rfc_query(&self, request: Request<RfcQueryRequest>) -> Result<Response<Self::RFCQueryStream>, Status> {
        let (caller, address) = (Caller::of(request.extensions()).cloned(), address(&request));
        let admitted = Admitted::of(request.extensions()).cloned();
        let request = request.into_inner();
        let filter = Filter::try_from(&request)?.of(audience(caller.as_ref()));
        let is_listing = filter.is_listing();
        if let Some(admitted) = admitted.filter(|_| is_listing) {
            admitted.is_also(CallClass::Listing)?;
        }
        let permit = self.0.admit_query(is_listing, address).await?;
        let services = Arc::clone(&self.0);
        let select = move || catalog::answer(&services.catalog, &services.own.get(), &filter, request.if_version, Instant::now());
        // A listing goes through the whole index, which takes up to some 100 ms.
        let messages = if is_listing {
            spawn_blocking(select).await.map_err(|error| internal("selecting documents", &error))?
        } else {
            select()
        };
        let mut messages = messages.peekable();
        if request.ask_mesh
            && messages.peek().is_some_and(|message| message.holdings.is_empty() && !message.unchanged)
            && let Some(holdings) = ask_mesh(&self.0, &request, caller.as_ref()).await
            && let Some(answer) = messages.next()
        {
            let answer = RfcQueryResponse { holdings, asked_mesh: true, ..answer };
            return Ok(Response::new(Box::pin(tokio_stream::once(Ok(answer)))));
        }
        // The permit is released with the last message, or when the caller goes away.
        let messages = messages.map(move |message| {
            let _permit = &permit;
            Ok(message)
        });
        Ok(Response::new(Box::pin(SlowReaderGuard::new(tokio_stream::iter(messages), caller, self.0.unread, unread))))
    }

    async fn get_rfc(&self, request: Request<GetRfcRequest>) -> Result<Response<Self::GetRFCStream>, Status> {
        let caller = Caller::of(request.extensions()).cloned();
        let mut request = request.into_inner();
        let source = self.source(request.document.take(), &audience(caller.as_ref()))?;
        // Until the last byte it is not removed to make room.
        let in_use = match &source {
            Source::Shared { document, .. } => Some(self.0.jobs.begin_use(&document.name)),
            _ => None,
        };
        let stream = get::answer(&self.0.swarms, &self.0.uploads, source, request, caller.clone()).await?;
        let stream = stream.map(move |message| {
            let _in_use = &in_use;
            message
        });
        Ok(Response::new(Box::pin(SlowReaderGuard::new(stream, caller, self.0.unread, unread))))
    }

    async fn whisper(&self, request: Request<WhisperRequest>) -> Result<Response<WhisperResponse>, Status> {
        let caller = Caller::of(request.extensions()).cloned();
        self.0.whisper(caller.as_ref(), request.into_inner()).await.map(Response::new)
    }

    async fn whispers(&self, request: Request<Streaming<WhispersRequest>>) -> Result<Response<Self::WhispersStream>, Status> {
        let caller = Caller::of(request.extensions()).cloned();
        // Of others only what somebody else signed would be taken: that is for `Whisper`.
        if self.0.check_control(caller.as_ref()).is_err() && !self.0.is_certified(caller.as_ref()) {
            return Err(Reason::CertificateMissing.status(SENDER_UNKNOWN));
        }
        let whispers = Whispers::new(Arc::clone(&self.0), request.extensions());
        let answers = whispers.answer(request.into_inner());
        Ok(Response::new(Box::pin(SlowReaderGuard::new(answers, caller, self.0.unread, unread))))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(self.0.ping()))
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        Ok(Response::new(self.0.list_peers(&self.0.mesh.view())))
    }

    async fn link(&self, request: Request<Streaming<LinkRequest>>) -> Result<Response<Self::LinkStream>, Status> {
        let caller = Caller::of(request.extensions()).cloned();
        let stream = self.0.mesh.accept(request.into_inner(), caller.as_ref())?;
        Ok(Response::new(Box::pin(stream)))
    }

    async fn availability(
        &self,
        request: Request<Streaming<AvailabilityRequest>>,
    ) -> Result<Response<Self::AvailabilityStream>, Status> {
        let audience = audience(Caller::of(request.extensions()));
        let whole = |start: &Start| {
            let document = self.document(Some(get_rfc_request::Document::Blake3(start.hash.to_field())), &audience)?;
            Ok((Pieces::of_size(document.size)?, document.name.clone()))
        };
        let may_know = |hash: &ContentHash| match self.0.hides(hash, &audience) {
            true => Err(self.unknown(&format!("b3:{hash}"))),
            false => Ok(()),
        };
        let caller = Caller::of(request.extensions()).cloned();
        if !self.0.is_certified(caller.as_ref()) {
            return Err(Reason::CertificateMissing
                .status("members of a swarm show a certificate of the network; fetch the document without its swarm"));
        }
        let accepted = self.0.swarms.accept(request.into_inner(), caller.as_ref(), may_know, whole).await?;
        Ok(Response::new(Box::pin(accepted.answer(self.0.closing.clone()))))
    }

    async fn swarm(&self, request: Request<SwarmRequest>) -> Result<Response<SwarmResponse>, Status> {
        let audience = audience(Caller::of(request.extensions()));
        let mut answer = self.0.swarms.view(&request.into_inner())?;
        answer.swarms.retain(|swarm| self.0.may_know(swarm, &audience));
        Ok(Response::new(answer))
    }
}
