//! A registry that accepts every peer and counts registrations and leaves.

use p2pdi::v1::{
    AnnounceRequest, AnnounceResponse, EnrollRequest, EnrollResponse, FreeNameRequest, FreeNameResponse, GetTrustRequest,
    GetTrustResponse, KeepAliveRequest, KeepAliveResponse, LeaveRequest, LeaveResponse, PQueryRequest, PQueryResponse,
    RegisterRequest, RegisterResponse, WatchPeersRequest, WatchPeersResponse,
    registry_server::{Registry, RegistryServer},
};
use std::{
    net::SocketAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_stream::wrappers::TcpListenerStream;
use tonic::{Request, Response, Status, transport::Server};

const COOKIE: &str = "0123456789abcdef0123456789abcdef";

pub struct CountingRegistry {
    pub address: SocketAddr,
    counts: Arc<Counts>,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct Counts {
    registered: AtomicUsize,
    left: AtomicUsize,
    endpoints: Mutex<Vec<String>>,
}

impl CountingRegistry {
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, counts) = (listener.local_addr().unwrap(), Arc::<Counts>::default());
        let server = Server::builder().add_service(RegistryServer::new(CountingService(Arc::clone(&counts))));
        let serving = tokio::spawn(async move { server.serve_with_incoming(TcpListenerStream::new(listener)).await.unwrap() });
        Self { address, counts, serving }
    }

    pub fn registered(&self) -> usize {
        self.counts.registered.load(Ordering::SeqCst)
    }

    /// The endpoints registered, in order.
    pub fn endpoints(&self) -> Vec<String> {
        self.counts.endpoints.lock().unwrap().clone()
    }

    pub fn left(&self) -> usize {
        self.counts.left.load(Ordering::SeqCst)
    }
}

impl Drop for CountingRegistry {
    fn drop(&mut self) {
        self.serving.abort();
    }
}

struct CountingService(Arc<Counts>);

#[tonic::async_trait]
impl Registry for CountingService {
    type WatchPeersStream = tonic::Streaming<WatchPeersResponse>;

    async fn register(&self, request: Request<RegisterRequest>) -> Result<Response<RegisterResponse>, Status> {
        self.0.endpoints.lock().unwrap().push(request.into_inner().endpoint);
        self.0.registered.fetch_add(1, Ordering::SeqCst);
        Ok(Response::new(RegisterResponse { cookie: COOKIE.into(), ..Default::default() }))
    }

    async fn leave(&self, request: Request<LeaveRequest>) -> Result<Response<LeaveResponse>, Status> {
        let cookie = request.metadata().get(p2pdi::cookie::COOKIE_HEADER).and_then(|cookie| cookie.to_str().ok());
        if cookie == Some(COOKIE) {
            self.0.left.fetch_add(1, Ordering::SeqCst);
        }
        Ok(Response::new(LeaveResponse::default()))
    }

    async fn keep_alive(&self, _: Request<KeepAliveRequest>) -> Result<Response<KeepAliveResponse>, Status> {
        Ok(Response::new(KeepAliveResponse::default()))
    }

    async fn p_query(&self, _: Request<PQueryRequest>) -> Result<Response<PQueryResponse>, Status> {
        Ok(Response::new(PQueryResponse::default()))
    }

    async fn watch_peers(&self, _: Request<WatchPeersRequest>) -> Result<Response<Self::WatchPeersStream>, Status> {
        Err(Status::unimplemented("as of an earlier version"))
    }

    async fn free_name(&self, _: Request<FreeNameRequest>) -> Result<Response<FreeNameResponse>, Status> {
        Ok(Response::new(FreeNameResponse::default()))
    }

    async fn announce(&self, _: Request<AnnounceRequest>) -> Result<Response<AnnounceResponse>, Status> {
        Ok(Response::new(AnnounceResponse::default()))
    }

    async fn enroll(&self, _: Request<EnrollRequest>) -> Result<Response<EnrollResponse>, Status> {
        Ok(Response::new(Default::default()))
    }

    async fn get_trust(&self, _: Request<GetTrustRequest>) -> Result<Response<GetTrustResponse>, Status> {
        Ok(Response::new(Default::default()))
    }
}
