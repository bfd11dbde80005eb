//! The middleware that counts calls, and refuses those past a limit.

use super::{
    class::CallClass,
    limiter::{CallLimits, CallerKey, Counted, Limiter, Refused},
};
use crate::{
    endpoint::client_network,
    metrics::Metrics,
    server::{caller::Caller, held_body::hold},
    status::{Reason, retry_after},
};
use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderValue, StatusCode, Version, header},
    middleware::Next,
    response::{IntoResponse as _, Response},
};
use http::Extensions;
use metrics::Counter;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::time::Instant;
use tonic::Status;

/// The calls of a server, shared by all that count them.
pub(in crate::server) struct CallLimiter {
    limiter: Mutex<Limiter>,
    limit_local: bool,
    started_at: Instant,
    /// Calls refused, by class: for the caller's own limit, and for that of all.
    refused: [[Counter; 2]; CallClass::ALL.len()],
}

impl CallLimiter {
    /// Nothing is under way yet.
    pub(in crate::server) fn new(limits: &CallLimits, metrics: &Metrics) -> Self {
        let refused = CallClass::ALL.map(|class| {
            ["caller", "all"].map(|of| {
                let help = "Calls refused with RATE_LIMITED, by class, and by whose limit was reached";
                metrics.counter("p2pdi_calls_limited_total", help, &[("class", class.as_str()), ("limit_of", of)])
            })
        });
        let (limiter, limit_local) = (Mutex::new(Limiter::new(limits.clone())), limits.limit_local);
        Self { limiter, limit_local, started_at: Instant::now(), refused }
    }

    fn lock(&self) -> MutexGuard<'_, Limiter> {
        self.limiter.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn begin(self: &Arc<Self>, caller: &Caller, class: CallClass) -> Result<Permit, Status> {
        let limited = self.limit_local || !caller.is_local_machine();
        let key = limited.then(|| key_of(caller));
        let begun = self.lock().begin(key, class, self.started_at.elapsed());
        let counted = begun.map_err(|refused| self.refuse(&refused))?;
        Ok(Permit { calls: Arc::clone(self), counted, class })
    }

    fn refuse(&self, refused: &Refused) -> Status {
        let Refused { class, of_caller, busy, limit, retry_after } = *refused;
        self.refused[class.index()][usize::from(!of_caller)].increment(1);
        let whose = if of_caller { "your address or name" } else { "all callers together" };
        let (what, most) = match busy {
            true => ("calls of this kind are under way", u64::from(limit.in_flight)),
            false => ("calls of this kind may begin in a second", u64::from(limit.per_second)),
        };
        let most = if busy { format!("{most} {what}") } else { format!("{most} {what} on average") };
        let message = format!("{most} for {whose} ({}), and this is one more; try again in {retry_after:?}", class.as_str());
        Reason::RateLimited.status_retry_after(message, retry_after)
    }
}

fn key_of(caller: &Caller) -> CallerKey {
    match caller.identity().and_then(|identity| identity.name()) {
        Some(name) => CallerKey::Name(name.clone()),
        None => CallerKey::Network(client_network(caller.address().ip())),
    }
}

/// Counts a call until it is dropped.
pub struct Permit {
    calls: Arc<CallLimiter>,
    counted: Counted,
    class: CallClass,
}

impl fmt::Debug for Permit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Permit").field("counted", &self.counted).field("class", &self.class).finish_non_exhaustive()
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.calls.lock().end(&self.counted, self.class);
    }
}

/// The admission of a call, in the extensions of its request: for handlers that know better what kind of call it is.
#[derive(Clone)]
pub struct Admitted {
    calls: Arc<CallLimiter>,
    counted: Counted,
}

impl fmt::Debug for Admitted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Admitted").field("counted", &self.counted).finish_non_exhaustive()
    }
}

impl Admitted {
    /// `None`: the request comes from inside the process.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// The call is of this class, too.
    ///
    /// # Errors
    /// `RATE_LIMITED` when the caller, or all callers, made as many of them as they may.
    pub fn is_also(&self, class: CallClass) -> Result<(), Status> {
        let also = self.calls.lock().also(&self.counted, class, self.calls.started_at.elapsed());
        also.map_err(|refused| self.calls.refuse(&refused))
    }

    /// A message of the call's stream counts as a call of `class`, until the result is dropped.
    ///
    /// # Errors
    /// `RATE_LIMITED` when the caller, or all callers, make as many of them as they may.
    pub fn begin(&self, class: CallClass) -> Result<Permit, Status> {
        let begun = self.calls.lock().begin_within(&self.counted, class, self.calls.started_at.elapsed());
        begun.map_err(|refused| self.calls.refuse(&refused))?;
        Ok(Permit { calls: Arc::clone(&self.calls), counted: self.counted.clone(), class })
    }
}

/// Middleware that counts each call from its request until the end of its answer, and refuses it past a limit.
pub(in crate::server) async fn limit_calls(State(calls): State<Arc<CallLimiter>>, mut request: Request, next: Next) -> Response {
    // Only requests from inside the process have no caller.
    let Some(caller) = Caller::of(request.extensions()) else { return next.run(request).await };
    match calls.begin(caller, CallClass::of(request.uri().path())) {
        Ok(permit) => {
            let counted = permit.counted.clone();
            request.extensions_mut().insert(Admitted { calls, counted });
            next.run(request).await.map(|body| Body::new(hold(body, permit)))
        }
        Err(status) if is_grpc(&request) => status.into_http(),
        Err(status) => too_many_requests(&status),
    }
}

fn is_grpc(request: &Request) -> bool {
    let kind = request.headers().get(header::CONTENT_TYPE);
    request.version() == Version::HTTP_2 && kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The refusal of a plain HTTP request (RFC 6585, section 4).
fn too_many_requests(status: &Status) -> Response {
    // Whole seconds (RFC 9110, section 10.2.3), rounded up.
    let seconds = retry_after(status).map_or(1, |after| after.as_secs() + 1);
    let mut answer = (StatusCode::TOO_MANY_REQUESTS, format!("{}\n", status.message())).into_response();
    answer.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    answer.headers_mut().insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer
}
