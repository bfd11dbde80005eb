//! Limits of request bodies: how long one may take to arrive, and how much memory all of them may use.
//!
//! A request of one message is kept in memory until its last byte is there. Without a limit for all of them, the streams of all
//! connections together may ask for terabytes; without a time limit, for ever. Of a stream of messages the one that is not whole is limited
//! so; each is handled as it arrives, and a method that keeps messages for a while counts them itself ([`RequestMemory`]).

mod memory;
mod unfinished;

use self::{
    memory::{Charge, Memory},
    unfinished::{StreamBody, too_slow},
};
use super::{Caller, Limits};
use crate::{endpoint::client_network, v1::FILE_DESCRIPTOR_SET};
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
    collections::HashSet,
    fmt,
    net::{IpAddr, Ipv4Addr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};
use tokio::time::{Instant, Sleep, sleep_until};
use tonic::Status;

/// The limits, and what is used of them.
pub(super) struct RequestBodies {
    /// Paths of the methods that take a stream.
    streams: HashSet<String>,
    timeout: Duration,
    memory: Arc<Memory>,
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
        Self { streams, timeout: limits.request_body, memory: Arc::new(Memory::new(limits.request_memory)) }
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
        request.extensions_mut().insert(RequestMemory { memory: Arc::clone(&bodies.memory), network });
        let (timeout, charge) = (bodies.timeout, Charge::new(Arc::clone(&bodies.memory), network));
        return next.run(request.map(|inner| Body::new(StreamBody::new(inner, timeout, charge)))).await;
    }
    let deadline = Instant::now() + bodies.timeout;
    let (timeout, charge) = (bodies.timeout, Arc::new(Charge::new(Arc::clone(&bodies.memory), network)));
    let limited = |inner| Body::new(LimitedBody { inner, deadline, timeout, expired: None, charge: Arc::clone(&charge) });
    next.run(request.map(limited)).await
}

/// The memory for requests, in the extensions of a request with a stream of messages: for handlers that keep messages until they are answered.
#[derive(Clone)]
pub struct RequestMemory {
    memory: Arc<Memory>,
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
        let charge = Charge::new(Arc::clone(&self.memory), self.network);
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

/// A body that ends with an error when it takes too long or too much.
struct LimitedBody {
    inner: Body,
    deadline: Instant,
    timeout: Duration,
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
            return Poll::Ready(Some(Err(too_slow(this.timeout).into())));
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
