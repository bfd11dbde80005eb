//! Calls to a registry, for Python.

use crate::{
    call::Call,
    failure::Failure,
    results::{Lease, PeerRecord},
    runtime::Process,
};
use p2pdi::{
    channel::{Channel, Dial, REGISTRY_RESPONSE_MAX_BYTES},
    cookie::{Cookie, with_cookie},
    endpoint::Endpoint,
    tls::Expected,
    v1::{KeepAliveRequest, LeaveRequest, PQueryRequest, RegisterRequest, registry_client::RegistryClient},
};
use peerd::config::RegistryUrl;
use pyo3::prelude::*;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;
use tonic::{Request, Response, Status};

/// Time limit of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Most pages of one answer: a registry has at most 2,000 of 1,000 peers.
const PAGES_MAX: usize = 2_000;

/// A client of a registry.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct NativeRegistryClient {
    shared: Arc<Shared>,
    process: Process,
}

struct Shared {
    endpoint: Endpoint,
    network: String,
    dial: Dial,
    client: Mutex<Option<RegistryClient<Channel>>>,
    cookie: Mutex<Option<Cookie>>,
}

impl Shared {
    /// The client; it connects at its first call, on the runtime.
    fn client(&self) -> RegistryClient<Channel> {
        let mut client = self.client.lock().unwrap_or_else(PoisonError::into_inner);
        let client = client.get_or_insert_with(|| {
            let channel = self.dial.lazy(std::slice::from_ref(&self.endpoint), Expected::Registry(self.endpoint.clone()));
            RegistryClient::new(channel).max_decoding_message_size(REGISTRY_RESPONSE_MAX_BYTES)
        });
        client.clone()
    }

    fn with_cookie<T>(&self, message: T) -> Request<T> {
        with_cookie(message, self.cookie.lock().unwrap_or_else(PoisonError::into_inner).as_ref())
    }

    fn registered(&self) -> Result<(), Failure> {
        let has_cookie = self.cookie.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if has_cookie { Ok(()) } else { Err(Failure::closed("not registered; call register() first".to_owned())) }
    }

    async fn call<T>(&self, call: impl Future<Output = Result<Response<T>, Status>>) -> Result<T, Failure> {
        let server = format!("the registry at {}", self.endpoint);
        match timeout(CALL_TIMEOUT, call).await {
            Ok(answer) => Ok(answer.map_err(|status| Failure::call(&server, &status))?.into_inner()),
            Err(_) => Err(Failure::timed_out(&server, CALL_TIMEOUT)),
        }
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
        let shared = Shared { endpoint, network, dial: Dial::with(tls), client: Mutex::default(), cookie: Mutex::default() };
        Ok(Self { shared: Arc::new(shared), process: Process::current() })
    }

    fn register(&self, name: String, endpoint: String, labels: BTreeMap<String, String>, observer: bool) -> PyResult<Call> {
        self.process.check()?;
        let shared = Arc::clone(&self.shared);
        Ok(Call::of(async move {
            let labels = labels.into_iter().collect();
            let network = shared.network.clone();
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
        self.process.check()?;
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
        self.process.check()?;
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

    /// The peers, the names of those that are gone since that revision, the revision, and whether the peers are all and not only changes.
    fn pquery(&self, name: String, labels: BTreeMap<String, String>, sample: u32, since_revision: u64) -> PyResult<Call> {
        self.process.check()?;
        self.shared.registered()?;
        let shared = Arc::clone(&self.shared);
        Ok(Call::of(async move {
            let labels = labels.into_iter().collect();
            let mut request = PQueryRequest { name, labels, sample, since_revision, ..Default::default() };
            let (mut peers, mut gone, mut revision, mut start_over) = (Vec::new(), Vec::new(), 0, false);
            for _ in 0..PAGES_MAX {
                let mut client = shared.client();
                let answer = shared.call(client.p_query(shared.with_cookie(request.clone()))).await?;
                peers.extend(answer.peers.into_iter().map(PeerRecord::from));
                gone.extend(answer.gone.into_iter().map(|gone| gone.name));
                (revision, start_over) = (answer.revision, start_over || answer.start_over);
                if answer.next_page_token.is_empty() {
                    break;
                }
                request.page_token = answer.next_page_token;
            }
            Ok((peers, gone, revision, start_over || since_revision == 0))
        }))
    }
}

impl Drop for NativeRegistryClient {
    fn drop(&mut self) {
        self.process.leak_elsewhere(&self.shared);
    }
}
