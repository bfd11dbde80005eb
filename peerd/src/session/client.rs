//! Calls to the registry, with the peer's cookie and a timeout.

use p2pdi::{
    channel::{Dial, REGISTRY_RESPONSE_MAX_BYTES},
    cookie::{Cookie, with_cookie},
    endpoint::Endpoint,
    registries::{Place, RegistryChannel},
    v1::{
        AnnounceRequest, AnnounceResponse, GetTrustRequest, KeepAliveRequest, KeepAliveResponse, LeaveRequest, PQueryRequest,
        PQueryResponse, RegisterRequest, RegisterResponse, Trust, WatchPeersRequest, WatchPeersResponse,
        registry_client::RegistryClient,
    },
};
use std::{
    fmt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;
use tonic::{Request, Response, Status, Streaming};

/// Timeout of one call to the registry: its disk may be busy with many registrations at once.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);

/// A connection to the registry, which moves between its replicas. Clones share it.
#[derive(Clone)]
pub(super) struct Client {
    registry: RegistryClient<RegistryChannel>,
    channel: RegistryChannel,
    secured: bool,
    cookie: Option<Cookie>,
    registered: Arc<Mutex<Registered>>,
}

/// The latest registration.
#[derive(Default)]
struct Registered {
    at: Option<Place>,
    /// It was said that the registries do not have the same records.
    is_told: bool,
}

impl Client {
    /// Calls one of `registries` with `cookie`; it connects at the first call, as `dial` does.
    pub(super) fn new(registries: &[Endpoint], dial: &Dial, cookie: Option<Cookie>) -> Self {
        let channel = RegistryChannel::new(registries, dial.clone());
        let registry = RegistryClient::new(channel.clone()).max_decoding_message_size(REGISTRY_RESPONSE_MAX_BYTES);
        Self { registry, channel, secured: dial.tls.is_some(), cookie, registered: Arc::default() }
    }

    /// The address of the registry in use; `None` before the first answer.
    pub(super) fn url(&self) -> Option<String> {
        let place = self.channel.in_use()?;
        Some(format!("{}://{}", if self.secured { "https" } else { "http" }, place.registry))
    }

    /// The registry in use does not know the cookie: whether that is so because this peer registered with another one, which then is no
    /// replica of it. It is said once.
    pub(super) fn tell_if_elsewhere(&self) {
        let mut registered = self.registered.lock().unwrap_or_else(PoisonError::into_inner);
        let (Some(at), Some(here)) = (&registered.at, self.channel.in_use()) else { return };
        if *at != here && !registered.is_told {
            tracing::warn!(
                "the registry at {here} does not know what the one at {at} does: those of --registry must be replicas of one registry; \
                 this peer is known to the one in use only"
            );
            registered.is_told = true;
        }
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
        let answer = in_time(self.registry.clone().register(self.with_cookie(request))).await?;
        self.registered.lock().unwrap_or_else(PoisonError::into_inner).at = self.channel.in_use();
        Ok(answer)
    }

    pub(super) async fn keep_alive(&self, request: KeepAliveRequest) -> Result<KeepAliveResponse, Status> {
        in_time(self.registry.clone().keep_alive(self.with_cookie(request))).await
    }

    pub(super) async fn query(&self, request: PQueryRequest) -> Result<PQueryResponse, Status> {
        in_time(self.registry.clone().p_query(self.with_cookie(request))).await
    }

    /// What changes after this revision.
    pub(super) async fn watch(&self, since_revision: u64) -> Result<Streaming<WatchPeersResponse>, Status> {
        in_time(self.registry.clone().watch_peers(self.with_cookie(WatchPeersRequest { since_revision }))).await
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

/// The registry in use, or all of them before the first answer.
impl fmt::Display for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.channel.fmt(f)
    }
}

async fn in_time<T>(call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Status> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}
