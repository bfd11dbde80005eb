//! Limits of request bodies: how long one may take to arrive, and how much memory all of them may use.
//!
//! A request of one message is kept in memory until its last byte is there. Without a limit for all of them, the streams of all
//! connections together may ask for terabytes; without a time limit, for ever. Of a stream of messages the one that is not whole is limited
//! so; each is handled as it arrives, and a method that keeps messages for a while counts them itself ([`RequestMemory`]).

mod memory;
mod unfinished;

use self::{
    memory::{Charge, Memory},
    unfinished::Position,
};
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
    let charge = Arc::new(Charge::new(Arc::clone(&bodies.memory), network));
    let mut position = None;
    if bodies.streams.contains(request.uri().path()) {
        request.extensions_mut().insert(RequestMemory { memory: Arc::clone(&bodies.memory), network });
        position = Some(Position::default());
    }
    let timeout = bodies.timeout;
    // The body of one message is waited for from now on.
    let deadline = position.is_none().then(|| Instant::now() + timeout);
    let limited =
        |inner| Body::new(LimitedBody { inner, position, timeout, deadline, expired: None, charge: Arc::clone(&charge) });
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
        let charge = Charge::of_kept(Arc::clone(&self.memory), self.network);
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

/// A body that ends with an error when it takes too long or too much: all of it, or of a stream of messages the one that is not whole.
struct LimitedBody {
    inner: Body,
    /// `None`: it is one message.
    position: Option<Position>,
    timeout: Duration,
    /// When what is waited for must be there; `None`: nothing is waited for yet.
    deadline: Option<Instant>,
    /// Made when it is first waited for.
    expired: Option<Pin<Box<Sleep>>>,
    charge: Arc<Charge>,
}

impl LimitedBody {
    /// Counts what has arrived.
    fn count(&mut self, data: &[u8]) -> Result<(), Status> {
        let Some(position) = &mut self.position else { return self.charge.add(data.len()) };
        if position.advance(data) {
            (self.deadline, self.expired) = (None, None);
            self.charge.give_back();
        }
        self.charge.grow_to(position.unfinished())
    }

    /// Whether there is a message that is not whole.
    fn is_awaited(&self) -> bool {
        self.position.as_ref().is_none_or(|position| position.unfinished() > 0)
    }
}

impl http_body::Body for LimitedBody {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        let this = &mut *self;
        if let Poll::Ready(frame) = Pin::new(&mut this.inner).poll_frame(cx) {
            let Some(frame) = frame else { return Poll::Ready(None) };
            let counted = frame.map_err(Into::into).and_then(|frame| {
                this.count(frame.data_ref().map_or(&[][..], |data| data))?;
                Ok(frame)
            });
            return Poll::Ready(Some(counted));
        }
        if this.is_awaited() {
            let deadline = *this.deadline.get_or_insert_with(|| Instant::now() + this.timeout);
            if this.expired.get_or_insert_with(|| Box::pin(sleep_until(deadline))).as_mut().poll(cx).is_ready() {
                let message = format!("the request did not arrive within {:?}; send it at once", this.timeout);
                return Poll::Ready(Some(Err(Reason::RequestTimeout.status(message).into())));
            }
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
