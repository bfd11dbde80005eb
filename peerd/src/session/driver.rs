//! Calls the registry: register, keep alive, list the other peers, register again, leave.

use super::{
    client::Client,
    handle::{OwnName, Session},
    peer_list::PeerList,
};
use crate::identity::{OwnContact, StateFolder};
use p2pdi::backoff::{self, Backoff, Policy};
use p2pdi::{
    channel::Dial,
    contact::Contact,
    cookie::Cookie,
    endpoint::Endpoint,
    enrol::Trusted,
    network::NetworkName,
    platform::uptime,
    status::{self, Reason},
    v1::{KeepAliveRequest, RegisterRequest, SessionState},
};
use std::{
    collections::BTreeMap,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::{sleep, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status};

/// Timeout of the last call, so that it does not delay a stop.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest sleep until the next keepalive is due. Sleeps stand still while the machine is suspended, and the lease does not: the peer calls
/// this soon after it goes on.
const SLEEP_MAX: Duration = Duration::from_secs(1);
/// Longest random pause before registering again, so that not all peers register at once with a registry that lost its records.
const REREGISTER_JITTER: Duration = Duration::from_secs(1);
/// How soon after one registration was forgotten the next must be for somebody else to be suspected, who has a certificate for the same name: longer than
/// two of the longest pauses of [`CONTEST`].
const CONTESTED_WITHIN: Duration = Duration::from_secs(3 * 60);
/// Pauses before this peer registers again then: each registration of one ends that of the other, is stored, and is told to everybody.
const CONTEST: Policy = Policy { first: Duration::from_secs(2), longest: Duration::from_secs(60) };
/// Most pages of whom to trust that are fetched at once: half a million revoked certificates.
const TRUST_PAGES_MAX: usize = 100;

/// What to register, and where.
pub struct SessionConfig {
    /// The registry's addresses, or those of its replicas.
    pub registries: Vec<Endpoint>,
    /// The network of this peer.
    pub network: NetworkName,
    /// How to dial it.
    pub dial: Dial,
    /// This peer.
    pub own: OwnContact,
    /// Labels that queries can filter by.
    pub labels: BTreeMap<String, String>,
    /// What the registry says of whom to trust. `None`: there is no TLS.
    pub trusted: Option<Trusted>,
}

/// Keeps one peer registered.
pub struct SessionDriver {
    session: Session,
    config: SessionConfig,
    client: Client,
    state_folder: Arc<StateFolder>,
    report: Box<dyn Fn() -> KeepAliveRequest + Send>,
    /// The cookie is being stored.
    storing: Option<JoinHandle<()>>,
    /// A Register was sent whose answer may have been lost, or was answered: there may be a lease.
    asked: bool,
    /// When the registry last did not know this peer's registration any more.
    lost_at: Option<Duration>,
    /// How often in a row that came soon after the time before.
    contest: Backoff,
}

/// Why a registration is made anew.
enum Ended {
    /// The registry does not know the cookie any more.
    Refused(Status),
    /// This peer has another endpoint.
    Moved,
}

impl SessionDriver {
    /// A driver that has not called yet. Keepalives carry what `report` returns.
    pub fn new(
        session: Session,
        config: SessionConfig,
        state_folder: Arc<StateFolder>,
        report: impl Fn() -> KeepAliveRequest + Send + 'static,
    ) -> Self {
        let cookie = state_folder.cookie(&config.registries, config.own.get().name());
        let client = Client::new(&config.registries, &config.dial, cookie);
        Self {
            session,
            config,
            client,
            state_folder,
            report: Box::new(report),
            storing: None,
            asked: false,
            lost_at: None,
            contest: CONTEST.start(),
        }
    }

    /// Keeps the peer registered until `stop`, then leaves the registry.
    pub async fn run(mut self, stop: CancellationToken) {
        tokio::select! {
            () = self.stay_registered() => {}
            () = stop.cancelled() => {}
        }
        self.leave().await;
        self.wait_until_stored().await;
    }

    async fn stay_registered(&mut self) {
        let mut backoff = Backoff::default();
        let mut peers = PeerList::new(self.session.clone());
        loop {
            let Ok(me) = self.config.own.refresh().await else {
                self.wait_for_address(backoff.next(rand::random())).await;
                continue;
            };
            let error = match self.register(&me).await {
                Ok(()) => {
                    backoff.reset();
                    let client = self.client.clone();
                    let ended = tokio::select! {
                        ended = self.keep_alive(&me) => ended,
                        never = peers.follow(client) => match never {},
                    };
                    match ended {
                        Ended::Refused(error) => error,
                        Ended::Moved => continue,
                    }
                }
                Err(error) => error,
            };
            let pause = self.on_error(&error, &mut backoff);
            sleep(pause).await;
        }
    }

    /// Waits for an address that others can dial, for at most `pause`: without one there is nothing to register.
    async fn wait_for_address(&mut self, pause: Duration) {
        let registry = &self.client;
        let detail = format!("waiting to register with {registry}: {}", crate::identity::NoAddress);
        self.session.set_state(SessionState::Registering, detail);
        let mut changes = self.config.own.changes();
        // Fails at the end of the peer only.
        let _waited = timeout(pause, changes.changed()).await;
    }

    /// Reports a failed call in the status; returns the pause before the next one.
    fn on_error(&mut self, error: &Status, backoff: &mut Backoff) -> Duration {
        let registry = &self.client;
        match (Reason::of(error), error.code()) {
            (Some(Reason::CookieUnknown | Reason::LeaseExpired), _) => {
                self.client.tell_if_elsewhere();
                let now = uptime();
                let is_again = self.lost_at.replace(now).is_some_and(|before| now.saturating_sub(before) < CONTESTED_WITHIN);
                // Without certificates nobody else gets the name while this peer has it.
                let is_certified = self.config.trusted.is_some();
                if is_again && is_certified && Reason::of(error) == Some(Reason::CookieUnknown) {
                    let pause = self.contest.next(rand::random());
                    self.session.set_state(
                        SessionState::Registering,
                        format!(
                            "{registry} forgot this peer again: another machine with a certificate for its name may have registered; give each machine \
                             a name of its own; still trying"
                        ),
                    );
                    return pause;
                }
                if !is_again {
                    self.contest = CONTEST.start();
                }
                self.session.set_state(
                    SessionState::Registering,
                    format!("{registry} does not know this peer any more; registering again"),
                );
                REREGISTER_JITTER.mul_f64(rand::random())
            }
            (Some(Reason::NameTaken), _) => {
                self.session.set_own_name(OwnName::Refused);
                let seconds = status::metadata(error, "retry_after_seconds").and_then(|text| text.parse().ok());
                self.session.set_state(SessionState::Refused, format!("{registry}: {}; still trying", error.message()));
                // Its holder may leave, and an operator may free it, so it is asked for more often than that.
                let free_in = seconds.map_or(Duration::ZERO, Duration::from_secs);
                backoff.next(rand::random()).max(free_in.min(backoff::PAUSE_MAX))
            }
            (None, Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown | Code::Internal) => {
                let pause = pause(error, backoff);
                self.session.set_state(
                    SessionState::Unreachable,
                    format!("{registry} does not answer ({}); still trying", status::describe(error)),
                );
                pause
            }
            (Some(Reason::Internal), _) | (Some(_), Code::Unavailable) => {
                self.session.set_state(SessionState::Unreachable, format!("{registry}: {}; still trying", error.message()));
                pause(error, backoff)
            }
            _ => {
                self.session.set_state(SessionState::Refused, format!("{registry}: {}", error.message()));
                pause(error, backoff)
            }
        }
    }

    async fn register(&mut self, me: &Contact) -> Result<(), Status> {
        let SessionConfig { labels, network, .. } = &self.config;
        let request = RegisterRequest {
            name: me.name().to_string(),
            endpoint: me.endpoint().to_string(),
            labels: labels.clone(),
            id: me.id().to_field(),
            observer: false,
            network: network.to_string(),
        };
        self.propose_cookie().await;
        self.asked = true;
        let answer = self.client.register(request).await?;
        let cookie: Cookie = answer.cookie.parse()?;
        if self.client.cookie().is_none_or(|proposed| proposed.hash() != cookie.hash()) {
            // First: if the peer stops now, it must be able to leave.
            self.client.set_cookie(cookie.clone());
            // Before the peer counts as registered, so that it has the cookie after a crash.
            self.store(cookie).await;
        }
        self.session.set_client(self.client.clone());
        self.session.registered();
        self.session.set_own_name(OwnName::Registered);
        self.session.answered(self.client.url(), answer.ttl);
        self.session.set_state(SessionState::Registered, format!("registered as {} at {}", me.name(), self.client));
        self.session.set_interval(answer.keep_alive_interval);
        update_trust(self.config.trusted.clone(), self.client.clone(), answer.trust_revision).await;
        Ok(())
    }

    /// Makes a cookie where there is none, and stores it before the first call: the registry gives the name to nobody else for as long as
    /// it is reserved, so neither an answer that is lost nor a crash may leave this peer without it.
    async fn propose_cookie(&mut self) {
        if self.client.cookie().is_some() {
            return;
        }
        // Without randomness the registry makes one.
        if let Ok(cookie) = Cookie::generate() {
            self.client.set_cookie(cookie.clone());
            self.store(cookie).await;
        }
    }

    /// Sends keepalives until the registry rejects the cookie or this peer's endpoint is not that of `me` any more. One that does not answer is called again: it may come back with its leases.
    async fn keep_alive(&mut self, me: &Contact) -> Ended {
        let mut changes = self.config.own.changes();
        let mut backoff = Backoff::default();
        let mut pause = None;
        loop {
            tokio::select! {
                () = self.wait(pause.take()) => {}
                // The registry lists the old endpoint; a keepalive does not change it.
                Ok(_) = changes.wait_for(|own| own != me) => return Ended::Moved,
            }
            let request = (self.report)();
            match self.client.keep_alive(request).await {
                Ok(answer) => {
                    backoff.reset();
                    self.session.set_interval(answer.keep_alive_interval);
                    self.session.answered(self.client.url(), answer.ttl);
                    update_trust(self.config.trusted.clone(), self.client.clone(), answer.trust_revision).await;
                    self.session.set_state(SessionState::Registered, format!("registered as {} at {}", me.name(), self.client));
                }
                Err(error)
                    if matches!(
                        Reason::of(&error),
                        Some(Reason::CookieUnknown | Reason::LeaseExpired | Reason::CookieMalformed)
                    ) =>
                {
                    return Ended::Refused(error);
                }
                Err(error) => pause = Some(self.on_error(&error, &mut backoff)),
            }
        }
    }

    /// Stores a cookie without blocking the runtime, and waits for it: it survives a crash that follows.
    async fn store(&mut self, cookie: Cookie) {
        let (folder, registries, name) =
            (Arc::clone(&self.state_folder), self.config.registries.clone(), self.config.own.get().name().clone());
        self.storing = Some(spawn_blocking(move || {
            if let Err(error) = folder.keep_cookie(&registries, &name, &cookie) {
                tracing::warn!(%error, "cannot store the cookie; after a restart this name cannot be registered again before its lease and its reservation end");
            }
        }));
        self.wait_until_stored().await;
    }

    /// The state folder is locked until its last user is done, so the peer does not end before that.
    async fn wait_until_stored(&mut self) {
        if let Some(storing) = &mut self.storing {
            // The runtime reports a panic in it.
            let _ = storing.await;
            self.storing = None;
        }
    }

    /// Waits for `pause`, or else until the next keepalive is due. Lookups may change the interval meanwhile.
    async fn wait(&mut self, pause: Option<Duration>) {
        let started = uptime();
        if let Some(pause) = pause {
            return sleep(pause).await;
        }
        let mut interval = self.session.interval();
        loop {
            let left = interval.borrow_and_update().saturating_sub(uptime().saturating_sub(started));
            if left.is_zero() {
                return;
            }
            tokio::select! {
                () = sleep(left.min(SLEEP_MAX)) => {}
                Ok(()) = interval.changed() => {}
            }
        }
    }

    async fn leave(&mut self) {
        // There may be a lease, even if the last call failed; or one that this peer took before a crash.
        if !self.asked || self.client.cookie().is_none() {
            return;
        }
        match timeout(LEAVE_TIMEOUT, self.client.leave()).await {
            Ok(Ok(())) => tracing::info!("left the registry"),
            Ok(Err(error)) if Reason::of(&error) == Some(Reason::CookieUnknown) => tracing::debug!("there was no lease to end"),
            Ok(Err(error)) => tracing::warn!(error = error.message(), "cannot leave the registry; the lease will expire"),
            Err(_) => tracing::warn!("the registry did not answer the leave in time; the lease will expire"),
        }
    }
}

/// The pause before the next call: as long as the registry says, if it does.
fn pause(error: &Status, backoff: &mut Backoff) -> Duration {
    let told = status::retry_after(error).map(|asked| backoff::pause_after(asked, rand::random()));
    backoff.next(rand::random()).max(told.unwrap_or_default())
}

/// Fetches whom the registry trusts, if that is of another revision than what is known here.
async fn update_trust(trusted: Option<Trusted>, client: Client, revision: u64) {
    let Some(trusted) = trusted.filter(|_| revision > 0) else { return };
    for _ in 0..TRUST_PAGES_MAX {
        if trusted.revision() == revision {
            return;
        }
        let trust = match client.trust(trusted.revision()).await {
            Ok(trust) => trust,
            Err(error) => {
                let error = error.message();
                tracing::warn!(error, "cannot fetch the revoked certificates; the next keepalive tries again");
                return;
            }
        };
        let (taking, more) = (trusted.clone(), trust.more);
        // The runtime reports a panic in it.
        let _ = spawn_blocking(move || taking.take(&trust, SystemTime::now())).await;
        if !more {
            return;
        }
    }
}
