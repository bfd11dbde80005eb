//! The W3C trace context of calls, in gRPC metadata: a client sends its current span along, a server makes its span a child of the
//! caller's. Without the feature `telemetry` nothing is sent or read.

use tonic::{Request, Status, service::Interceptor};

/// Adds the current span's trace context to every call of a client, if traces are exported ([`crate::telemetry`]).
#[derive(Debug, Clone, Copy)]
pub struct Propagate;

impl Interceptor for Propagate {
    fn call(&mut self, request: Request<()>) -> Result<Request<()>, Status> {
        #[cfg(feature = "telemetry")]
        let request = w3c::inject(request);
        Ok(request)
    }
}

/// The span of a call that is being served, a child of the caller's if the caller sent a trace context. Costs nothing while no
/// subscriber takes it.
#[cfg(feature = "server")]
pub(crate) fn server_span(method: &str, headers: &http::HeaderMap) -> tracing::Span {
    let span = tracing::debug_span!(
        target: "p2pdi::rpc",
        "rpc",
        otel.name = method,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.grpc.status_code = tracing::field::Empty,
    );
    #[cfg(feature = "telemetry")]
    w3c::set_parent(&span, headers);
    #[cfg(not(feature = "telemetry"))]
    let _ = headers;
    span
}

#[cfg(feature = "telemetry")]
pub(crate) use w3c::enable;

#[cfg(feature = "telemetry")]
mod w3c {
    use opentelemetry::propagation::{Injector, TextMapPropagator as _};
    use opentelemetry_sdk::propagation::TraceContextPropagator;
    use std::sync::atomic::{AtomicBool, Ordering};
    use tonic::{
        Request,
        metadata::{MetadataKey, MetadataMap, MetadataValue},
    };
    use tracing::Span;
    use tracing_opentelemetry::OpenTelemetrySpanExt as _;

    /// Whether spans leave this process. Without it no call pays for a trace context.
    static ENABLED: AtomicBool = AtomicBool::new(false);

    pub(crate) fn enable() {
        ENABLED.store(true, Ordering::Relaxed);
    }

    pub(super) fn inject(mut request: Request<()>) -> Request<()> {
        if ENABLED.load(Ordering::Relaxed) {
            TraceContextPropagator::new().inject_context(&Span::current().context(), &mut Outgoing(request.metadata_mut()));
        }
        request
    }

    struct Outgoing<'a>(&'a mut MetadataMap);

    impl Injector for Outgoing<'_> {
        fn set(&mut self, key: &str, value: String) {
            if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value)) {
                self.0.insert(key, value);
            }
        }
    }

    #[cfg(feature = "server")]
    pub(super) fn set_parent(span: &Span, headers: &http::HeaderMap) {
        if !ENABLED.load(Ordering::Relaxed) {
            return;
        }
        let context = TraceContextPropagator::new().extract(&Incoming(headers));
        if let Err(error) = span.set_parent(context) {
            tracing::trace!(%error, "the span of a call has no parent");
        }
    }

    #[cfg(feature = "server")]
    struct Incoming<'a>(&'a http::HeaderMap);

    #[cfg(feature = "server")]
    impl opentelemetry::propagation::Extractor for Incoming<'_> {
        fn get(&self, key: &str) -> Option<&str> {
            self.0.get(key)?.to_str().ok()
        }

        fn keys(&self) -> Vec<&str> {
            self.0.keys().map(http::HeaderName::as_str).collect()
        }
    }
}
