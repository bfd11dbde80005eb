//! The RPCs of `Peer` and `Control`: raw values are checked in the first lines, the parts do the work.

use crate::{
    config::ControlFrom,
    connections::admission::{Admission, Permit, Rejected},
    connections::unread::SlowReaderGuard,
    documents::catalog::{self, Catalog, Filter, LISTINGS_MAX, LISTINGS_PER_ADDRESS},
    documents::share::SharedDocument,
    inbox::{Handlers, Inbox, MessageKind},
    mesh::{Joined, Mesh, RELAYED_MAX_BYTES, View},
    messages::MessageRouter,
    overlay::wire,
    session::Session,
    topology::Topology,
    transfer::serve::{Upload, Uploads},
};
use p2pdi::{
    VERSION,
    contact::Contact,
    content::ContentHash,
    document::DocumentName,
    field::InvalidField,
    server::Caller,
    status::Reason,
    v1::{
        BroadcastRequest, BroadcastResponse, GetRfcRequest, GetRfcResponse, JoinRequest, JoinResponse, LinkRequest, LinkResponse,
        ListPeersRequest, ListPeersResponse, Load, PingRequest, PingResponse, RfcQueryRequest, RfcQueryResponse, StatusRequest,
        StatusResponse, SubscribeRequest, SubscribeResponse, TopologyRequest, TopologyResponse, WhisperRequest, WhisperResponse,
        control_server::Control, get_rfc_request, peer_server::Peer,
    },
};
use std::{
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio_stream::Stream;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, transport::server::TcpConnectInfo};

/// Largest request taken, in bytes: a message with the longest body and all its names.
pub const REQUEST_MAX_BYTES: usize = RELAYED_MAX_BYTES;
/// How long a listing waits for its place before it is refused: most take less.
const LISTING_TIMEOUT: Duration = Duration::from_secs(2);
/// Kinds that one subscription may name. A guess: more than a program handles.
const KINDS_MAX: usize = 64;

/// What a peer's servers share.
pub struct Services {
    pub(crate) me: Contact,
    pub(crate) catalog: Catalog,
    pub(crate) listings: Admission,
    pub(crate) uploads: Arc<Uploads>,
    pub(crate) session: Session,
    pub(crate) inbox: Arc<Inbox>,
    pub(crate) handlers: Handlers,
    pub(crate) whispers: MessageRouter,
    pub(crate) mesh: Mesh,
    pub(crate) topology: Topology,
    pub(crate) control: ControlFrom,
    pub(crate) started_at: SystemTime,
    /// Ends streams that would go on for ever.
    pub(crate) stop: CancellationToken,
    /// See [`p2pdi::server::Limits::unread`].
    pub(crate) unread: Duration,
}

/// The RPCs; clones share their parts.
#[derive(Clone)]
pub(crate) struct Calls(pub(crate) Arc<Services>);

impl std::ops::Deref for Calls {
    type Target = Services;

    fn deref(&self) -> &Services {
        &self.0
    }
}

/// Whether a connection begins on the machine where it ends: over loopback, or from the very address that it goes to, as when a
/// peer listens on the address of its network only.
fn is_of_this_machine(connection: &TcpConnectInfo) -> bool {
    let ip = |address: Option<SocketAddr>| address.map(|address| address.ip().to_canonical());
    let caller = ip(connection.remote_addr());
    caller.is_some_and(|caller| caller.is_loopback()) || (caller.is_some() && caller == ip(connection.local_addr()))
}

/// Where a call comes from.
fn address<T>(request: &Request<T>) -> Option<IpAddr> {
    request.remote_addr().map(|address| address.ip())
}

impl Services {
    /// How the peer is doing.
    pub fn status(&self) -> StatusResponse {
        let mut share = self.catalog.share().status();
        share.learned_documents = self.catalog.learned_documents() as u64;
        StatusResponse {
            id: self.me.id().to_field(),
            name: self.me.name().to_string(),
            endpoint: self.me.endpoint().to_string(),
            version: VERSION.to_owned(),
            started_at: Some(self.started_at.into()),
            registry: Some(self.session.status()),
            share: Some(share),
            load: Some(self.load()),
            inbox: Some(self.inbox.status()),
            mesh: Some(self.mesh.view().status.clone()),
        }
    }

    pub(crate) fn load(&self) -> Load {
        Load { links: self.mesh.view().status.links, ..self.uploads.load() }
    }

    /// A place for an answer that may be long, kept until it is sent.
    async fn listing(&self, caller: Option<IpAddr>) -> Result<Permit, Status> {
        let acquire = self.listings.acquire(caller, LISTING_TIMEOUT).await;
        acquire.map_err(|why| {
            let taken = match why {
                Rejected::Exhausted => format!("{LISTINGS_MAX} listings are being sent already"),
                Rejected::ExhaustedByAddress => {
                    format!("{LISTINGS_PER_ADDRESS} listings are sent to your address already, or waited for there")
                }
            };
            Reason::TooManyStreams.status(format!("{taken}; try again later, or ask for one document"))
        })
    }

    /// This peer and its neighbours.
    fn listed(&self, view: &View) -> ListPeersResponse {
        ListPeersResponse { load: Some(self.load()), documents: self.catalog.share().index().len() as u64, ..view.list() }
    }

    fn document(&self, wanted: Option<get_rfc_request::Document>) -> Result<Arc<SharedDocument>, Status> {
        use get_rfc_request::Document;
        let index = self.catalog.share().index();
        let (found, what) = match wanted {
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
            None => return Err(InvalidField::new("document", "say which document: a number, a name or a blake3 hash").into()),
        };
        found.ok_or_else(|| {
            Reason::DocumentUnknown.status(format!("{} does not have {what}; ask RFCQuery who does", self.me.name()))
        })
    }
}

#[tonic::async_trait]
impl Peer for Calls {
    type RFCQueryStream = Pin<Box<dyn Stream<Item = Result<RfcQueryResponse, Status>> + Send>>;
    type GetRFCStream = Pin<Box<dyn Stream<Item = Result<GetRfcResponse, Status>> + Send>>;
    type LinkStream = Pin<Box<dyn Stream<Item = Result<LinkResponse, Status>> + Send>>;

    async fn rfc_query(&self, request: Request<RfcQueryRequest>) -> Result<Response<Self::RFCQueryStream>, Status> {
        let (caller, address) = (request.extensions().get::<Caller>().cloned(), address(&request));
        let request = request.into_inner();
        let filter = Filter::try_from(&request)?;
        let acquire = if filter.is_listing() { Some(self.listing(address).await?) } else { None };
        let messages = catalog::answer(&self.catalog, &self.me, &filter, request.if_version, Instant::now());
        // With its last message, or its caller, the place is given back.
        let messages = messages.map(move |message| {
            let _kept = &acquire;
            Ok(message)
        });
        Ok(Response::new(Box::pin(SlowReaderGuard::new(tokio_stream::iter(messages), caller, self.unread))))
    }

    async fn get_rfc(&self, request: Request<GetRfcRequest>) -> Result<Response<Self::GetRFCStream>, Status> {
        let (caller, address) = (request.extensions().get::<Caller>().cloned(), address(&request));
        let GetRfcRequest { document, offset, length, without_piece_hashes } = request.into_inner();
        let document = self.document(document)?;
        let size = document.size;
        let beyond = |what: &str| {
            Reason::RangeBeyondEnd.status_with(
                format!("the range {what} beyond the end: the document has {size} bytes"),
                [("size", size.to_string())],
            )
        };
        if offset > size {
            return Err(beyond("begins"));
        }
        let end = if length == 0 {
            size
        } else {
            offset.checked_add(length).filter(|end| *end <= size).ok_or_else(|| beyond("ends"))?
        };
        let upload = Upload { document, range: offset..end, with_piece_hashes: !without_piece_hashes };
        let stream = Arc::clone(&self.uploads).send(self.catalog.share().clone(), upload, address).await?;
        Ok(Response::new(Box::pin(SlowReaderGuard::new(stream, caller, self.unread))))
    }

    async fn whisper(&self, request: Request<WhisperRequest>) -> Result<Response<WhisperResponse>, Status> {
        self.whispers.deliver(request.into_inner()).await.map(Response::new)
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Ok(Response::new(self.0.ping()))
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        Ok(Response::new(self.listed(&self.mesh.view())))
    }

    async fn link(&self, request: Request<Streaming<LinkRequest>>) -> Result<Response<Self::LinkStream>, Status> {
        let caller = request.remote_addr();
        let stream = self.mesh.accept(request.into_inner(), caller)?;
        Ok(Response::new(Box::pin(stream)))
    }
}

#[tonic::async_trait]
impl Control for Calls {
    type SubscribeStream = Pin<Box<dyn Stream<Item = Result<SubscribeResponse, Status>> + Send>>;

    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusResponse>, Status> {
        self.permit(request.extensions().get())?;
        Ok(Response::new(self.0.status()))
    }

    async fn join(&self, request: Request<JoinRequest>) -> Result<Response<JoinResponse>, Status> {
        self.permit(request.extensions().get())?;
        let Joined { contact, already } = self.mesh.join(request.into_inner().endpoint.parse()?).await?;
        Ok(Response::new(JoinResponse { peer: Some(wire::contact(&contact)), already_linked: already }))
    }

    async fn broadcast(&self, request: Request<BroadcastRequest>) -> Result<Response<BroadcastResponse>, Status> {
        self.permit(request.extensions().get())?;
        let BroadcastRequest { kind, body, wait } = request.into_inner();
        let kind: MessageKind = kind.parse()?;
        let wait = Duration::try_from(wait.unwrap_or_default())
            .map_err(|_| InvalidField::new("wait", "is negative; give how long to wait for acknowledgements, or nothing"))?;
        self.mesh.broadcast(&kind, body, wait).await.map(Response::new)
    }

    async fn subscribe(&self, request: Request<SubscribeRequest>) -> Result<Response<Self::SubscribeStream>, Status> {
        self.permit(request.extensions().get())?;
        let caller = request.extensions().get::<Caller>().cloned();
        let kinds = request.into_inner().kinds;
        if kinds.len() > KINDS_MAX {
            return Err(InvalidField::new("kinds", format!("names {}; at most {KINDS_MAX} fit", kinds.len())).into());
        }
        let kinds = kinds.iter().map(|kind| kind.parse()).collect::<Result<Vec<MessageKind>, _>>()?;
        let mut subscription = self.inbox.subscribe(kinds)?;
        let stop = self.stop.clone();
        let stream = async_stream::stream! {
            yield Ok(SubscribeResponse::default());
            loop {
                let next = tokio::select! {
                    () = stop.cancelled() => None,
                    next = subscription.next() => next,
                };
                match next {
                    Some((message, dropped)) => yield Ok(SubscribeResponse { message: Some(message.into()), dropped }),
                    None => return,
                }
            }
        };
        Ok(Response::new(Box::pin(SlowReaderGuard::new(stream, caller, self.unread))))
    }

    async fn topology(&self, request: Request<TopologyRequest>) -> Result<Response<TopologyResponse>, Status> {
        self.permit(request.extensions().get())?;
        let view = self.mesh.view();
        Ok(Response::new(TopologyResponse { peers: Some(self.listed(&view)), mesh: Some(view.status.clone()) }))
    }
}

impl Services {
    /// What everybody may know.
    pub(crate) fn ping(&self) -> PingResponse {
        let index = self.catalog.share().index();
        PingResponse {
            id: self.me.id().to_field(),
            name: self.me.name().to_string(),
            endpoint: self.me.endpoint().to_string(),
            version: VERSION.to_owned(),
            index_version: index.version(),
            documents: index.len() as u64,
            load: Some(self.load()),
        }
    }

    /// Whether `caller` may control the peer, and see all of its status.
    pub(crate) fn permit(&self, caller: Option<&TcpConnectInfo>) -> Result<(), Status> {
        match self.control {
            ControlFrom::Any => Ok(()),
            ControlFrom::Loopback if caller.is_some_and(is_of_this_machine) => Ok(()),
            ControlFrom::Loopback => Err(Reason::LoopbackOnly.status(
                "this peer is controlled from its own machine only; call from there, or start it with --control any. Ping answers everybody",
            )),
        }
    }
}
