//! The session as the other parts of the peer see it: its status, the known peers, and lookups at the registry.

use super::known::KnownPeers;
use p2pdi::{
    contact::Contact,
    endpoint::Endpoint,
    name::PeerName,
    v1::{RegistrySession, SessionState},
};
use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::timeout,
};

/// Lookups that may wait for the registry; one more is answered "not known" at once.
const LOOKUPS_MAX: usize = 64;
/// How long a lookup waits for the registry.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

/// The registry session of this peer, for its status page, its readiness and lookups. Cheap to clone.
#[derive(Clone)]
pub struct Session {
    status: Arc<Mutex<RegistrySession>>,
    state: Arc<watch::Sender<SessionState>>,
    known: KnownPeers,
    lookups: mpsc::Sender<Lookup>,
}

/// A query to the registry.
pub(super) enum Query {
    /// The peer of this name.
    Name(PeerName),
    /// This many peers at random.
    Sample(u32),
}

/// A query, and where its result goes.
pub(super) type Lookup = (Query, oneshot::Sender<Vec<Contact>>);

/// The receiving end of a session's lookups.
pub struct Lookups(pub(super) mpsc::Receiver<Lookup>);

impl Session {
    /// A session that has not called the registry yet, and the lookups that a [`SessionDriver`](super::SessionDriver) answers.
    pub fn new(registry: Option<&Endpoint>) -> (Self, Lookups) {
        let state = if registry.is_some() { SessionState::Registering } else { SessionState::None };
        let status = RegistrySession {
            registry: registry.map(|registry| format!("http://{registry}")).unwrap_or_default(),
            state: state.into(),
            detail: if registry.is_some() { "registering for the first time" } else { "runs without a registry" }.to_owned(),
            since: Some(SystemTime::now().into()),
            ..Default::default()
        };
        let (lookups, receiver) = mpsc::channel(LOOKUPS_MAX);
        let session = Self {
            status: Arc::new(Mutex::new(status)),
            state: Arc::new(watch::Sender::new(state)),
            known: KnownPeers::default(),
            lookups,
        };
        (session, Lookups(receiver))
    }

    /// The peer called `name`: from the list of known peers, otherwise from the registry.
    pub async fn find(&self, name: &PeerName) -> Option<Contact> {
        if let Some(known) = self.known.find(name) {
            return Some(known);
        }
        self.look_up(Query::Name(name.clone())).await?.into_iter().next()
    }

    /// About `count` random peers: from the registry, or from the list of known peers when it does not answer.
    pub async fn sample(&self, count: u32) -> Vec<Contact> {
        match self.look_up(Query::Sample(count)).await {
            Some(peers) if !peers.is_empty() => peers,
            _ => {
                let known = self.known.all();
                let count = known.len().min(count as usize);
                rand::seq::index::sample(&mut rand::rng(), known.len(), count).into_iter().map(|at| known[at].clone()).collect()
            }
        }
    }

    async fn look_up(&self, query: Query) -> Option<Vec<Contact>> {
        if *self.state.borrow() != SessionState::Registered {
            return None;
        }
        let (sender, receiver) = oneshot::channel();
        self.lookups.try_send((query, sender)).ok()?;
        timeout(LOOKUP_TIMEOUT, receiver).await.ok()?.ok()
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

    /// Notes that the registry answered, and the lease it granted.
    pub(super) fn answered(&self, ttl: Option<prost_types::Duration>) {
        let mut status = self.lock_status();
        status.last_contact_at = Some(SystemTime::now().into());
        status.ttl = ttl;
    }

    /// Counts one registration.
    pub(super) fn registered(&self) {
        self.lock_status().registrations += 1;
    }

    /// Sets state and detail, and logs a change of state.
    pub(super) fn set_state(&self, state: SessionState, detail: impl Into<String>) {
        let detail = detail.into();
        {
            let mut status = self.lock_status();
            if status.state != i32::from(state) {
                status.since = Some(SystemTime::now().into());
            }
            status.state = state.into();
            status.detail.clone_from(&detail);
        }
        if self.state.send_replace(state) != state {
            match state {
                SessionState::Unreachable | SessionState::Refused => tracing::warn!("registry: {detail}"),
                _ => tracing::info!("registry: {detail}"),
            }
        }
    }

    fn lock_status(&self) -> MutexGuard<'_, RegistrySession> {
        self.status.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
