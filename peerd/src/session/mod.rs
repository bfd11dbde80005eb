//! The peer's standing with its registry: register, keep alive, list the others, register again, leave.

mod known;

pub use known::KnownPeers;

use crate::{identity::StateFolder, transfer::serve::Uploads};
use p2pdi::backoff::{self, Backoff};
use p2pdi::{
    channel::{Channel, REGISTRY_RESPONSE_MAX_BYTES, lazy},
    contact::Contact,
    cookie::{COOKIE_HEADER, Cookie},
    endpoint::Endpoint,
    name::PeerName,
    status::{self, Reason},
    v1::{
        KeepAliveRequest, LeaveRequest, PQueryRequest, PQueryResponse, RegisterRequest, RegistrySession, SessionState,
        registry_client::RegistryClient,
    },
};
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{mpsc, oneshot, watch},
    time::{Instant, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, metadata::AsciiMetadataValue};

/// How long one call to the registry may take; its disk may be busy with a storm of registrations.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// How long the last call may hold up a stop.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// A registry that forgot everybody is not registered with by everybody at once.
const REREGISTER_JITTER: Duration = Duration::from_secs(1);
/// Shortest and longest interval of keepalives taken from a registry: what is outside is a mistake of it.
const INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// Up to this many peers are all known; of more, a random sample of [`KNOWN_SAMPLE`] is.
const KNOWN_ALL_MAX: u64 = 1_000;
/// See [`KNOWN_ALL_MAX`].
const KNOWN_SAMPLE: u32 = 256;
/// How long a sample serves: peers of it that left are noticed when they are called, so it need not be fresh.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Most entries taken in one listing, and most peers known: a registry that lists more than it says it has is not believed.
const LISTED_MAX: usize = 2_000;
/// Most pages of one listing. A page may be short, or empty: one call looks at a bounded number of records.
const PAGES_MAX: usize = 256;

/// A peer's standing, for its status page and its readiness.
#[derive(Clone)]
pub struct Session {
    standing: Arc<Mutex<RegistrySession>>,
    state: Arc<watch::Sender<SessionState>>,
    known: KnownPeers,
    lookups: mpsc::Sender<Lookup>,
}

/// What somebody wants to know of the registry.
enum Wanted {
    /// Where the peer of this name is.
    Name(PeerName),
    /// This many peers at random.
    Sample(u32),
}

type Lookup = (Wanted, oneshot::Sender<Vec<Contact>>);

/// Lookups that may wait for the registry; one more is answered "not known" at once.
const LOOKUPS_MAX: usize = 64;
/// How long a lookup waits for the registry.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(3);

impl Session {
    /// No standing yet, and what a [`SessionDriver`] listens to.
    pub fn new(registry: Option<&Endpoint>) -> (Self, Lookups) {
        let state = if registry.is_some() { SessionState::Registering } else { SessionState::None };
        let standing = RegistrySession {
            registry: registry.map(|registry| format!("http://{registry}")).unwrap_or_default(),
            state: state.into(),
            detail: if registry.is_some() { "registering for the first time" } else { "runs without a registry" }.to_owned(),
            since: Some(SystemTime::now().into()),
            ..Default::default()
        };
        let (lookups, asked) = mpsc::channel(LOOKUPS_MAX);
        let session = Self {
            standing: Arc::new(Mutex::new(standing)),
            state: Arc::new(watch::Sender::new(state)),
            known: KnownPeers::default(),
            lookups,
        };
        (session, Lookups(asked))
    }

    /// Where the peer called `name` is: from the list of known peers, or asked of the registry now.
    pub async fn find(&self, name: &PeerName) -> Option<Contact> {
        if let Some(known) = self.known.find(name) {
            return Some(known);
        }
        self.look_up(Wanted::Name(name.clone())).await?.into_iter().next()
    }

    /// About `count` peers at random: asked of the registry now, or from the list of known peers when it does not answer.
    pub async fn sample(&self, count: u32) -> Vec<Contact> {
        match self.look_up(Wanted::Sample(count)).await {
            Some(peers) if !peers.is_empty() => peers,
            _ => {
                let known = self.known.all();
                let count = known.len().min(count as usize);
                rand::seq::index::sample(&mut rand::rng(), known.len(), count).into_iter().map(|at| known[at].clone()).collect()
            }
        }
    }

    async fn look_up(&self, wanted: Wanted) -> Option<Vec<Contact>> {
        if *self.state.borrow() != SessionState::Registered {
            return None;
        }
        let (answer, answered) = oneshot::channel();
        self.lookups.try_send((wanted, answer)).ok()?;
        timeout(LOOKUP_TIMEOUT, answered).await.ok()?.ok()
    }

    /// The peers known through the registry.
    pub fn known(&self) -> &KnownPeers {
        &self.known
    }

    /// The standing now.
    pub fn status(&self) -> RegistrySession {
        let mut standing = self.standing().clone();
        standing.known_peers = self.known.len() as u64;
        standing
    }

    /// The state now, and whenever it changes.
    pub fn state(&self) -> watch::Receiver<SessionState> {
        self.state.subscribe()
    }

    fn standing(&self) -> MutexGuard<'_, RegistrySession> {
        self.standing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn turn(&self, state: SessionState, detail: impl Into<String>) {
        let detail = detail.into();
        {
            let mut standing = self.standing();
            if standing.state != i32::from(state) {
                standing.since = Some(SystemTime::now().into());
            }
            standing.state = state.into();
            standing.detail.clone_from(&detail);
        }
        if self.state.send_replace(state) != state {
            match state {
                SessionState::Unreachable | SessionState::Refused => tracing::warn!("registry: {detail}"),
                _ => tracing::info!("registry: {detail}"),
            }
        }
    }
}

/// The receiving end of a session's questions.
pub struct Lookups(mpsc::Receiver<Lookup>);

/// What a session needs to know of its peer.
pub struct SessionConfig {
    /// The registry's address.
    pub registry: Endpoint,
    /// Who registers.
    pub me: Contact,
    /// Labels others can filter by.
    pub labels: BTreeMap<String, String>,
}

/// Drives one session.
pub struct SessionDriver {
    session: Session,
    config: SessionConfig,
    client: RegistryClient<Channel>,
    state_folder: Arc<StateFolder>,
    uploads: Arc<Uploads>,
    index_version: watch::Receiver<u64>,
    cookie: Option<Cookie>,
    lookups: Lookups,
    /// Revision of the list of known peers; 0 before the first one.
    revision: u64,
    /// The registry has more than [`KNOWN_ALL_MAX`] peers, as far as it last said.
    crowded: bool,
    /// When the sample was taken.
    sampled_at: Option<Instant>,
    /// Between keepalives, as the registry's newest answer wants it.
    interval: Duration,
}

impl SessionDriver {
    /// A driver that has not called yet.
    pub fn new(
        session: Session,
        config: SessionConfig,
        lookups: Lookups,
        state_folder: Arc<StateFolder>,
        uploads: Arc<Uploads>,
        index_version: watch::Receiver<u64>,
    ) -> Self {
        let client = RegistryClient::new(lazy(&config.registry)).max_decoding_message_size(REGISTRY_RESPONSE_MAX_BYTES);
        let cookie = state_folder.cookie(config.registry.as_str(), config.me.name());
        Self {
            session,
            config,
            client,
            state_folder,
            uploads,
            index_version,
            cookie,
            lookups,
            revision: 0,
            crowded: false,
            sampled_at: None,
            interval: INTERVAL_BOUNDS.1,
        }
    }

    /// Keeps the peer registered until `stop`, then leaves.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = self.stay_registered() => {}
            () = stop.cancelled() => {}
        }
        self.leave().await;
    }

    async fn stay_registered(&mut self) {
        let mut backoff = Backoff::default();
        loop {
            let error = match self.register().await {
                Ok(()) => {
                    backoff.reset();
                    self.keep_alive().await
                }
                Err(error) => error,
            };
            let pause = self.note(&error, &mut backoff);
            sleep(pause).await;
        }
    }

    /// Says in the status what went wrong, and how long to wait.
    fn note(&mut self, error: &Status, backoff: &mut Backoff) -> Duration {
        let registry = &self.config.registry;
        match (Reason::of(error), error.code()) {
            (Some(Reason::CookieUnknown | Reason::LeaseExpired), _) => {
                self.session
                    .turn(SessionState::Registering, format!("{registry} does not know this peer any more; registering again"));
                REREGISTER_JITTER.mul_f64(rand::random())
            }
            (Some(Reason::NameTaken), _) => {
                let seconds = status::metadata(error, "retry_after_seconds").and_then(|text| text.parse().ok());
                self.session.turn(SessionState::Refused, format!("{registry}: {}", error.message()));
                let lease = seconds.map_or(Duration::ZERO, Duration::from_secs);
                backoff.next(rand::random()).max(lease.min(backoff::PAUSE_MAX))
            }
            (None, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal) => {
                let pause = backoff.next(rand::random());
                self.session
                    .turn(SessionState::Unreachable, format!("{registry} does not answer ({}); still trying", error.message()));
                pause
            }
            (Some(Reason::StoreUnavailable | Reason::ShuttingDown | Reason::Internal), _) => {
                self.session.turn(SessionState::Unreachable, format!("{registry}: {}; still trying", error.message()));
                backoff.next(rand::random())
            }
            _ => {
                self.session.turn(SessionState::Refused, format!("{registry}: {}", error.message()));
                backoff.next(rand::random())
            }
        }
    }

    async fn register(&mut self) -> Result<(), Status> {
        let SessionConfig { me, labels, .. } = &self.config;
        let request = RegisterRequest {
            name: me.name().to_string(),
            endpoint: me.endpoint().to_string(),
            labels: labels.clone(),
            id: me.id().to_field(),
            observer: false,
        };
        let request = self.with_cookie(request);
        let answer = call(self.client.register(request)).await?;
        let cookie: Cookie = answer.cookie.parse()?;
        if let Err(error) = self.state_folder.keep_cookie(self.config.registry.as_str(), self.config.me.name(), &cookie) {
            tracing::warn!(%error, "the cookie is not kept; after a crash the name is free again only when its lease ran out");
        }
        self.cookie = Some(cookie);
        // It may have forgotten everything and count anew: a revision from before would hide what it has by now.
        self.revision = 0;
        {
            let mut standing = self.session.standing();
            standing.registrations += 1;
            standing.last_contact_at = Some(SystemTime::now().into());
            standing.ttl = answer.ttl;
        }
        self.session
            .turn(SessionState::Registered, format!("registered as {} at {}", self.config.me.name(), self.config.registry));
        self.interval = interval(answer.keep_alive_interval);
        self.refresh_if_it_can().await;
        Ok(())
    }

    /// The peer is registered whether or not the others can be listed; the next keepalive tries again.
    async fn refresh_if_it_can(&mut self) {
        if let Err(error) = self.refresh().await {
            tracing::debug!(error = error.message(), "could not list the other peers");
        }
    }

    /// Sends keepalives until one is refused for good. A registry that does not answer is waited for: the cookie outlives it.
    async fn keep_alive(&mut self) -> Status {
        let mut backoff = Backoff::default();
        let mut pause = None;
        loop {
            self.wait(pause.take()).await;
            let request = KeepAliveRequest { load: Some(self.uploads.load()), index_version: *self.index_version.borrow() };
            let request = self.with_cookie(request);
            match call(self.client.keep_alive(request)).await {
                Ok(answer) => {
                    backoff.reset();
                    self.interval = interval(answer.keep_alive_interval);
                    {
                        let mut standing = self.session.standing();
                        standing.last_contact_at = Some(SystemTime::now().into());
                        standing.ttl = answer.ttl;
                    }
                    self.session.turn(
                        SessionState::Registered,
                        format!("registered as {} at {}", self.config.me.name(), self.config.registry),
                    );
                    self.refresh_if_it_can().await;
                }
                Err(error)
                    if matches!(
                        Reason::of(&error),
                        Some(Reason::CookieUnknown | Reason::LeaseExpired | Reason::CookieMalformed)
                    ) =>
                {
                    return error;
                }
                Err(error) => pause = Some(self.note(&error, &mut backoff)),
            }
        }
    }

    /// Waits for `pause`, or else until the next keepalive is due by the registry's newest answer, and answers lookups meanwhile.
    async fn wait(&mut self, pause: Option<Duration>) {
        let begun = Instant::now();
        loop {
            let due = begun + pause.unwrap_or(self.interval);
            let asked = tokio::select! {
                // However many ask, the lease comes first.
                biased;
                () = sleep_until(due) => return,
                asked = self.lookups.0.recv() => asked,
            };
            let Some((wanted, answer)) = asked else { return sleep_until(due).await };
            let found = self.look_up(wanted).await.unwrap_or_else(|error| {
                tracing::debug!(error = error.message(), "could not look peers up");
                Vec::new()
            });
            // Whoever asked may have given up.
            let _ = answer.send(found);
        }
    }

    async fn look_up(&mut self, wanted: Wanted) -> Result<Vec<Contact>, Status> {
        let query = match wanted {
            Wanted::Name(name) => PQueryRequest { name: name.to_string(), ..Default::default() },
            Wanted::Sample(sample) => PQueryRequest { sample, ..Default::default() },
        };
        let request = self.with_cookie(query);
        let listed = self.query(request).await?.peers;
        Ok(listed.iter().filter_map(|record| Contact::try_from(record).ok()).collect())
    }

    /// Lists peers, and takes the interval that comes with them.
    async fn query(&mut self, request: Request<PQueryRequest>) -> Result<PQueryResponse, Status> {
        let answer = call(self.client.p_query(request)).await?;
        if answer.keep_alive_interval.is_some() {
            self.interval = interval(answer.keep_alive_interval);
        }
        Ok(answer)
    }

    /// Brings the list of known peers up to date.
    async fn refresh(&mut self) -> Result<(), Status> {
        if self.crowded {
            let fresh = self.sampled_at.is_some_and(|at| at.elapsed() < SAMPLE_INTERVAL);
            return if fresh && !self.session.known.is_empty() { Ok(()) } else { self.refresh_sample().await };
        }
        // Whatever goes wrong, the next listing begins anew.
        let since_revision = std::mem::take(&mut self.revision);
        let mut token = String::new();
        let mut listing = known::Listing::default();
        let mut first_revision = None;
        for _ in 0..PAGES_MAX {
            let request = PQueryRequest { since_revision, page_token: std::mem::take(&mut token), ..Default::default() };
            let request = self.with_cookie(request);
            let page = self.query(request).await?;
            if page.active_peers > KNOWN_ALL_MAX {
                self.crowded = true;
                return self.refresh_sample().await;
            }
            let revision = *first_revision.get_or_insert(page.revision);
            listing.start_over |= page.start_over;
            listing.gone.extend(page.gone);
            listing.peers.extend(page.peers);
            if listing.gone.len() + listing.peers.len() > LISTED_MAX {
                return Err(Status::out_of_range(format!("the registry lists more than {LISTED_MAX} changes of few peers")));
            }
            token = page.next_page_token;
            if token.is_empty() {
                self.revision = revision;
                listing.start_over |= since_revision == 0;
                self.session.known.update(listing);
                return Ok(());
            }
        }
        Err(Status::out_of_range(format!("the registry's listing has more than {PAGES_MAX} pages")))
    }

    async fn refresh_sample(&mut self) -> Result<(), Status> {
        let request = self.with_cookie(PQueryRequest { sample: KNOWN_SAMPLE, ..Default::default() });
        let answer = self.query(request).await?;
        self.sampled_at = Some(Instant::now());
        self.crowded = answer.active_peers > KNOWN_ALL_MAX;
        let mut peers = answer.peers;
        peers.truncate(KNOWN_SAMPLE as usize);
        self.session.known.update(known::Listing { start_over: true, sample: true, peers, gone: Vec::new() });
        Ok(())
    }

    async fn leave(&mut self) {
        // Whatever the last call came to: with a cookie there may be a lease.
        if self.cookie.is_none() {
            return;
        }
        let request = self.with_cookie(LeaveRequest {});
        match timeout(LEAVE_TIMEOUT, self.client.leave(request)).await {
            Ok(Ok(_)) => tracing::info!("left the registry"),
            Ok(Err(error)) => tracing::warn!(error = error.message(), "could not leave the registry; the lease will run out"),
            Err(_) => tracing::warn!("the registry did not answer the leave in time; the lease will run out"),
        }
    }

    fn with_cookie<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        if let Some(cookie) = &self.cookie
            && let Ok(mut value) = AsciiMetadataValue::try_from(cookie.reveal())
        {
            value.set_sensitive(true);
            request.metadata_mut().insert(COOKIE_HEADER, value);
        }
        request
    }
}

async fn call<T>(call: impl Future<Output = Result<tonic::Response<T>, Status>>) -> Result<T, Status> {
    match timeout(CALL_TIMEOUT, call).await {
        Ok(answer) => answer.map(tonic::Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}

fn interval(from_registry: Option<prost_types::Duration>) -> Duration {
    let given = from_registry.and_then(|given| Duration::try_from(given).ok()).unwrap_or(INTERVAL_BOUNDS.1);
    given.clamp(INTERVAL_BOUNDS.0, INTERVAL_BOUNDS.1)
}
