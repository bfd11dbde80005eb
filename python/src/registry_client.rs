//! Calls to a registry, for Python.

use crate::{
    call::Call,
    failure::Failure,
    registry_access::Access,
    results::{Lease, PeerRecord},
    runtime::Process,
    watch::NativeWatch,
};
use p2pdi::{
    channel::{Channel, Dial},
    cookie::{Cookie, with_cookie},
    v1::{KeepAliveRequest, LeaveRequest, PQueryRequest, RegisterRequest, registry_client::RegistryClient},
};
use peerd::config::RegistryUrl;
use pyo3::prelude::*;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
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

struct Shared {
    registry: Access,
    cookie: Mutex<Option<Cookie>>,
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

    fn with_cookie<T>(&self, message: T) -> Request<T> {
        with_cookie(message, self.cookie.lock().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    fn registered(&self) -> Result<(), Failure> {
        let has_cookie = self.cookie.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if has_cookie { Ok(()) } else { Err(Failure::closed("not registered; call register() first".to_owned())) }
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
        let shared = Shared { registry, cookie: Mutex::default(), stop: CancellationToken::new() };
        Ok(Self { shared: Arc::new(shared), process: Process::current() })
    }

    fn register(&self, name: String, endpoint: String, labels: BTreeMap<String, String>, observer: bool) -> PyResult<Call> {
        self.check()?;
        let shared = Arc::clone(&self.shared);
        Ok(Call::of(async move {
            let labels = labels.into_iter().collect();
            let name = if observer { shared.registry.observer_name(&name) } else { name };
            let network = shared.registry.network.clone();
            let request = RegisterRequest { name: name.clone(), endpoint, labels, observer, network, ..Default::default() };
            let mut client = shared.client();
            let answer = shared.call(client.register(shared.with_cookie(request))).await?;
            let cookie = answer.cookie.parse().map_err(|_| Failure::error("the registry gave a malformed cookie".to_owned()))?;
            *shared.cookie.lock().unwrap_or_else(PoisonError::into_inner) = Some(cookie);
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
            if shared.registered().is_ok() {
                let mut client = shared.client();
                shared.call(client.leave(shared.with_cookie(LeaveRequest {}))).await?;
                shared.cookie.lock().unwrap_or_else(PoisonError::into_inner).take();
            }
            Ok(())
        }))
    }

    /// The active peers.
    fn pquery(&self, name: String, labels: BTreeMap<String, String>, sample: u32) -> PyResult<Call> {
        self.check()?;
        self.shared.registered()?;
        let shared = Arc::clone(&self.shared);
        Ok(Call::of(async move {
            let labels = labels.into_iter().collect();
            let mut request = PQueryRequest { name, labels, sample, ..Default::default() };
            let mut peers = Vec::new();
            for _ in 0..PAGES_MAX {
                let mut client = shared.client();
                let answer = shared.call(client.p_query(shared.with_cookie(request.clone()))).await?;
                peers.extend(answer.peers.into_iter().map(PeerRecord::from));
                if answer.next_page_token.is_empty() {
                    break;
                }
                request.page_token = answer.next_page_token;
            }
            Ok(peers)
        }))
    }

    /// Watches the peers, with an observer of its own whose names begin so.
    fn watch(&self, observer: String) -> PyResult<NativeWatch> {
        self.check()?;
        Ok(NativeWatch::new(self.shared.registry.clone(), observer, self.shared.stop.child_token()))
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
