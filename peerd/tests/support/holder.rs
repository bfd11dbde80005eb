//! A holder that answers GetRFC by a script.

use super::{PATIENCE, document::Sample, source};
use p2pdi::v1::{
    self, AvailabilityRequest, AvailabilityResponse, AvailabilityUpdate, Document, GetRfcRequest, GetRfcResponse, Holding,
    LinkRequest, LinkResponse, ListPeersRequest, ListPeersResponse, PingRequest, PingResponse, RfcQueryRequest, RfcQueryResponse,
    SwarmRequest, SwarmResponse, WhisperRequest, WhisperResponse, WhispersRequest, WhispersResponse,
    get_rfc_request::Document as DocumentSelector, get_rfc_response::Part, peer_server::Peer, peer_server::PeerServer,
};
use peerd::holders::source::Source;
use std::{
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::{Stream, StreamExt as _, wrappers::TcpListenerStream};
use tonic::{Request, Response, Status, Streaming, transport::Server};

/// One step of an answer.
pub enum Step {
    Send(GetRfcResponse),
    Fail(Status),
    /// Sends nothing more.
    Stall,
    /// Waits until this returns true.
    Until(Box<dyn Fn() -> bool + Send + Sync>),
}

/// The steps of the answer to a request. The first argument counts the holder's requests, from 0.
pub type Script = dyn Fn(usize, &GetRfcRequest) -> Vec<Step> + Send + Sync;

/// A holder on loopback.
pub struct Holder {
    pub address: SocketAddr,
    seen: Arc<Seen>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Seen {
    requests: Mutex<Vec<GetRfcRequest>>,
    queries: AtomicUsize,
    bytes: AtomicU64,
}

impl Holder {
    /// A holder that follows `script`.
    pub async fn start(script: impl Fn(usize, &GetRfcRequest) -> Vec<Step> + Send + Sync + 'static) -> Self {
        Self::serve(Scripted { script: Arc::new(script), ..Scripted::default() }).await
    }

    /// A holder that answers every request for the sample correctly.
    pub async fn honest(sample: &Sample) -> Self {
        let sample = sample.clone();
        Self::start(move |_, request| {
            if matches!(&request.document, Some(DocumentSelector::Blake3(hash)) if *hash != sample.hash().to_field()) {
                return vec![Step::Fail(Status::not_found("no such document here"))];
            }
            sending(sample.answer(request))
        })
        .await
    }

    /// A holder that changes what a correct holder of the sample answers.
    pub async fn tampering(
        sample: &Sample,
        tamper: impl Fn(&GetRfcRequest, Vec<GetRfcResponse>) -> Vec<GetRfcResponse> + Send + Sync + 'static,
    ) -> Self {
        let sample = sample.clone();
        Self::start(move |_, request| sending(tamper(request, sample.answer(request)))).await
    }

    /// A holder that lists these documents for every query, in messages of `batch` documents.
    pub async fn listing(documents: Vec<Document>, batch: usize) -> Self {
        let holdings = documents.into_iter().map(|document| Holding { document: Some(document), holders: Vec::new() });
        Self::answering_in_batches(holdings.collect(), batch).await
    }

    /// A holder that answers every query with this document, held at `address`.
    pub async fn naming(document: Document, address: SocketAddr) -> Self {
        let holder = v1::Holder { peer_name: "other".to_owned(), endpoint: address.to_string(), ..Default::default() };
        Self::answering(vec![Holding { document: Some(document), holders: vec![holder] }]).await
    }

    async fn answering_in_batches(holdings: Vec<Holding>, batch: usize) -> Self {
        let messages =
            holdings.chunks(batch).map(|batch| RfcQueryResponse { version: 1, holdings: batch.to_vec(), ..Default::default() });
        let listing = Arc::new(messages.collect());
        Self::serve(Scripted { listing, ..Scripted::default() }).await
    }

    /// A peer that answers every query with these holdings.
    pub async fn answering(holdings: Vec<Holding>) -> Self {
        let batch = holdings.len().max(1);
        Self::answering_in_batches(holdings, batch).await
    }

    /// A holder that answers every whisper as if `delivered_by` had received it.
    pub async fn claiming(delivered_by: &str) -> Self {
        Self::serve(Scripted { delivered_by: Some(delivered_by.to_owned()), ..Scripted::default() }).await
    }

    /// A peer called `name` that says after a delay that it holds the sample itself, and serves it.
    pub async fn holding(name: &str, sample: &Sample, after: Duration) -> Self {
        let sample = sample.clone();
        Self::listing_own(name, move |_| sample.clone(), 0, after).await
    }

    /// Lists what `sample` gives for a query, counted from 0, and then serves what it gives for a query `ahead` of that.
    async fn listing_own(
        name: &str,
        sample: impl Fn(usize) -> Sample + Send + Sync + 'static,
        ahead: usize,
        after: Duration,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let me = v1::Holder {
            peer_name: name.to_owned(),
            endpoint: listener.local_addr().unwrap().to_string(),
            age: Some(prost_types::Duration::default()),
            ..Default::default()
        };
        let latest = Arc::new(Mutex::new(sample(0)));
        let served = Arc::clone(&latest);
        let script = move |_: usize, request: &GetRfcRequest| {
            let sample = served.lock().unwrap().clone();
            match &request.document {
                Some(DocumentSelector::Blake3(hash)) if *hash != sample.hash().to_field() => {
                    vec![Step::Fail(Status::not_found("not here any more"))]
                }
                _ => sending(sample.answer(request)),
            }
        };
        let lists = move |query: usize| {
            *latest.lock().unwrap() = sample(query + ahead);
            vec![Holding { document: Some(sample(query).document()), holders: vec![me.clone()] }]
        };
        let scripted = Scripted { script: Arc::new(script), lists: Some((after, Arc::new(lists))), ..Scripted::default() };
        Self::serve_on(listener, scripted)
    }

    /// A peer called `name` whose document changes with each of its queries, just after the answer: it serves the version that `sample` gives
    /// for the next query.
    pub async fn changing_ahead(name: &str, sample: impl Fn(usize) -> Sample + Send + Sync + 'static, after: Duration) -> Self {
        Self::listing_own(name, sample, 1, after).await
    }

    /// A member of swarms that sends these messages on each Availability stream, given its address, and no byte of a document.
    pub async fn saying(updates: impl FnOnce(SocketAddr) -> Vec<AvailabilityUpdate>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let says = Some(updates(listener.local_addr().unwrap()));
        Self::serve_on(listener, Scripted { says, ..Scripted::default() })
    }

    async fn serve(peer: Scripted) -> Self {
        Self::serve_on(TcpListener::bind("127.0.0.1:0").await.unwrap(), peer)
    }

    fn serve_on(listener: TcpListener, peer: Scripted) -> Self {
        let (address, seen) = (listener.local_addr().unwrap(), Arc::clone(&peer.seen));
        let server = Server::builder().add_service(PeerServer::new(peer));
        let serving = tokio::spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
        Self { address, seen, serving }
    }

    pub fn source(&self, name: &str) -> Source {
        source(name, self.address)
    }

    /// The requests received.
    pub fn requests(&self) -> Vec<GetRfcRequest> {
        self.seen.requests.lock().unwrap().clone()
    }

    /// How many queries it received.
    pub fn queries(&self) -> usize {
        self.seen.queries.load(Ordering::SeqCst)
    }

    /// Bytes of documents sent.
    pub fn sent_bytes(&self) -> u64 {
        self.seen.bytes.load(Ordering::SeqCst)
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

pub fn sending(messages: Vec<GetRfcResponse>) -> Vec<Step> {
    messages.into_iter().map(Step::Send).collect()
}

/// The holdings for a query. Queries are counted from 0.
type Lists = dyn Fn(usize) -> Vec<Holding> + Send + Sync;

struct Scripted {
    script: Arc<Script>,
    listing: Arc<Vec<RfcQueryResponse>>,
    /// Lists these for each query, after a delay, in place of `listing`.
    lists: Option<(Duration, Arc<Lists>)>,
    delivered_by: Option<String>,
    /// What it sends on an Availability stream; `None`: it does not know the method.
    says: Option<Vec<AvailabilityUpdate>>,
    seen: Arc<Seen>,
}

impl Default for Scripted {
    fn default() -> Self {
        let script = Arc::new(|_: usize, _: &GetRfcRequest| vec![Step::Stall]);
        Self { script, listing: Arc::default(), lists: None, delivered_by: None, says: None, seen: Arc::default() }
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

#[tonic::async_trait]
impl Peer for Scripted {
    type RFCQueryStream = Answers<RfcQueryResponse>;
    type GetRFCStream = Answers<GetRfcResponse>;
    type LinkStream = Answers<LinkResponse>;
    type WhispersStream = Answers<WhispersResponse>;
    type AvailabilityStream = Answers<AvailabilityResponse>;

    async fn link(&self, _: Request<Streaming<LinkRequest>>) -> Result<Response<Self::LinkStream>, Status> {
        Err(Status::unimplemented("it serves documents only"))
    }

    async fn list_peers(&self, _: Request<ListPeersRequest>) -> Result<Response<ListPeersResponse>, Status> {
        Err(Status::unimplemented("it serves documents only"))
    }

    async fn rfc_query(&self, _: Request<RfcQueryRequest>) -> Result<Response<Self::RFCQueryStream>, Status> {
        let query = self.seen.queries.fetch_add(1, Ordering::SeqCst);
        if let Some((after, lists)) = &self.lists {
            tokio::time::sleep(*after).await;
            let answer = RfcQueryResponse { version: 1, unchanged: false, holdings: lists(query), ..Default::default() };
            return Ok(Response::new(Box::pin(tokio_stream::iter([Ok(answer)]))));
        }
        let messages: Vec<_> = self.listing.iter().cloned().map(Ok).collect();
        Ok(Response::new(Box::pin(tokio_stream::iter(messages))))
    }

    async fn get_rfc(&self, request: Request<GetRfcRequest>) -> Result<Response<Self::GetRFCStream>, Status> {
        let request = request.into_inner();
        let count = {
            let mut requests = self.seen.requests.lock().unwrap();
            requests.push(request.clone());
            requests.len() - 1
        };
        let mut steps = (self.script)(count, &request);
        if let [Step::Fail(_)] = steps.as_slice()
            && let Some(Step::Fail(status)) = steps.pop()
        {
            return Err(status);
        }
        let seen = Arc::clone(&self.seen);
        let answer = async_stream::try_stream! {
            for step in steps {
                match step {
                    Step::Send(message) => {
                        if let Some(Part::Chunk(chunk)) = &message.part {
                            seen.bytes.fetch_add(chunk.data.len() as u64, Ordering::SeqCst);
                        }
                        yield message;
                    }
                    Step::Fail(status) => Err(status)?,
                    Step::Stall => std::future::pending().await,
                    Step::Until(is_so) => {
                        let begun = Instant::now();
                        while !is_so() {
                            assert!(begun.elapsed() < PATIENCE, "timed out waiting for a step of the script");
                            tokio::time::sleep(Duration::from_millis(5)).await;
                        }
                    }
                }
            }
        };
        Ok(Response::new(Box::pin(answer)))
    }

    async fn whisper(&self, _: Request<WhisperRequest>) -> Result<Response<WhisperResponse>, Status> {
        match &self.delivered_by {
            Some(name) => Ok(Response::new(WhisperResponse { delivered_by: name.clone(), ..Default::default() })),
            None => Err(Status::unimplemented("not here")),
        }
    }

    async fn whispers(&self, _: Request<Streaming<WhispersRequest>>) -> Result<Response<Self::WhispersStream>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn ping(&self, _: Request<PingRequest>) -> Result<Response<PingResponse>, Status> {
        Err(Status::unimplemented("not here"))
    }

    async fn availability(
        &self,
        _: Request<Streaming<AvailabilityRequest>>,
    ) -> Result<Response<Self::AvailabilityStream>, Status> {
        let says = self.says.clone().ok_or_else(|| Status::unimplemented("it serves documents only"))?;
        let says = says.into_iter().map(|update| Ok(AvailabilityResponse { update: Some(update) }));
        Ok(Response::new(Box::pin(tokio_stream::iter(says).chain(tokio_stream::pending()))))
    }

    async fn swarm(&self, _: Request<SwarmRequest>) -> Result<Response<SwarmResponse>, Status> {
        Err(Status::unimplemented("it serves documents only"))
    }
}
