//! The registry as the tracker of what a verb fetches: this program is an observer that serves what it has.

use crate::{
    call::CALL_TIMEOUT,
    failure::Outcome,
    registry_client::{RegistryAccess, RegistrySession},
};
use p2pdi::{
    endpoint::Endpoint,
    status::Reason,
    v1::{KeepAliveRequest, RegisterRequest},
};
use peerd::{
    holders::tracker::{Announced, Announcement, Tracker},
    session::AnnounceError,
};
use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};
use tokio::{
    sync::Mutex,
    time::{sleep, timeout},
};
use tonic::Status;

/// How often the lease is extended while the registry does not say otherwise: it is usually 30 s long.
const KEEP_ALIVE_DEFAULT: Duration = Duration::from_secs(10);
/// Shortest interval accepted, and the first one: a lease is at least 1 s long. A registry cannot make this program call in a loop.
const KEEP_ALIVE_MIN: Duration = Duration::from_millis(300);

/// An observer of its own for the announces of a verb: the one whose cookie `register` saved is at another endpoint, and is kept by others.
pub(crate) struct RegistryTracker {
    /// Locked to make a request or to register, and not while an announce waits for its answer.
    session: Mutex<RegistrySession>,
    /// Where this program serves what it has; `None`: nowhere.
    endpoint: Option<Endpoint>,
    /// Nothing is announced any more.
    ended: AtomicBool,
}

impl RegistryTracker {
    /// Registers `observer` for as long as the tracker exists. Its name and id must be those that the server at `endpoint` answers with:
    /// others dial it by them.
    pub(crate) async fn connect(access: &RegistryAccess, observer: RegisterRequest, endpoint: Option<Endpoint>) -> Outcome<Self> {
        let session = RegistrySession::observer(access, observer).await?;
        Ok(Self { session: Mutex::new(session), endpoint, ended: AtomicBool::new(false) })
    }

    /// Ends the lease, and with it all that was announced, though tasks that announce may still use this tracker: they end only with the
    /// program, and others would be told of this one for as long as its lease lasts.
    pub(crate) fn end(&self) {
        self.ended.store(true, Ordering::Relaxed);
        // Locked only while a request is made, or an observer registers again, whose lease ends with the session.
        if let Ok(mut session) = self.session.try_lock() {
            session.end();
        }
    }

    /// Extends the lease until it is dropped: announces do not. To be run beside the fetch.
    pub(crate) async fn keep_alive(&self) {
        let mut interval = KEEP_ALIVE_MIN;
        loop {
            sleep(interval.max(KEEP_ALIVE_MIN)).await;
            let (mut client, request, generation) = {
                let mut session = self.session.lock().await;
                (session.client().clone(), session.request(KeepAliveRequest::default()), session.observations())
            };
            interval = match timeout(CALL_TIMEOUT, client.keep_alive(request)).await {
                Ok(Ok(answer)) => {
                    let given = answer.into_inner().keep_alive_interval;
                    given.and_then(|given| given.try_into().ok()).unwrap_or(KEEP_ALIVE_DEFAULT)
                }
                Ok(Err(status)) if is_over(&status) => {
                    self.observe_again(generation).await;
                    KEEP_ALIVE_MIN
                }
                Ok(Err(_)) | Err(_) => KEEP_ALIVE_DEFAULT,
            };
        }
    }

    /// Registers again, unless that was done since `generation`.
    async fn observe_again(&self, generation: u64) {
        let mut session = self.session.lock().await;
        if session.observations() == generation
            && let Err(failure) = session.observe().await
        {
            tracing::debug!(?failure, "cannot register as an observer again");
        }
    }
}

/// The registry does not know this observer any more.
fn is_over(status: &Status) -> bool {
    matches!(Reason::of(status), Some(Reason::CookieUnknown | Reason::LeaseExpired | Reason::CookieMissing))
}

#[tonic::async_trait]
impl Tracker for RegistryTracker {
    async fn announce(&self, announcement: Announcement) -> Result<Announced, AnnounceError> {
        let endpoint = self.endpoint.as_ref().map(Endpoint::to_string).unwrap_or_default();
        let said = announcement.into_request(endpoint);
        for tries_left in [1, 0] {
            if self.ended.load(Ordering::Relaxed) {
                return Err(AnnounceError::Unavailable("this program ends".to_owned()));
            }
            let (mut client, request, generation) = {
                let mut session = self.session.lock().await;
                (session.client().clone(), session.request(said.clone()), session.observations())
            };
            match timeout(CALL_TIMEOUT, client.announce(request)).await {
                Ok(Ok(answer)) => return Ok(answer.into_inner().into()),
                Ok(Err(status)) if tries_left > 0 && is_over(&status) => self.observe_again(generation).await,
                Ok(Err(status)) => return Err(AnnounceError::of(&status)),
                Err(_) => break,
            }
        }
        Err(AnnounceError::Unavailable(format!("no answer within {} s", CALL_TIMEOUT.as_secs())))
    }
}
