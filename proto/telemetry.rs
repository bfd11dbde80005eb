//! Logs to standard error, and traces to an OTLP endpoint when the standard `OTEL_*` variables ask for them.
//!
//! A program calls [`init`]. A program that embeds a peer or a registry has its own subscriber, and adds the layer of
//! [`trace_export`] to it; one that exports its spans itself, through `tracing-opentelemetry`, only calls [`propagate`].

mod logs;

pub use logs::{LogFormat, UnknownLogFormat};

use crate::trace_context;
use logs::LogQueue;
use opentelemetry::trace::TracerProvider as _;
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use std::{env, io::stderr, sync::Arc, time::Duration};
use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer, Registry, fmt::writer::BoxMakeWriter, layer::SubscriberExt as _, registry::LookupSpan, reload,
    util::SubscriberInitExt as _,
};

/// How long the last spans of a client may take to be sent. A collector is near: connecting and sending take three round trips, so 80 ms
/// each fit. A person waits for the prompt meanwhile.
const CLIENT_EXPORT_TIMEOUT: Duration = Duration::from_millis(250);
/// How long the last spans of a server may take to be sent: they are more, and nobody waits for a prompt. Kubernetes gives 30 s for the
/// whole stop.
const SERVER_EXPORT_TIMEOUT: Duration = Duration::from_secs(1);
/// How long the last log lines may take to be written to standard error. Its reader may have stopped for good.
const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// What kind of program logs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Runs one command and ends. Its log lines are in order with what it says otherwise; it waits until they are written.
    Client,
    /// Serves others, so it never waits for the reader of its log; lines that are not read in time are dropped and counted. A panic is a
    /// line of the log.
    Server,
}

/// Which log lines are written, and how.
#[derive(Debug, Clone, Copy)]
pub struct LogOptions<'a> {
    /// What `--log` or `RUST_LOG` says, such as `info,p2pdi=debug`.
    pub filter: &'a str,
    /// Form of the lines.
    pub format: LogFormat,
}

/// Changes which log lines are written, while the program runs.
#[derive(Debug, Clone, Default)]
pub struct LogFilter(Option<reload::Handle<EnvFilter, Registry>>);

impl LogFilter {
    /// Checks a filter without using it.
    ///
    /// # Errors
    /// When it cannot be read.
    pub fn check(filter: &str) -> Result<(), TelemetryError> {
        read_filter(filter).map(drop)
    }

    /// Uses another filter from now on.
    ///
    /// # Errors
    /// When it cannot be read; then the one from before stays.
    pub fn set(&self, filter: &str) -> Result<(), TelemetryError> {
        let filter = read_filter(filter)?;
        match &self.0 {
            // Fails when the subscriber is gone, and with it the log.
            Some(handle) => handle.reload(filter).map_err(|_| TelemetryError::Twice),
            None => Ok(()),
        }
    }
}

fn read_filter(filter: &str) -> Result<EnvFilter, TelemetryError> {
    logs::read_filter(filter).map_err(|problem| TelemetryError::Filter { filter: filter.to_owned(), problem })
}

/// Keeps the exporter and the queue of log lines; [`Telemetry::finish`] sends and writes what is left.
pub struct Telemetry {
    provider: Option<SdkTracerProvider>,
    export_timeout: Duration,
    logs: Option<Arc<LogQueue>>,
    filter: LogFilter,
}

/// Why logs or traces cannot be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter has a syntax error, or a misspelt level.
    #[error("cannot read the log filter {filter:?}: {problem}")]
    Filter {
        /// What was given.
        filter: String,
        /// What is wrong with it.
        problem: String,
    },
    /// The exporter that the `OTEL_*` variables ask for cannot be made.
    #[error("cannot export traces as the OTEL_* variables ask: {0}")]
    Exporter(String),
    /// The process has a global subscriber already.
    #[error("logs are set up already")]
    Twice,
}

/// Sets up logs and traces of a program: the global subscriber. Call it inside the tokio runtime, once in a process.
///
/// # Errors
/// When the filter cannot be read, the exporter cannot be made, or there is a global subscriber already.
pub fn init(program: &'static str, role: Role, options: LogOptions<'_>) -> Result<Telemetry, TelemetryError> {
    let (filter, handle) = reload::Layer::new(read_filter(options.filter)?);
    let (spans, mut telemetry) = exporter(program)?;
    telemetry.filter = LogFilter(Some(handle));
    let writer = match role {
        Role::Client => {
            telemetry.export_timeout = CLIENT_EXPORT_TIMEOUT;
            BoxMakeWriter::new(stderr)
        }
        Role::Server => telemetry.logs.insert(Arc::new(LogQueue::start())).writer(),
    };
    let logs = logs::layer(options.format, filter, writer);
    tracing_subscriber::registry().with(logs).with(spans).try_init().map_err(|_| TelemetryError::Twice)?;
    if let Some(logs) = &telemetry.logs {
        logs.log_panics();
    }
    if telemetry.provider.is_some() {
        propagate();
    }
    Ok(telemetry)
}

/// The layer that exports spans as the `OTEL_*` variables ask, for a subscriber that the caller has; `None` when they ask for nothing.
/// Calls carry the trace context from now on. Call it inside the tokio runtime; keep the [`Telemetry`] and finish it at the end.
///
/// # Errors
/// When the exporter cannot be made.
pub fn trace_export<S>(program: &'static str) -> Result<(Option<impl Layer<S>>, Telemetry), TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let (spans, telemetry) = exporter(program)?;
    if telemetry.provider.is_some() {
        propagate();
    }
    Ok((spans, telemetry))
}

/// Has calls carry the trace context from now on: clients send the current span's, servers continue the caller's trace. For programs
/// whose own subscriber has a layer of `tracing-opentelemetry`.
pub fn propagate() {
    trace_context::enable();
}

fn exporter<S>(program: &'static str) -> Result<(Option<impl Layer<S>>, Telemetry), TelemetryError>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
{
    let provider = is_export_wanted().then(|| provider(program)).transpose()?;
    let spans = provider.as_ref().map(|provider| {
        tracing_opentelemetry::layer()
            .with_tracer(provider.tracer(program))
            // Spans of this workspace only: the exporter's own HTTP/2 client would trace itself.
            .with_filter(EnvFilter::new("off,p2pdi=debug,registry=debug,peerd=debug,p2pctl=debug"))
    });
    Ok((spans, Telemetry { provider, export_timeout: SERVER_EXPORT_TIMEOUT, logs: None, filter: LogFilter::default() }))
}

impl Telemetry {
    /// Changes which log lines are written. Does nothing where [`trace_export`] made this: that program has a filter of its own.
    pub fn filter(&self) -> LogFilter {
        self.filter.clone()
    }

    /// Sends the spans that wait and writes the log lines that wait. Neither a collector nor a reader of standard error that has stopped
    /// holds it for long.
    pub async fn finish(self) {
        let Self { provider, export_timeout, logs, filter: _ } = self;
        // Both block, and the export needs the runtime's threads meanwhile.
        let done = tokio::task::spawn_blocking(move || {
            if let Some(Err(error)) = provider.map(|provider| provider.shutdown_with_timeout(export_timeout)) {
                tracing::warn!(%error, "some traces could not be sent");
            }
            if let Some(logs) = logs {
                logs.flush(LOG_FLUSH_TIMEOUT);
            }
        });
        // Fails when it panics, and then there is nobody left to tell.
        let _ended = done.await;
    }
}

/// Whether an endpoint is set and the export is not switched off (OpenTelemetry specification, "Environment Variable Specification").
fn is_export_wanted() -> bool {
    let is_set = |name| env::var(name).is_ok_and(|value| !value.is_empty());
    let equals = |name, word: &str| env::var(name).is_ok_and(|value| value.eq_ignore_ascii_case(word));
    let has_endpoint = is_set("OTEL_EXPORTER_OTLP_ENDPOINT") || is_set("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
    (has_endpoint || equals("OTEL_TRACES_EXPORTER", "otlp"))
        && !equals("OTEL_TRACES_EXPORTER", "none")
        && !equals("OTEL_SDK_DISABLED", "true")
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
    // The builder reads OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES; the program's name is the default.
    let is_named = env::var("OTEL_SERVICE_NAME").is_ok()
        || env::var("OTEL_RESOURCE_ATTRIBUTES").is_ok_and(|all| all.contains("service.name"));
    let resource = if is_named { Resource::builder() } else { Resource::builder().with_service_name(program) };
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource.build()).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_with_a_subscriber_of_its_own_adds_the_layer_to_it() {
        // Without the variables there is nothing to export.
        let (spans, telemetry) = trace_export("test").unwrap();
        let _guard = tracing::subscriber::set_default(tracing_subscriber::registry().with(spans));
        telemetry.finish().await;
    }
}
