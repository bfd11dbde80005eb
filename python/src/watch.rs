//! What changes at a registry, for Python: begun anew where it was after each break.

use crate::{
    call::Call,
    failure::Failure,
    registry_access::Access,
    results::PeerRecord,
    runtime::{Process, threads},
};
use p2pdi::{
    backoff::Backoff,
    cookie::{Cookie, with_cookie},
    status::Reason,
    v1::{KeepAliveRequest, LeaveRequest, WatchPeersRequest, WatchPeersResponse, peer_event::Change as Told},
    watched_peers::WatchedPeers,
};
use pyo3::prelude::*;
use std::{sync::Arc, time::Duration};
use tokio::{
    sync::Mutex,
    time::{Instant, sleep, sleep_until, timeout_at},
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Status, Streaming};

/// How often the lease of a watch is extended while its registry has not said how often.
const KEEP_ALIVE_DEFAULT: Duration = Duration::from_secs(1);
/// Shortest time between two extensions, whatever the registry says.
const KEEP_ALIVE_MIN: Duration = Duration::from_millis(250);
/// A watch that says nothing for so long is begun anew: the registry gives a sign of life every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// What one change is called in Python.
pub(crate) type Change = (&'static str, String, Option<PeerRecord>);

/// A watch of the peers of a registry. It registers as an observer of its own.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct NativeWatch {
    watch: Arc<Mutex<Watch>>,
    /// Ends a wait for changes.
    stop: CancellationToken,
    process: Process,
}

impl NativeWatch {
    /// It ends at `stop`.
    pub(crate) fn new(registry: Access, stop: CancellationToken) -> Self {
        let watch = Watch {
            registry,
            cookie: None,
            stream: None,
            keep_alive_at: Instant::now(),
            heard_at: Instant::now(),
            interval: KEEP_ALIVE_DEFAULT,
            backoff: Backoff::default(),
            begun: false,
            lagged: false,
            seen: WatchedPeers::default(),
        };
        Self { watch: Arc::new(Mutex::new(watch)), stop, process: Process::current() }
    }
}

#[pymethods]
impl NativeWatch {
    /// The next changes, at least one; none once it is closed.
    fn next(&self) -> PyResult<Call> {
        self.process.check()?;
        let (watch, stop) = (Arc::clone(&self.watch), self.stop.clone());
        let next = async move { watch.lock().await.next().await };
        Ok(Call::of(async move {
            tokio::select! {
                biased;
                () = stop.cancelled() => Ok(Vec::new()),
                next = next => next,
            }
        }))
    }

    /// Ends its lease, in the background.
    fn close(&self) -> PyResult<()> {
        // In a process that was forked there is nothing to end.
        if self.process.is_current() {
            // Whoever waits holds the lock.
            self.stop.cancel();
            let watch = Arc::clone(&self.watch);
            let threads = threads()?;
            let used = threads.clone();
            threads.spawn(async move {
                watch.lock().await.leave().await;
                drop((watch, used));
            });
        }
        Ok(())
    }
}

impl Drop for NativeWatch {
    fn drop(&mut self) {
        self.process.leak_elsewhere(&self.watch);
        self.process.leak_elsewhere(&self.stop);
    }
}

struct Watch {
    registry: Access,
    cookie: Option<Cookie>,
    stream: Option<Streaming<WatchPeersResponse>>,
    keep_alive_at: Instant,
    /// When the registry last said something, or the watch began.
    heard_at: Instant,
    interval: Duration,
    backoff: Backoff,
    /// It was told the whole list once: from then on it goes on after breaks.
    begun: bool,
    /// It was behind, and was told nothing since.
    lagged: bool,
    seen: WatchedPeers,
}

impl Watch {
    /// Safe to cancel: what was read is in `self`, and what was not is read by the next call.
    async fn next(&mut self) -> Result<Vec<Change>, Failure> {
        loop {
            let stream = match &mut self.stream {
                Some(stream) => stream,
                None => {
                    if let Err(error) = self.begin().await {
                        self.broke(&error).await?;
                    }
                    continue;
                }
            };
            let heard = tokio::select! {
                biased;
                // From the last message on: the arm below begins this one anew every few seconds.
                heard = timeout_at(self.heard_at + SILENCE_MAX, stream.message()) => heard,
                () = sleep_until(self.keep_alive_at) => {
                    if let Err(error) = self.keep_alive().await {
                        self.broke(&error).await?;
                    }
                    continue;
                }
            };
            let ended = match heard {
                Ok(Ok(Some(message))) => {
                    self.heard_at = Instant::now();
                    if message.caught_up {
                        (self.begun, self.lagged) = (true, false);
                        self.backoff.reset();
                    }
                    let changes = self
                        .seen
                        .take(&message)
                        .map_err(|error| Failure::error(format!("the registry told of a change that cannot be read: {error}")))?;
                    if !changes.is_empty() {
                        return Ok(changes.into_iter().map(told).collect());
                    }
                    continue;
                }
                Ok(Ok(None)) => Status::unavailable("the registry ended the watch"),
                Ok(Err(ended)) => ended,
                Err(_) => Status::deadline_exceeded("the registry says nothing"),
            };
            self.broke(&ended).await?;
        }
    }

    /// Begins where it ended.
    async fn begin(&mut self) -> Result<(), Status> {
        let mut client = self.registry.client();
        if self.cookie.is_none() {
            let answer = self.registry.in_time(client.register(self.registry.observer())).await?;
            let cookie = answer.cookie.parse().map_err(|_| Status::internal("the registry gave a malformed cookie"))?;
            self.cookie = Some(cookie);
            self.extend(answer.keep_alive_interval);
        }
        let request = WatchPeersRequest { since_revision: self.seen.revision() };
        self.heard_at = Instant::now();
        self.stream = Some(self.registry.in_time(client.watch_peers(with_cookie(request, self.cookie.as_ref()))).await?);
        Ok(())
    }

    async fn keep_alive(&mut self) -> Result<(), Status> {
        // Also if nobody waits for the answer.
        self.keep_alive_at = Instant::now() + self.interval;
        let mut client = self.registry.client();
        let request = with_cookie(KeepAliveRequest::default(), self.cookie.as_ref());
        match self.registry.in_time(client.keep_alive(request)).await {
            Ok(answer) => self.extend(answer.keep_alive_interval),
            Err(error) if is_lease_over(&error) => return Err(error),
            // The stream tells when the registry is away.
            Err(_) => {}
        }
        Ok(())
    }

    fn extend(&mut self, interval: Option<prost_types::Duration>) {
        let given = interval.and_then(|given| Duration::try_from(given).ok());
        self.interval = given.unwrap_or(KEEP_ALIVE_DEFAULT).max(KEEP_ALIVE_MIN);
        self.keep_alive_at = Instant::now() + self.interval;
    }

    /// Waits before it is begun anew.
    ///
    /// # Errors
    /// When that is of no use.
    async fn broke(&mut self, why: &Status) -> Result<(), Failure> {
        self.stream = None;
        // Behind its registry: it goes on at once, with all that it missed; if it is behind again at once, a moment later.
        if Reason::of(why) == Some(Reason::Lagged) && !std::mem::replace(&mut self.lagged, true) {
            return Ok(());
        }
        let lease_over = is_lease_over(why);
        if lease_over {
            self.cookie = None;
        }
        let refused = matches!(
            why.code(),
            Code::Unimplemented | Code::PermissionDenied | Code::Unauthenticated | Code::InvalidArgument | Code::AlreadyExists
        );
        if !lease_over && (refused || !self.begun) {
            return Err(self.failure(why));
        }
        sleep(self.backoff.next(rand::random())).await;
        Ok(())
    }

    fn failure(&self, why: &Status) -> Failure {
        let server = self.registry.describe();
        match why.code() {
            Code::Unimplemented => {
                Failure::error(format!("{server} is of a version that cannot be watched; call pquery() from time to time"))
            }
            _ => Failure::call(&server, why),
        }
    }

    async fn leave(&mut self) {
        self.stream = None;
        if let Some(cookie) = self.cookie.take() {
            let mut client = self.registry.client();
            // Otherwise its lease runs out.
            let _ = self.registry.in_time(client.leave(with_cookie(LeaveRequest {}, Some(&cookie)))).await;
        }
    }
}

pub(crate) fn is_lease_over(error: &Status) -> bool {
    matches!(Reason::of(error), Some(Reason::CookieUnknown | Reason::LeaseExpired))
}

/// What one change is in Python.
fn told(change: Told) -> Change {
    match change {
        Told::Joined(peer) => ("joined", peer.name.clone(), Some(peer.into())),
        Told::Changed(peer) => ("changed", peer.name.clone(), Some(peer.into())),
        Told::Left(gone) => ("left", gone.name, None),
    }
}
