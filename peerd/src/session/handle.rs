//! The session's interface to the other parts of the peer: its status, the known peers, and lookups at the registry.

use super::{
    announces::{AnnounceError, Announces, Failed},
    client::Client,
    known::KnownPeers,
    lookups::{Lookups, RegistryUnavailable},
};
use p2pdi::{
    contact::Contact,
    endpoint::Endpoint,
    log_limit::{Line, LogLimit},
    name::PeerName,
    v1::{AnnounceRequest, AnnounceResponse, PQueryRequest, PQueryResponse, RegistrySession, SessionState},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{sync::watch, time::timeout};

/// Shortest and longest keepalive interval accepted from a registry; a value outside is clamped.
const INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// How long an announce waits until this peer is registered, for the first time or again: longer than the random pause before that.
const REGISTRATION_TIMEOUT: Duration = Duration::from_secs(5);
/// Changes of the session's state that are logged in a minute: more than a registry that restarts causes.
const LOGGED_MAX: u32 = 20;

/// What the registry says of this peer's own name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OwnName {
    /// There is no registry, or it has not answered yet.
    #[default]
    Unknown,
    /// It gave the name to this peer. That stays so while it does not answer.
    Registered,
    /// It gave the name to another peer, or keeps it for one.
    Refused,
}

/// The registry session of this peer, for its status page, its readiness and lookups. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    status: Arc<Mutex<RegistrySession>>,
    state: Arc<watch::Sender<SessionState>>,
    own_name: Arc<watch::Sender<OwnName>>,
    known: KnownPeers,
    lookups: Arc<Lookups>,
    announces: Arc<Announces>,
    /// Keepalive interval of the registry's latest answer.
    interval: Arc<watch::Sender<Duration>>,
    log: Arc<LogLimit>,
}

impl Session {
    /// A session that has not called the registry yet; a [`SessionDriver`](super::SessionDriver) does.
    /// `secured`: it has TLS.
    pub fn new(registries: &[Endpoint], secured: bool) -> Self {
        let is_alone = registries.is_empty();
        let state = if is_alone { SessionState::None } else { SessionState::Registering };
        let urls = registries.iter().map(|registry| format!("{}://{registry}", if secured { "https" } else { "http" }));
        let status = RegistrySession {
            registry: urls.collect::<Vec<_>>().join(","),
            state: state.into(),
            detail: if is_alone { "runs without a registry" } else { "registering for the first time" }.to_owned(),
            since: Some(SystemTime::now().into()),
            ..Default::default()
        };
        Self {
            status: Arc::new(Mutex::new(status)),
            state: Arc::new(watch::Sender::new(state)),
            own_name: Arc::default(),
            known: KnownPeers::default(),
            lookups: Arc::default(),
            announces: Arc::default(),
            interval: Arc::new(watch::Sender::new(INTERVAL_BOUNDS.1)),
            log: Arc::new(LogLimit::new(LOGGED_MAX)),
        }
    }

    /// The peer called `name`: from the list of known peers, otherwise from the registry. `None` if the registry knows no such peer, or
    /// this peer runs without a registry.
    ///
    /// # Errors
    /// When the registry cannot be asked now, or does not answer: it may know the peer.
    pub async fn find(&self, name: &PeerName) -> Result<Option<Contact>, RegistryUnavailable> {
        if let Some(known) = self.known.find(name) {
            return Ok(Some(known));
        }
        let state = *self.state.borrow();
        match state {
            SessionState::None => return Ok(None),
            SessionState::Registered => {}
            SessionState::Unreachable => return Err(RegistryUnavailable::no_answer(self.status().detail)),
            _ => return Err(RegistryUnavailable::no_session(&self.status().detail)),
        }
        let look_up = async || {
            let found = self.query(PQueryRequest { name: name.to_string(), ..Default::default() }).await?;
            Ok(found.into_iter().next())
        };
        self.lookups.find(name, look_up).await
    }

    /// The peer called `name` does not answer where it was found: the next [`Session::find`] asks the registry, unless it lists the peer.
    pub fn forget(&self, name: &PeerName) {
        self.lookups.forget(name);
    }

    /// About `count` random peers: from the registry, or from the list of known peers when it does not answer.
    pub async fn sample(&self, count: u32) -> Vec<Contact> {
        let is_registered = *self.state.borrow() == SessionState::Registered;
        if is_registered
            && let Ok(peers) = self.query(PQueryRequest { sample: count, ..Default::default() }).await
            && !peers.is_empty()
        {
            return peers;
        }
        let known = self.known.all();
        let count = known.len().min(count as usize);
        rand::seq::index::sample(&mut rand::rng(), known.len(), count).into_iter().map(|at| known[at].clone()).collect()
    }

    /// Announces this peer as a member of a swarm, as soon as it is registered. If the registry does not know it any more, waits until it
    /// is registered again, and announces it once more.
    ///
    /// # Errors
    /// When there is no registry, it keeps no swarms, refuses, or does not answer.
    pub async fn announce(&self, request: AnnounceRequest) -> Result<AnnounceResponse, AnnounceError> {
        if *self.state.borrow() == SessionState::None {
            return Err(AnnounceError::NoTracker);
        }
        for _ in 0..2 {
            let mut state = self.state();
            let registered = timeout(REGISTRATION_TIMEOUT, state.wait_for(|state| *state == SessionState::Registered)).await;
            let client = registered.ok().and_then(Result::ok).and_then(|_| self.lookups.client());
            let Some(client) = client else { return Err(AnnounceError::Unavailable(self.status().detail)) };
            match self.announces.call(&client, request.clone()).await {
                Ok(answer) => return Ok(answer),
                Err(Failed::Error(error)) => return Err(error),
                Err(Failed::NotRegistered) => {
                    // The driver finds out by its next keepalive, which is due at once with this interval.
                    let mut changes = self.state();
                    changes.borrow_and_update();
                    self.call_soon();
                    let _changed = timeout(REGISTRATION_TIMEOUT, changes.changed()).await;
                }
            }
        }
        Err(AnnounceError::Unavailable(self.status().detail))
    }

    async fn query(&self, query: PQueryRequest) -> Result<Vec<Contact>, RegistryUnavailable> {
        let answer = self.lookups.query(query).await.inspect_err(|error| tracing::debug!(%error, "cannot look up peers"))?;
        self.listed(&answer);
        Ok(answer.peers.iter().filter_map(|record| Contact::try_from(record).ok()).collect())
    }

    /// Lookups use `client` from now on.
    pub(super) fn set_client(&self, client: Client) {
        self.lookups.set_client(client);
    }

    /// Notes the keepalive interval of an answer to PQuery, if it has one.
    pub(super) fn listed(&self, answer: &PQueryResponse) {
        if answer.keep_alive_interval.is_some() {
            self.set_interval(answer.keep_alive_interval);
        }
    }

    /// Sets the keepalive interval.
    pub(super) fn set_interval(&self, interval: Option<prost_types::Duration>) {
        let interval = interval.and_then(|given| Duration::try_from(given).ok()).unwrap_or(INTERVAL_BOUNDS.1);
        self.interval.send_replace(interval.clamp(INTERVAL_BOUNDS.0, INTERVAL_BOUNDS.1));
    }

    /// The next keepalive is due at once: the registry may not know this peer any more.
    pub(super) fn call_soon(&self) {
        self.interval.send_replace(INTERVAL_BOUNDS.0);
    }

    /// The keepalive interval, and a notification of each change.
    pub(super) fn interval(&self) -> watch::Receiver<Duration> {
        self.interval.subscribe()
    }

    /// The peers known through the registry.
    pub fn known(&self) -> &KnownPeers {
        &self.known
    }

    /// The current status.
    pub fn status(&self) -> RegistrySession {
        let mut status = self.lock_status().clone();
        status.known_peers = self.known.len() as u64;
        status
    }

    /// The current state, and a notification of each change.
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    /// Notes that the registry at this URL answered, and the lease it granted.
    pub(super) fn answered(&self, url: Option<String>, ttl: Option<prost_types::Duration>) {
        let mut status = self.lock_status();
        if let Some(url) = url {
            status.registry = url;
        }
        status.last_contact_at = Some(SystemTime::now().into());
        status.ttl = ttl;
    }

    /// What the registry says of this peer's own name.
    pub fn own_name(&self) -> OwnName {
        *self.own_name.borrow()
    }

    pub(super) fn set_own_name(&self, own_name: OwnName) {
        self.own_name.send_replace(own_name);
    }

    /// Counts one registration.
    pub(super) fn registered(&self) {
        self.lock_status().registrations += 1;
    }

    /// Sets state and detail, and logs a change of state, or of why there is no registration: a connection that breaks may be followed by
    /// the words of the registry.
    pub(super) fn set_state(&self, state: SessionState, detail: impl Into<String>) {
        let detail = detail.into();
        let other_reason = {
            let mut status = self.lock_status();
            if status.state != i32::from(state) {
                status.since = Some(SystemTime::now().into());
            }
            status.state = state.into();
            let before = std::mem::replace(&mut status.detail, detail.clone());
            matches!(state, SessionState::Unreachable | SessionState::Refused) && before != detail
        };
        let other_state = self.state.send_replace(state) != state;
        if (other_state || other_reason)
            && let Some(Line { suppressed }) = self.log.line()
        {
            match state {
                SessionState::Unreachable | SessionState::Refused => tracing::warn!(suppressed, "registry: {detail}"),
                _ => tracing::info!(suppressed, "registry: {detail}"),
            }
        }
    }

    fn lock_status(&self) -> MutexGuard<'_, RegistrySession> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
