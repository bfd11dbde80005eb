//! Metrics in Prometheus's text format. Each server has its own set, so that several can run in one process.

use crate::{status::Reason, v1::FILE_DESCRIPTOR_SET};
use http::{HeaderMap, Request, Response};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use prost::Message as _;
use std::{
    collections::HashMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Instant,
};
use tonic::Status;
use tower::{Layer, Service};

/// Upper bounds of the latency histogram's buckets, in seconds: from a call over loopback to a slow disk.
const LATENCY_BUCKETS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
const LATENCY: &str = "p2pdi_rpc_duration_seconds";

/// What tonic's error says about a request larger than `max_decoding_message_size`.
const TOO_LARGE: &str = "message length too large";

const METADATA: Metadata<'static> = Metadata::new("p2pdi", Level::INFO, None);

/// The metrics of one server.
#[derive(Clone)]
pub struct Metrics {
    recorder: Arc<PrometheusRecorder>,
    handle: PrometheusHandle,
}

impl Default for Metrics {
    fn default() -> Self {
        let builder = PrometheusBuilder::new();
        // Fails for an empty list of buckets only.
        let builder = builder
            .set_buckets_for_metric(Matcher::Full(LATENCY.to_owned()), &LATENCY_BUCKETS)
            .unwrap_or_else(|_| PrometheusBuilder::new());
        let recorder = builder.build_recorder();
        Self { handle: recorder.handle(), recorder: Arc::new(recorder) }
    }
}

impl Metrics {
    /// A counter; it only grows.
    pub fn counter(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Counter {
        self.recorder.describe_counter(KeyName::from_const_str(name), Some(Unit::Count), help.into());
        self.recorder.register_counter(&key(name, labels), &METADATA)
    }

    /// A gauge; it goes up and down.
    pub fn gauge(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Gauge {
        self.recorder.describe_gauge(KeyName::from_const_str(name), None, help.into());
        self.recorder.register_gauge(&key(name, labels), &METADATA)
    }

    /// A histogram.
    pub fn histogram(&self, name: &'static str, help: &'static str, labels: &[(&'static str, &str)]) -> Histogram {
        self.recorder.describe_histogram(KeyName::from_const_str(name), None, help.into());
        self.recorder.register_histogram(&key(name, labels), &METADATA)
    }

    /// All metrics, in Prometheus's text format.
    pub fn render(&self) -> String {
        self.handle.render()
    }

    /// Folds samples into the histograms; to be called every few seconds, or unscraped samples pile up.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }

    /// Counts and times every call of the contract's services, and gives each a span in its caller's trace.
    pub fn rpc_layer(&self) -> RpcLayer {
        RpcLayer { methods: Arc::new(self.methods()) }
    }

    fn methods(&self) -> HashMap<String, Arc<Method>> {
        let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap_or_default();
        let mut methods = HashMap::new();
        for file in set.file.iter().filter(|file| file.package() == "p2pdi.v1") {
            for service in &file.service {
                for method in &service.method {
                    let path = format!("/p2pdi.v1.{}/{}", service.name(), method.name());
                    let name = format!("p2pdi.v1.{}/{}", service.name(), method.name());
                    let labels = [("method", name.as_str())];
                    let known = Method {
                        handled: self.counter("p2pdi_rpc_handled_total", "Calls answered, by method", &labels),
                        refused: self.counter(
                            "p2pdi_rpc_refused_total",
                            "Calls that ended at once with an error, by method",
                            &labels,
                        ),
                        latency: self.histogram(LATENCY, "Time until a call's answer began, by method", &labels),
                        name,
                    };
                    methods.insert(path, Arc::new(known));
                }
            }
        }
        methods
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<_> = labels.iter().map(|(k, v)| Label::new(*k, (*v).to_owned())).collect();
    Key::from_parts(name, labels)
}

struct Method {
    name: String,
    handled: Counter,
    refused: Counter,
    latency: Histogram,
}

/// See [`Metrics::rpc_layer`].
#[derive(Clone)]
pub struct RpcLayer {
    methods: Arc<HashMap<String, Arc<Method>>>,
}

impl<S> Layer<S> for RpcLayer {
    type Service = RpcService<S>;

    fn layer(&self, inner: S) -> RpcService<S> {
        RpcService { inner, methods: Arc::clone(&self.methods) }
    }
}

/// See [`Metrics::rpc_layer`].
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
    type Response = Response<R>;
    type Error = S::Error;
    type Future = RpcFuture<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let method = self.methods.get(request.uri().path()).cloned();
        let span = match &method {
            Some(method) => crate::trace_context::server_span(&method.name, request.headers()),
            None => tracing::Span::none(),
        };
        let inner = {
            let _entered = span.enter();
            self.inner.call(request)
        };
        RpcFuture { inner: Box::pin(inner), span, started: Instant::now(), method }
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

/// See [`Metrics::rpc_layer`].
pub struct RpcFuture<F> {
    inner: Pin<Box<F>>,
    span: tracing::Span,
    started: Instant,
    method: Option<Arc<Method>>,
}

impl<F, R, E> Future for RpcFuture<F>
where
    F: Future<Output = Result<Response<R>, E>>,
{
    type Output = Result<Response<R>, E>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        let mut answer = {
            let _entered = this.span.enter();
            ready!(this.inner.as_mut().poll(cx))
        };
        if let Ok(answer) = &mut answer {
            with_reason(answer.headers_mut());
        }
        if let Some(method) = &this.method {
            method.latency.record(this.started.elapsed().as_secs_f64());
            // An error before the first message is in the headers; a later one is in the trailers.
            let code = answer.as_ref().ok().and_then(|answer| answer.headers().get("grpc-status"));
            let refused = answer.is_err() || code.is_some_and(|code| code.as_bytes() != b"0");
            if refused { &method.refused } else { &method.handled }.increment(1);
            if let Some(code) = code.and_then(|code| code.to_str().ok()) {
                this.span.record("rpc.grpc.status_code", code);
            }
        }
        Poll::Ready(answer)
    }
}
