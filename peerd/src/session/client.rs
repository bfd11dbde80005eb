//! Calls to the registry, with the peer's cookie and a timeout.

use p2pdi::{
    channel::{Channel, Dial, REGISTRY_RESPONSE_MAX_BYTES},
    cookie::{Cookie, with_cookie},
    endpoint::Endpoint,
    tls::Expected,
    v1::{
        AnnounceRequest, AnnounceResponse, GetTrustRequest, KeepAliveRequest, KeepAliveResponse, LeaveRequest, PQueryRequest,
        PQueryResponse, RegisterRequest, RegisterResponse, Trust, registry_client::RegistryClient,
    },
};
use std::time::Duration;
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// Timeout of one call to the registry: its disk may be busy with many registrations at once.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the registry. Clones share it.
#[derive(Clone)]
pub(super) struct Client {
    registry: RegistryClient<Channel>,
    cookie: Option<Cookie>,
}

impl Client {
    /// Calls `registry` with `cookie`; it connects at the first call, as `dial` does.
    pub(super) fn new(registry: &Endpoint, dial: &Dial, cookie: Option<Cookie>) -> Self {
        let channel = dial.lazy(std::slice::from_ref(registry), Expected::Registry(registry.clone()));
        let registry = RegistryClient::new(channel).max_decoding_message_size(REGISTRY_RESPONSE_MAX_BYTES);
        Self { registry, cookie }
    }

    /// Uses `cookie` from now on. Clones made before keep theirs.
    pub(super) fn set_cookie(&mut self, cookie: Cookie) {
        self.cookie = Some(cookie);
    }

    /// The cookie that calls carry.
    pub(super) fn cookie(&self) -> Option<&Cookie> {
        self.cookie.as_ref()
    }

    pub(super) async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse, Status> {
        in_time(self.registry.clone().register(self.with_cookie(request))).await
    }

    pub(super) async fn keep_alive(&self, request: KeepAliveRequest) -> Result<KeepAliveResponse, Status> {
        in_time(self.registry.clone().keep_alive(self.with_cookie(request))).await
    }

    pub(super) async fn query(&self, request: PQueryRequest) -> Result<PQueryResponse, Status> {
        in_time(self.registry.clone().p_query(self.with_cookie(request))).await
    }

    pub(super) async fn announce(&self, request: AnnounceRequest) -> Result<AnnounceResponse, Status> {
        in_time(self.registry.clone().announce(self.with_cookie(request))).await
    }

    /// Whom the registry trusts, as far as that is not of the revision `since`.
    pub(super) async fn trust(&self, since_revision: u64) -> Result<Trust, Status> {
        let answer = in_time(self.registry.clone().get_trust(GetTrustRequest { since_revision })).await?;
        Ok(answer.trust.unwrap_or_default())
    }

    pub(super) async fn leave(&self) -> Result<(), Status> {
        in_time(self.registry.clone().leave(self.with_cookie(LeaveRequest {}))).await.map(drop)
    }

    fn with_cookie<T>(&self, message: T) -> Request<T> {
        with_cookie(message, self.cookie.as_ref())
    }
}

async fn in_time<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}
