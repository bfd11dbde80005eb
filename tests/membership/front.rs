//! Replicas of one registry: servers that pass calls on to it, and refuse them when a test says so.

use super::within;
use p2pdi::status::Reason;
use std::{
    convert::Infallible,
    future::ready,
    net::SocketAddr,
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;
use tonic::{
    Status,
    body::Body,
    codegen::{Service, http},
    server::NamedService,
    transport::{self, Channel, Server, server::TcpIncoming},
};

pub(crate) struct Front {
    pub(crate) address: SocketAddr,
    state: Arc<State>,
    stop: CancellationToken,
    serving: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    /// Every call is refused with this.
    refusal: Mutex<Option<Status>>,
    /// Calls that arrived.
    calls: AtomicUsize,
}

impl Front {
    /// A replica of `registry`.
    pub(crate) async fn of(registry: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, state, stop) = (listener.local_addr().unwrap(), Arc::<State>::default(), CancellationToken::new());
        let to = transport::Endpoint::from_shared(format!("http://{registry}")).unwrap().connect_lazy();
        let server = Server::builder().add_service(PassOn { to, state: Arc::clone(&state) });
        let until = stop.clone();
        let serving = tokio::spawn(async move {
            server.serve_with_incoming_shutdown(TcpIncoming::from(listener), until.cancelled_owned()).await.unwrap();
        });
        Self { address, state, stop, serving }
    }

    /// Refuses every call, as a replica that cannot reach its store.
    pub(crate) fn refuse(&self) {
        self.set_refusal(Some(Reason::StoreUnavailable.status("the store does not answer")));
    }

    /// The same, with when the call may be made again.
    pub(crate) fn refuse_for(&self, pause: Duration) {
        self.set_refusal(Some(Reason::StoreUnavailable.status_retry_after("the store does not answer", pause)));
    }

    pub(crate) fn accept(&self) {
        self.set_refusal(None);
    }

    fn set_refusal(&self, refusal: Option<Status>) {
        *self.state.refusal.lock().unwrap() = refusal;
    }

    pub(crate) fn calls(&self) -> usize {
        self.state.calls.load(Ordering::SeqCst)
    }

    /// Finishes calls under way and ends, as a server that is drained: clients are told by GOAWAY.
    pub(crate) async fn drain(self) {
        self.stop.cancel();
        within("the end of a replica", self.serving).await.unwrap();
    }
}

#[derive(Clone)]
struct PassOn {
    to: Channel,
    state: Arc<State>,
}

impl NamedService for PassOn {
    const NAME: &'static str = "p2pdi.v1.Registry";
}

impl Service<http::Request<Body>> for PassOn {
    type Response = http::Response<Body>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<Body>) -> Self::Future {
        self.state.calls.fetch_add(1, Ordering::SeqCst);
        if let Some(refusal) = self.state.refusal.lock().unwrap().clone() {
            return Box::pin(ready(Ok(refusal.into_http())));
        }
        let mut to = self.to.clone();
        Box::pin(async move {
            std::future::poll_fn(|cx| to.poll_ready(cx)).await.unwrap();
            Ok(to.call(request).await.unwrap_or_else(|error| Status::from_error(Box::new(error)).into_http()))
        })
    }
}
