//! Calls the registry: register, keep alive, list the other peers, register again, leave.

use super::{
    handle::{Lookups, Query, Session},
    known::{LISTED_MAX, Listing},
};
use crate::identity::StateFolder;
use p2pdi::backoff::{self, Backoff};
use p2pdi::{
    channel::{Channel, REGISTRY_RESPONSE_MAX_BYTES, lazy},
    contact::Contact,
    cookie::{COOKIE_HEADER, Cookie},
    endpoint::Endpoint,
    status::{self, Reason},
    v1::{
        KeepAliveRequest, LeaveRequest, PQueryRequest, PQueryResponse, RegisterRequest, SessionState,
        registry_client::RegistryClient,
    },
};
use std::{collections::BTreeMap, sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, metadata::AsciiMetadataValue};

/// Timeout of one call to the registry: its disk may be busy with many registrations at once.
const CALL_TIMEOUT: Duration = Duration::from_secs(10);
/// Timeout of the last call, so that it does not delay a stop.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest random pause before registering again, so that not all peers register at once with a registry that lost its records.
const REREGISTER_JITTER: Duration = Duration::from_secs(1);
/// Shortest and longest keepalive interval accepted from a registry; a value outside is clamped.
const INTERVAL_BOUNDS: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(3600));
/// With up to this many peers, all are listed; with more, a random sample of [`KNOWN_SAMPLE`].
const KNOWN_ALL_MAX: u64 = 1_000;
/// See [`KNOWN_ALL_MAX`].
const KNOWN_SAMPLE: u32 = 256;
/// How long a sample is used. It need not be fresh: peers of it that left are noticed when they are called.
const SAMPLE_INTERVAL: Duration = Duration::from_secs(5 * 60);
/// Most pages of one listing. A page may be short, or empty: one call scans a bounded number of records.
const PAGES_MAX: usize = 256;

/// What to register, and where.
pub struct SessionConfig {
    /// The registry's address.
    pub registry: Endpoint,
    /// This peer.
    pub me: Contact,
    /// Labels that queries can filter by.
    pub labels: BTreeMap<String, String>,
}

/// Keeps one peer registered.
pub struct SessionDriver {
    session: Session,
    config: SessionConfig,
    client: RegistryClient<Channel>,
    state_folder: Arc<StateFolder>,
    report: Box<dyn Fn() -> KeepAliveRequest + Send>,
    cookie: Option<Cookie>,
    lookups: Lookups,
    /// Revision of the list of known peers; 0 before the first listing.
    revision: u64,
    /// By its last answer, the registry has more than [`KNOWN_ALL_MAX`] peers.
    sampling: bool,
    /// When the last sample was taken.
    sampled_at: Option<Instant>,
    /// Keepalive interval of the registry's latest answer.
    interval: Duration,
}

impl SessionDriver {
    /// A driver that has not called yet. Keepalives carry what `report` returns.
    pub fn new(
        session: Session,
        config: SessionConfig,
        lookups: Lookups,
        state_folder: Arc<StateFolder>,
        report: impl Fn() -> KeepAliveRequest + Send + 'static,
    ) -> Self {
        let client = RegistryClient::new(lazy(&config.registry)).max_decoding_message_size(REGISTRY_RESPONSE_MAX_BYTES);
        let cookie = state_folder.cookie(config.registry.as_str(), config.me.name());
        Self {
            session,
            config,
            client,
            state_folder,
            report: Box::new(report),
            cookie,
            lookups,
            revision: 0,
            sampling: false,
            sampled_at: None,
            interval: INTERVAL_BOUNDS.1,
        }
    }

    /// Keeps the peer registered until `stop`, then leaves the registry.
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
            let pause = self.on_error(&error, &mut backoff);
            sleep(pause).await;
        }
    }

    /// Reports a failed call in the status; returns the pause before the next one.
    fn on_error(&mut self, error: &Status, backoff: &mut Backoff) -> Duration {
        let registry = &self.config.registry;
        match (Reason::of(error), error.code()) {
            (Some(Reason::CookieUnknown | Reason::LeaseExpired), _) => {
                self.session.set_state(
                    SessionState::Registering,
                    format!("{registry} does not know this peer any more; registering again"),
                );
                REREGISTER_JITTER.mul_f64(rand::random())
            }
            (Some(Reason::NameTaken), _) => {
                let seconds = status::metadata(error, "retry_after_seconds").and_then(|text| text.parse().ok());
                self.session.set_state(SessionState::Refused, format!("{registry}: {}", error.message()));
                let lease = seconds.map_or(Duration::ZERO, Duration::from_secs);
                backoff.next(rand::random()).max(lease.min(backoff::PAUSE_MAX))
            }
            (None, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal) => {
                let pause = backoff.next(rand::random());
                self.session.set_state(
                    SessionState::Unreachable,
                    format!("{registry} does not answer ({}); still trying", error.message()),
                );
                pause
            }
            (Some(Reason::StoreUnavailable | Reason::ShuttingDown | Reason::Internal), _) => {
                self.session.set_state(SessionState::Unreachable, format!("{registry}: {}; still trying", error.message()));
                backoff.next(rand::random())
            }
            _ => {
                self.session.set_state(SessionState::Refused, format!("{registry}: {}", error.message()));
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
            tracing::warn!(%error, "cannot store the cookie; after a crash this name cannot be registered again before its lease expires");
        }
        self.cookie = Some(cookie);
        // A registry that lost its records counts from 0 again; an old revision would hide its new records.
        self.revision = 0;
        self.session.registered();
        self.session.answered(answer.ttl);
        self.session
            .set_state(SessionState::Registered, format!("registered as {} at {}", self.config.me.name(), self.config.registry));
        self.interval = interval(answer.keep_alive_interval);
        self.try_refresh().await;
        Ok(())
    }

    /// Lists the other peers. A failure is not fatal: the peer is registered, and the next keepalive tries again.
    async fn try_refresh(&mut self) {
        if let Err(error) = self.refresh().await {
            tracing::debug!(error = error.message(), "cannot list the other peers");
        }
    }

    /// Sends keepalives until the registry rejects the cookie. One that does not answer is called again: it may come back with its leases.
    async fn keep_alive(&mut self) -> Status {
        let mut backoff = Backoff::default();
        let mut pause = None;
        loop {
            self.wait(pause.take()).await;
            let request = self.with_cookie((self.report)());
            match call(self.client.keep_alive(request)).await {
                Ok(answer) => {
                    backoff.reset();
                    self.interval = interval(answer.keep_alive_interval);
                    self.session.answered(answer.ttl);
                    self.session.set_state(
                        SessionState::Registered,
                        format!("registered as {} at {}", self.config.me.name(), self.config.registry),
                    );
                    self.try_refresh().await;
                }
                Err(error)
                    if matches!(
                        Reason::of(&error),
                        Some(Reason::CookieUnknown | Reason::LeaseExpired | Reason::CookieMalformed)
                    ) =>
                {
                    return error;
                }
                Err(error) => pause = Some(self.on_error(&error, &mut backoff)),
            }
        }
    }

    /// Waits for `pause`, or else until the next keepalive is due, and answers lookups meanwhile. A lookup may change the interval.
    async fn wait(&mut self, pause: Option<Duration>) {
        let started = Instant::now();
        loop {
            let due = started + pause.unwrap_or(self.interval);
            let lookup = tokio::select! {
                // Keepalives go first, however many lookups there are.
                biased;
                () = sleep_until(due) => return,
                lookup = self.lookups.0.recv() => lookup,
            };
            let Some((query, sender)) = lookup else { return sleep_until(due).await };
            let found = self.look_up(query).await.unwrap_or_else(|error| {
                tracing::debug!(error = error.message(), "cannot look up peers");
                Vec::new()
            });
            // The caller may have given up.
            let _ = sender.send(found);
        }
    }

    async fn look_up(&mut self, query: Query) -> Result<Vec<Contact>, Status> {
        let query = match query {
            Query::Name(name) => PQueryRequest { name: name.to_string(), ..Default::default() },
            Query::Sample(sample) => PQueryRequest { sample, ..Default::default() },
        };
        let request = self.with_cookie(query);
        let listed = self.query(request).await?.peers;
        Ok(listed.iter().filter_map(|record| Contact::try_from(record).ok()).collect())
    }

    /// Lists peers, and updates the keepalive interval from the answer.
    async fn query(&mut self, request: Request<PQueryRequest>) -> Result<PQueryResponse, Status> {
        let answer = call(self.client.p_query(request)).await?;
        if answer.keep_alive_interval.is_some() {
            self.interval = interval(answer.keep_alive_interval);
        }
        Ok(answer)
    }

    /// Updates the list of known peers.
    async fn refresh(&mut self) -> Result<(), Status> {
        if self.sampling {
            let fresh = self.sampled_at.is_some_and(|at| at.elapsed() < SAMPLE_INTERVAL);
            return if fresh && !self.session.known().is_empty() { Ok(()) } else { self.refresh_sample().await };
        }
        // After a failure the next listing starts over.
        let since_revision = std::mem::take(&mut self.revision);
        let mut token = String::new();
        let mut listing = Listing::default();
        let mut first_revision = None;
        for _ in 0..PAGES_MAX {
            let request = PQueryRequest { since_revision, page_token: std::mem::take(&mut token), ..Default::default() };
            let request = self.with_cookie(request);
            let page = self.query(request).await?;
            if page.active_peers > KNOWN_ALL_MAX {
                self.sampling = true;
                return self.refresh_sample().await;
            }
            let revision = *first_revision.get_or_insert(page.revision);
            listing.start_over |= page.start_over;
            listing.gone.extend(page.gone);
            listing.peers.extend(page.peers);
            if listing.gone.len() + listing.peers.len() > LISTED_MAX {
                return Err(Status::out_of_range(format!(
                    "the registry lists more than {LISTED_MAX} changes, but says it has at most {KNOWN_ALL_MAX} peers"
                )));
            }
            token = page.next_page_token;
            if token.is_empty() {
                self.revision = revision;
                listing.start_over |= since_revision == 0;
                self.session.known().update(listing);
                return Ok(());
            }
        }
        Err(Status::out_of_range(format!("the registry's listing has more than {PAGES_MAX} pages")))
    }

    async fn refresh_sample(&mut self) -> Result<(), Status> {
        let request = self.with_cookie(PQueryRequest { sample: KNOWN_SAMPLE, ..Default::default() });
        let answer = self.query(request).await?;
        self.sampled_at = Some(Instant::now());
        self.sampling = answer.active_peers > KNOWN_ALL_MAX;
        let mut peers = answer.peers;
        peers.truncate(KNOWN_SAMPLE as usize);
        self.session.known().update(Listing { start_over: true, sample: true, peers, gone: Vec::new() });
        Ok(())
    }

    async fn leave(&mut self) {
        // With a cookie there may be a lease, even if the last call failed.
        if self.cookie.is_none() {
            return;
        }
        let request = self.with_cookie(LeaveRequest {});
        match timeout(LEAVE_TIMEOUT, self.client.leave(request)).await {
            Ok(Ok(_)) => tracing::info!("left the registry"),
            Ok(Err(error)) => tracing::warn!(error = error.message(), "cannot leave the registry; the lease will expire"),
            Err(_) => tracing::warn!("the registry did not answer the leave in time; the lease will expire"),
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
