//! Logs to standard error; traces to an OTLP endpoint when the standard `OTEL_*` variables ask for them; the W3C trace
//! context through gRPC metadata.

use opentelemetry::{
    propagation::{Extractor, Injector, TextMapPropagator as _},
    trace::TracerProvider as _,
};
use opentelemetry_sdk::{Resource, propagation::TraceContextPropagator, trace::SdkTracerProvider};
use std::{
    env,
    io::{IsTerminal as _, stderr},
    sync::atomic::{AtomicBool, Ordering},
};
use tonic::{
    Request, Status,
    metadata::{MetadataKey, MetadataMap, MetadataValue},
    service::Interceptor,
};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt as _;
use tracing_subscriber::{EnvFilter, Layer as _, layer::SubscriberExt as _, util::SubscriberInitExt as _};

/// Whether spans leave this process. Without it no call pays for a trace context.
static EXPORTING: AtomicBool = AtomicBool::new(false);

/// Keeps the exporter; [`Telemetry::finish`] sends what is left.
#[derive(Debug, Default)]
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
}

/// Why logs or traces cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("cannot read the log filter {filter:?}: {source}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        source: tracing_subscriber::filter::ParseError,
    },
    /// The `OTEL_*` variables ask for something that cannot be.
    #[error("cannot export traces as the OTEL_* variables ask: {0}")]
    Exporter(String),
    /// Something else set up logs before.
    #[error("logs are set up already")]
    Twice,
}

/// Sets up logs and traces of a program. `filter` is what `--log` or `RUST_LOG` said, such as `info,p2pdi=debug`.
/// Call it inside the tokio runtime, once a process.
///
/// # Errors
/// When the filter cannot be read or the exporter cannot be made.
pub fn init(program: &'static str, filter: &str) -> Result<Telemetry, TelemetryError> {
    let filter = EnvFilter::try_new(filter).map_err(|source| TelemetryError::Filter { filter: filter.to_owned(), source })?;
    let logs = tracing_subscriber::fmt::layer().with_writer(stderr).with_ansi(stderr().is_terminal()).with_filter(filter);
    let provider = export_wanted().then(|| provider(program)).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(program))
            // Our own spans only: the exporter's HTTP/2 would trace itself.
            .with_filter(EnvFilter::new("off,p2pdi=debug,registry=debug,peerd=debug,p2pctl=debug"))
    });
    tracing_subscriber::registry().with(logs).with(spans).try_init().map_err(|_| TelemetryError::Twice)?;
    EXPORTING.store(provider.is_some(), Ordering::Relaxed);
    Ok(Telemetry { provider })
}

impl Telemetry {
    /// Sends the spans that wait. Bounded by the exporter's own timeout.
    pub async fn finish(self) {
        let Some(provider) = self.provider else {
            return;
        };
        // It blocks, and needs the runtime's threads meanwhile.
        let done = tokio::task::spawn_blocking(move || provider.shutdown()).await;
        if let Ok(Err(error)) = done {
            tracing::warn!(%error, "some traces could not be sent");
        }
    }
}

/// An endpoint is given, and nothing says no (OpenTelemetry specification, "Environment variables").
fn export_wanted() -> bool {
    let set = |name| env::var(name).is_ok_and(|value| !value.is_empty());
    let says = |name, word: &str| env::var(name).is_ok_and(|value| value.eq_ignore_ascii_case(word));
    let endpoint = set("OTEL_EXPORTER_OTLP_ENDPOINT") || set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    (endpoint || says("OTEL_TRACES_EXPORTER", "otlp"))
        && !says("OTEL_TRACES_EXPORTER", "none")
        && !says("OTEL_SDK_DISABLED", "true")
}

fn provider(program: &'static str) -> Result<SdkTracerProvider, TelemetryError> {
    let protocol = env::var("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL").or_else(|_| env::var("OTEL_EXPORTER_OTLP_PROTOCOL"));
    if let Some(other) = protocol.ok().filter(|protocol| protocol != "grpc") {
        return Err(TelemetryError::Exporter(format!(
            "protocol {other:?} is not built in; set OTEL_EXPORTER_OTLP_PROTOCOL=grpc"
        )));
    }
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_tonic()
        .build()
        .map_err(|error| TelemetryError::Exporter(error.to_string()))?;
    // OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES are read by the builder; the program's name is the default.
    let named = env::var("OTEL_SERVICE_NAME").is_ok()
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name"));
    let resource = if named { Resource::builder() } else { Resource::builder().with_service_name(program) };
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

/// The span of a call being served, a child of the caller's if it sent a trace context. Costs nothing while nobody listens.
pub fn server_span(method: &str, headers: &http::HeaderMap) -> Span {
    let span = tracing::debug_span!(
        target: "p2pdi::rpc",
        "rpc",
        otel.name = method,
        otel.kind = "server",
        rpc.system = "grpc",
        rpc.grpc.status_code = tracing::field::Empty,
    );
    if EXPORTING.load(Ordering::Relaxed) {
        let context = TraceContextPropagator::new().extract(&Headers(headers));
        if let Err(error) = span.set_parent(context) {
            tracing::trace!(%error, "a span without its caller's");
        }
    }
    span
}

struct Headers<'a>(&'a http::HeaderMap);

impl Extractor for Headers<'_> {
    fn get(&self, key: &str) -> Option<&str> {
        self.0.get(key)?.to_str().ok()
    }

    fn keys(&self) -> Vec<&str> {
        self.0.keys().map(http::HeaderName::as_str).collect()
    }
}

/// Adds the current span's W3C trace context to every call of a client.
#[derive(Debug, Clone, Copy)]
pub struct Propagate;

impl Interceptor for Propagate {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if EXPORTING.load(Ordering::Relaxed) {
            TraceContextPropagator::new().inject_context(&Span::current().context(), &mut Carrier(request.metadata_mut()));
        }
        Ok(request)
    }
}

struct Carrier<'a>(&'a mut MetadataMap);

impl Injector for Carrier<'_> {
    fn set(&mut self, key: &str, value: String) {
        if let (Ok(key), Ok(value)) = (MetadataKey::from_bytes(key.as_bytes()), MetadataValue::try_from(value)) {
            self.0.insert(key, value);
        }
    }
}
