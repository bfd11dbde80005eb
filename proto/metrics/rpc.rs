//! Every call of the contract's methods counts, is timed, and has a span in its caller's trace.

use super::{Metrics, methods::methods_of};
use crate::{
    server::Caller,
    status::{self, Reason},
};
use bytes::Bytes;
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use metrics::{Counter, Histogram};
use std::{
    collections::HashMap,
    pin::Pin,
    sync::{Arc, OnceLock},
    task::{Context, Poll, ready},
    time::Instant,
};
use tonic::{Code, Status};
use tower::{Layer, Service};

/// What tonic's error says about a request larger than `max_decoding_message_size`.
const TOO_LARGE: &str = "message length too large";

/// Counts and times every call of some services, and gives each a span in its caller's trace. A call that the caller gives up counts as
/// an error with the reason `CANCELLED`; one whose answer is ended because nobody reads it, with the reason for that.
#[derive(Clone)]
pub struct RpcLayer {
    methods: Arc<HashMap<String, Arc<Method>>>,
}

impl RpcLayer {
    /// For those services of the contract whose full names are in `served`.
    pub fn new(metrics: &Metrics, served: &[&str]) -> Self {
        let methods = methods_of(served).into_iter().map(|name| (format!("/{name}"), Arc::new(Method::new(metrics, name))));
        Self { methods: Arc::new(methods.collect()) }
    }
}

struct Method {
    name: String,
    metrics: Metrics,
    handled: Counter,
    latency: Histogram,
}

impl Method {
    fn new(metrics: &Metrics, name: String) -> Self {
        let labels = [("method", name.as_str())];
        let handled = metrics.counter("p2pdi_rpc_handled_total", "Calls that ended without an error, by method", &labels);
        let latency = metrics.histogram(super::LATENCY, "Time until a call's answer began, by method", &labels);
        Self { metrics: metrics.clone(), handled, latency, name }
    }

    /// Counts a call by its headers or trailers, which have a status. The reason is the contract's, or else the name of the code.
    fn count(&self, headers: &HeaderMap) {
        match Status::from_header_map(headers) {
            Some(ended) if ended.code() == Code::Ok => self.handled.increment(1),
            Some(ended) => self.count_error(Reason::of(&ended).map_or(status::code_name(ended.code()), Reason::as_str)),
            None => self.count_error(status::code_name(Code::Unknown)),
        }
    }

    fn count_error(&self, reason: &str) {
        let labels = [("method", self.name.as_str()), ("reason", reason)];
        let help = "Calls that ended with an error, at once or later, by method and reason";
        self.metrics.counter("p2pdi_rpc_refused_total", help, &labels).increment(1);
    }
}

impl<S> Layer<S> for RpcLayer {
    type Service = RpcService<S>;

    fn layer(&self, inner: S) -> RpcService<S> {
        RpcService { inner, methods: Arc::clone(&self.methods) }
    }
}

/// See [`RpcLayer`].
#[derive(Clone)]
pub struct RpcService<S> {
    inner: S,
    methods: Arc<HashMap<String, Arc<Method>>>,
}

impl<S, B, R> Service<Request<B>> for RpcService<S>
where
    S: Service<Request<B>, Response = Response<R>>,
    S::Future: Send + 'static,
    S::Error: 'static,
    R: 'static,
{
    type Response = Response<RpcBody<R>>;
    type Error = S::Error;
    type Future = RpcFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        let method = self.methods.get(request.uri().path()).cloned();
        let span = match &method {
            Some(method) => crate::trace_context::server_span(&method.name, request.headers()),
            None => tracing::Span::none(),
        };
        let ended_for = request.extensions_mut().get_mut::<Caller>().map(Caller::begin_call);
        let inner = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        RpcFuture { inner: Box::pin(inner), started: Instant::now(), call: Some(Call { method, ended_for, span }) }
    }
}

/// A call that has not ended. Dropped before its end, the caller has given it up.
struct Call {
    /// `None` once it is counted, and for a method that is not.
    method: Option<Arc<Method>>,
    /// Why its answer was ended early, if not by the caller.
    ended_for: Option<Arc<OnceLock<Reason>>>,
    span: tracing::Span,
}

impl Call {
    fn ended(&mut self, headers: &HeaderMap) {
        let Some(method) = self.method.take() else { return };
        method.count(headers);
        if let Some(code) = headers.get(Status::GRPC_STATUS).and_then(|code| code.to_str().ok()) {
            self.span.record("rpc.grpc.status_code", code);
        }
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if let Some(method) = self.method.take() {
            let reason = self.ended_for.as_ref().and_then(|reason| reason.get());
            method.count_error(reason.map_or(status::code_name(Code::Cancelled), |reason| reason.as_str()));
        }
    }
}

/// See [`RpcLayer`].
pub struct RpcFuture<F> {
    inner: Pin<Box<F>>,
    started: Instant,
    call: Option<Call>,
}

impl<F, R, E> Future for RpcFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<RpcBody<R>>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut answer = {
            let _entered = this.call.as_ref().map(|call| call.span.enter());
            ready!(this.inner.as_mut().poll(cx))?
        };
        with_reason(answer.headers_mut());
        let mut call = this.call.take();
        if let Some(call) = &mut call {
            if let Some(method) = &call.method {
                method.latency.record(this.started.elapsed().as_secs_f64());
            }
            // An error before the first message is in the headers; everything else ends with trailers.
            if answer.headers().contains_key(Status::GRPC_STATUS) {
                call.ended(answer.headers());
            }
        }
        Poll::Ready(Ok(answer.map(|inner| RpcBody { inner, call })))
    }
}

/// Replaces tonic's refusal of a request that is too large (`OUT_OF_RANGE` without an `ErrorInfo`) by the contract's.
fn with_reason(headers: &mut HeaderMap) {
    if headers.get(Status::GRPC_STATUS).is_none_or(|code| code.as_bytes() != b"11") {
        return;
    }
    let Some(status) = Status::from_header_map(headers).filter(|status| status.details().is_empty()) else { return };
    if !status.message().contains(TOO_LARGE) {
        return;
    }
    let said = format!("the request is larger than this server takes ({}); send less", status.message());
    // Fails for a message that is no header value; this one is escaped.
    let _written = Reason::MessageTooLarge.status(said).add_header(headers);
}

/// See [`RpcLayer`].
pub struct RpcBody<R> {
    inner: R,
    call: Option<Call>,
}

impl<R: Body<Data = Bytes> + Unpin> Body for RpcBody<R> {
    type Data = Bytes;
    type Error = R::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, R::Error>>> {
        let this = &mut *self;
        let Some(call) = &mut this.call else { return Pin::new(&mut this.inner).poll_frame(cx) };
        let frame = {
            let _entered = call.span.enter();
            ready!(Pin::new(&mut this.inner).poll_frame(cx))
        };
        match &frame {
            Some(Ok(frame)) => {
                if let Some(trailers) = frame.trailers_ref() {
                    call.ended(trailers);
                }
            }
            Some(Err(_)) => {}
            None => call.ended(&HeaderMap::new()),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
