//! Limits of request bodies: how long one may take to arrive, and how much memory all of them may use.
//!
//! A request of one message is kept in memory until its last byte is there. Without a limit for all of them, the streams of all
//! connections together may ask for terabytes; without a time limit, for ever. Of a stream of messages the one that is not whole is limited
//! so; each is handled as it arrives, and a method that keeps messages for a while counts them itself ([`RequestMemory`]).

mod unfinished;

use self::unfinished::StreamBody;
use super::{Caller, Limits};
use crate::{endpoint::client_network, status::Reason, v1::FILE_DESCRIPTOR_SET};
use axum::{
    body::Body,
    extract::{Request, State},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http::Extensions;
use http_body::{Body as _, Frame, SizeHint};
use prost::Message as _;
use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// The first bytes of each body, which have memory of their own: the largest request of the registry, and most of a peer's. So the
/// requests that keep a network going are answered while large ones fill the rest.
const FIRST_BYTES: usize = 16 * 1024;
/// The part of the memory that is for first bytes: one in so many. A guess.
const FIRST_BYTES_SHARE: usize = 4;
/// The part of the memory that one client network may use: one in so many.
const CALLER_SHARE: usize = 2;

/// The limits, and what is used of them.
pub(super) struct RequestBodies {
    /// Paths of the methods that take a stream.
    streams: HashSet<String>,
    timeout: Duration,
    first_bytes: Pool,
    further_bytes: Pool,
}

impl RequestBodies {
    pub(super) fn new(limits: &Limits) -> Self {
        let sets = [
            FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET,
            tonic_reflection::pb::v1alpha::FILE_DESCRIPTOR_SET,
        ];
        let files = sets.iter().flat_map(|set| prost_types::FileDescriptorSet::decode(*set).unwrap_or_default().file);
        let mut streams = HashSet::new();
        for file in files {
            for service in &file.service {
                for method in service.method.iter().filter(|method| method.client_streaming()) {
                    streams.insert(format!("/{}.{}/{}", file.package(), service.name(), method.name()));
                }
            }
        }
        let first = limits.request_memory / FIRST_BYTES_SHARE;
        Self {
            streams,
            timeout: limits.request_body,
            first_bytes: Pool::new(first),
            further_bytes: Pool::new(limits.request_memory - first),
        }
    }
}

/// Middleware that enforces the limits. What a body uses is given back when its call is answered.
pub(super) async fn limit_request_bodies(State(bodies): State<Arc<RequestBodies>>, mut request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    // Only requests from inside the process have no caller.
    let caller = Caller::of(request.extensions()).map_or(IpAddr::V4(Ipv4Addr::LOCALHOST), |caller| caller.address().ip());
    let network = client_network(caller);
    if bodies.streams.contains(request.uri().path()) {
        request.extensions_mut().insert(RequestMemory { bodies: Arc::clone(&bodies), network });
        let (timeout, charge) = (bodies.timeout, Charge::new(bodies, network));
        return next.run(request.map(|inner| Body::new(StreamBody::new(inner, timeout, charge)))).await;
    }
    let deadline = Instant::now() + bodies.timeout;
    let charge = Arc::new(Charge::new(bodies, network));
    let limited = |inner| Body::new(LimitedBody { inner, deadline, expired: None, charge: Arc::clone(&charge) });
    next.run(request.map(limited)).await
}

/// The memory for requests, in the extensions of a request with a stream of messages: for handlers that keep messages until they are answered.
#[derive(Clone)]
pub struct RequestMemory {
    bodies: Arc<RequestBodies>,
    network: IpAddr,
}

impl fmt::Debug for RequestMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RequestMemory").field("network", &self.network).finish_non_exhaustive()
    }
}

impl RequestMemory {
    /// `None`: the request is not a stream, or comes from inside the process.
    pub fn of(extensions: &Extensions) -> Option<&Self> {
        extensions.get()
    }

    /// Counts `bytes` until the result is dropped.
    ///
    /// # Errors
    /// `OVERLOADED` when the requests of all callers, or of this one, use as much as they may.
    pub fn hold(&self, bytes: usize) -> Result<HeldMemory, Status> {
        let charge = Charge::new(Arc::clone(&self.bodies), self.network);
        charge.add(bytes)?;
        Ok(HeldMemory(charge))
    }
}

/// See [`RequestMemory::hold`].
pub struct HeldMemory(#[expect(dead_code, reason = "it is given back when this is dropped")] Charge);

impl fmt::Debug for HeldMemory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HeldMemory").finish_non_exhaustive()
    }
}

/// Memory for bodies.
struct Pool {
    limit: usize,
    used: Mutex<Used>,
}

#[derive(Default)]
struct Used {
    bytes: usize,
    by_network: HashMap<IpAddr, usize>,
}

impl Pool {
    fn new(limit: usize) -> Self {
        Self { limit, used: Mutex::default() }
    }

    /// Whether these bytes fit; then they are used.
    fn take(&self, network: IpAddr, bytes: usize) -> bool {
        if bytes == 0 {
            return true;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        let of_network = used.by_network.get(&network).copied().unwrap_or(0) + bytes;
        if used.bytes + bytes > self.limit || of_network > self.limit / CALLER_SHARE {
            return false;
        }
        used.bytes += bytes;
        used.by_network.insert(network, of_network);
        true
    }

    fn give_back(&self, network: IpAddr, bytes: usize) {
        if bytes == 0 {
            return;
        }
        let mut used = self.used.lock().unwrap_or_else(PoisonError::into_inner);
        used.bytes -= bytes;
        if let Some(of_network) = used.by_network.get_mut(&network) {
            *of_network -= bytes;
            if *of_network == 0 {
                used.by_network.remove(&network);
            }
        }
    }
}

/// What one body uses; given back when both it and its call have ended.
struct Charge {
    bodies: Arc<RequestBodies>,
    network: IpAddr,
    bytes: AtomicUsize,
}

impl Charge {
    fn new(bodies: Arc<RequestBodies>, network: IpAddr) -> Self {
        Self { bodies, network, bytes: AtomicUsize::new(0) }
    }

    /// So many bytes are used in all.
    fn grow_to(&self, bytes: usize) -> Result<(), Status> {
        match bytes.saturating_sub(self.bytes.load(Ordering::Relaxed)) {
            0 => Ok(()),
            more => self.add(more),
        }
    }

    /// Nothing is used any more.
    fn give_back(&mut self) {
        let bytes = std::mem::take(self.bytes.get_mut());
        self.bodies.first_bytes.give_back(self.network, bytes.min(FIRST_BYTES));
        self.bodies.further_bytes.give_back(self.network, bytes.saturating_sub(FIRST_BYTES));
    }

    fn add(&self, bytes: usize) -> Result<(), Status> {
        let before = self.bytes.load(Ordering::Relaxed);
        let after = before.saturating_add(bytes);
        let first = after.min(FIRST_BYTES) - before.min(FIRST_BYTES);
        let refuse = || {
            Err(Reason::Overloaded
                .status("this server holds as many bytes of unfinished requests as it may; try again in a moment"))
        };
        if !self.bodies.first_bytes.take(self.network, first) {
            return refuse();
        }
        if !self.bodies.further_bytes.take(self.network, bytes - first) {
            self.bodies.first_bytes.give_back(self.network, first);
            return refuse();
        }
        self.bytes.store(after, Ordering::Relaxed);
        Ok(())
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.give_back();
    }
}

fn too_slow(timeout: Duration) -> Status {
    Reason::RequestTimeout.status(format!("the request did not arrive within {timeout:?}; send it at once"))
}

/// A body that ends with an error when it takes too long or too much.
struct LimitedBody {
    inner: Body,
    deadline: Instant,
    /// Made when the body is first waited for.
    expired: Option<Pin<Box<Sleep>>>,
    charge: Arc<Charge>,
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            let Some(frame) = frame else { return Poll::Ready(None) };
            let charged = frame.map_err(Into::into).and_then(|frame| {
                this.charge.add(frame.data_ref().map_or(0, Bytes::len))?;
                Ok(frame)
            });
            return Poll::Ready(Some(charged));
        }
        let expired = this.expired.get_or_insert_with(|| Box::pin(sleep_until(this.deadline)));
        if expired.as_mut().poll(cx).is_ready() {
            return Poll::Ready(Some(Err(too_slow(this.charge.bodies.timeout).into())));
        }
        Poll::Pending
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests;
