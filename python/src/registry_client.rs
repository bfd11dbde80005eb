//! Calls to a registry, for Python.

use crate::{
    call::Call,
    failure::Failure,
    registry_access::Access,
    results::{Lease, PeerRecord},
    runtime::Process,
    watch::{NativeWatch, is_lease_over},
};
use p2pdi::{
    channel::{Channel, Dial},
    cookie::{Cookie, with_cookie},
    v1::{
        KeepAliveRequest, LeaveRequest, PQueryRequest, PQueryResponse, RegisterRequest, RegisterResponse,
        registry_client::RegistryClient,
    },
};
use peerd::config::RegistryUrl;
use pyo3::prelude::*;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status};

/// Most pages of one answer: a registry has at most 2,000 of 1,000 peers.
const PAGES_MAX: usize = 2_000;

/// A client of a registry.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct NativeRegistryClient {
    shared: Arc<Shared>,
    process: Process,
}

/// The lease that it has.
struct Held {
    cookie: Cookie,
    /// It is an observer's, taken for queries. Nobody extends it.
    is_observer: bool,
}

struct Shared {
    registry: Access,
    held: Mutex<Option<Held>>,
    /// Ends its watches.
    stop: CancellationToken,
}

impl NativeRegistryClient {
    /// # Errors
    /// After its end, and in a process that was forked.
    fn check(&self) -> Result<(), Failure> {
        self.process.check()?;
        if self.shared.registry.is_closed() {
            return Err(Failure::closed("the client was closed; make another one".to_owned()));
        }
        Ok(())
    }
}

impl Shared {
    fn client(&self) -> RegistryClient<Channel> {
        self.registry.client()
    }

    fn held(&self) -> MutexGuard<'_, Option<Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn with_cookie<T>(&self, message: T) -> Request<T> {
        with_cookie(message, self.held().as_ref().map(|held| &held.cookie))
    }

    fn registered(&self) -> Result<(), Failure> {
        let has_lease = self.held().is_some();
        if has_lease { Ok(()) } else { Err(Failure::closed("not registered; call register() first".to_owned())) }
    }

    /// Registers, and keeps the cookie.
    async fn register(&self, request: RegisterRequest) -> Result<RegisterResponse, Failure> {
        let mut client = self.client();
        let is_observer = request.observer;
        let answer = self.call(client.register(self.with_cookie(request))).await?;
        let cookie = answer.cookie.parse().map_err(|_| Failure::error("the registry gave a malformed cookie".to_owned()))?;
        *self.held() = Some(Held { cookie, is_observer });
        Ok(answer)
    }

    /// A page of the active peers, asked for by who is registered, or by an observer: also anew, when that lease ran out since the last call.
    async fn page(&self, request: &PQueryRequest) -> Result<PQueryResponse, Failure> {
        if self.held().is_none() {
            self.register(self.registry.observer()).await?;
        }
        let mut client = self.client();
        let refused = match self.registry.in_time(client.p_query(self.with_cookie(request.clone()))).await {
            Ok(page) => return Ok(page),
            Err(refused) => refused,
        };
        let is_observer = self.held().as_ref().is_some_and(|held| held.is_observer);
        if !(is_observer && is_lease_over(&refused)) {
            return Err(Failure::call(&self.registry.describe(), &refused));
        }
        self.held().take();
        self.register(self.registry.observer()).await?;
        self.call(client.p_query(self.with_cookie(request.clone()))).await
    }

    async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
        self.registry.in_time(call).await.map_err(|status| Failure::call(&self.registry.describe(), &status))
    }
}

fn seconds(duration: Option<prost_types::Duration>) -> f64 {
    duration.and_then(|given| Duration::try_from(given).ok()).unwrap_or_default().as_secs_f64()
}

#[pymethods]
impl NativeRegistryClient {
    #[new]
    fn new(url: &str, network: String, tls: Option<crate::peer::TlsPaths>) -> PyResult<Self> {
        let tls = tls.map(crate::peer::read_tls).transpose()?;
        let url: RegistryUrl = url.parse().map_err(Failure::from)?;
        let endpoint = url.checked(tls.is_some()).map_err(Failure::from)?.clone();
        let registry = Access::new(endpoint, network, Dial::with(tls));
        let shared = Shared { registry, held: Mutex::default(), stop: CancellationToken::new() };
        Ok(Self { shared: Arc::new(shared), process: Process::current() })
    }

    fn register(&self, name: String, endpoint: String, labels: BTreeMap<String, String>) -> PyResult<Call> {
        self.check()?;
        let shared = Arc::clone(&self.shared);
        Ok(Call::of(async move {
            let labels = labels.into_iter().collect();
            let network = shared.registry.network.clone();
            let request = RegisterRequest { name: name.clone(), endpoint, labels, network, ..Default::default() };
            let answer = shared.register(request).await?;
            let peer = answer.peer.unwrap_or_default();
            Ok(Lease {
                name: if peer.name.is_empty() { name } else { peer.name },
                ttl: seconds(answer.ttl),
                keep_alive_interval: seconds(answer.keep_alive_interval),
                revision: answer.revision,
                registration_count: peer.registration_count,
            })
        }))
    }

    fn keep_alive(&self) -> PyResult<Call> {
        self.check()?;
        self.shared.registered()?;
        let shared = Arc::clone(&self.shared);
        Ok(Call::of(async move {
            let mut client = shared.client();
            let answer = shared.call(client.keep_alive(shared.with_cookie(KeepAliveRequest::default()))).await?;
            let peer = answer.peer.unwrap_or_default();
            Ok(Lease {
                name: peer.name,
                ttl: seconds(answer.ttl),
                keep_alive_interval: seconds(answer.keep_alive_interval),
                revision: answer.revision,
                registration_count: peer.registration_count,
            })
        }))
    }

    fn leave(&self) -> PyResult<Call> {
        self.check()?;
        let shared = Arc::clone(&self.shared);
        Ok(Call::of(async move {
            if shared.held().is_some() {
                let mut client = shared.client();
                shared.call(client.leave(shared.with_cookie(LeaveRequest {}))).await?;
                shared.held().take();
            }
            Ok(())
        }))
    }

    /// The active peers.
    fn pquery(&self, name: String, labels: BTreeMap<String, String>, sample: u32) -> PyResult<Call> {
        self.check()?;
        let shared = Arc::clone(&self.shared);
        Ok(Call::of(async move {
            let labels = labels.into_iter().collect();
            let mut request = PQueryRequest { name, labels, sample, ..Default::default() };
            let mut peers = Vec::new();
            for _ in 0..PAGES_MAX {
                let answer = shared.page(&request).await?;
                peers.extend(answer.peers.into_iter().map(PeerRecord::from));
                if answer.next_page_token.is_empty() {
                    break;
                }
                request.page_token = answer.next_page_token;
            }
            Ok(peers)
        }))
    }

    /// Watches the peers, with an observer of its own.
    fn watch(&self) -> PyResult<NativeWatch> {
        self.check()?;
        Ok(NativeWatch::new(self.shared.registry.clone(), self.shared.stop.child_token()))
    }

    /// Ends its watches, whoever waits for them.
    fn end(&self) {
        if self.process.is_current() {
            self.shared.stop.cancel();
        }
    }

    /// Ends its watches and its connection.
    fn close(&self) {
        if self.process.is_current() {
            self.shared.stop.cancel();
            self.shared.registry.close();
        }
    }
}

impl Drop for NativeRegistryClient {
    fn drop(&mut self) {
        self.process.leak_elsewhere(&self.shared);
    }
}
