//! Metrics in Prometheus's text format. Each server has its own set, so that several can run in one process.

mod methods;
mod rpc;
mod sent;

pub use rpc::{RpcBody, RpcFuture, RpcLayer, RpcService};
pub use sent::SentCalls;

use crate::{
    VERSION,
    log_limit::suppressed_total,
    platform::{ProcessStats, descriptor_limit},
};
use metrics::{Counter, Gauge, Histogram, Key, KeyName, Label, Level, Metadata, Recorder as _, Unit};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle, PrometheusRecorder};
use std::{fmt::Write as _, sync::Arc, time::Duration};

/// Upper bounds of the latency histogram's buckets, in seconds: from a call over loopback to a slow disk.
const LATENCY_BUCKETS: [f64; 12] = [0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0];
const LATENCY: &str = "p2pdi_rpc_duration_seconds";

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
        let metrics = Self { handle: recorder.handle(), recorder: Arc::new(recorder) };
        metrics.gauge("p2pdi_build_info", "Always 1; the labels say what runs", &[("version", VERSION)]).set(1.0);
        metrics
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

    /// All metrics, in Prometheus's text format, with those of the process.
    pub fn render(&self) -> String {
        let mut text = self.handle.render();
        render_process(&ProcessStats::read(), descriptor_limit(), &mut text);
        render_suppressed(suppressed_total(), &mut text);
        text
    }

    /// Folds samples into the histograms; to be called every few seconds, or unscraped samples pile up.
    pub fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

fn key(name: &'static str, labels: &[(&'static str, &str)]) -> Key {
    let labels: Vec<_> = labels.iter().map(|(k, v)| Label::new(*k, (*v).to_owned())).collect();
    Key::from_parts(name, labels)
}

/// Appends how many log lines of the process were left out.
fn render_suppressed(lines: u64, text: &mut String) {
    let name = "p2pdi_log_lines_suppressed_total";
    let help = "Log lines left out since callers and peers can repeat what they are about at will; see the other counters for what it was";
    // Writing to a string cannot fail.
    let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} counter\n{name} {lines}\n\n");
}

/// Appends the standard metrics of a process (Prometheus, "Writing client libraries"), as far as the system tells them. By hand: the
/// exporter has no counters of fractions.
fn render_process(stats: &ProcessStats, descriptors_max: Option<u64>, text: &mut String) {
    let seconds = |duration: Option<Duration>| duration.map(|duration| duration.as_secs_f64().to_string());
    let number = |number: Option<u64>| number.map(|number| number.to_string());
    for (name, kind, help, value) in [
        ("process_cpu_seconds_total", "counter", "Processor time used, user and system", seconds(stats.cpu)),
        ("process_resident_memory_bytes", "gauge", "Resident memory", number(stats.resident_bytes)),
        ("process_virtual_memory_bytes", "gauge", "Virtual memory", number(stats.virtual_bytes)),
        ("process_threads", "gauge", "Threads", number(stats.threads)),
        ("process_open_fds", "gauge", "Open files and sockets", number(stats.open_descriptors)),
        ("process_max_fds", "gauge", "Most files and sockets that may be open", number(descriptors_max)),
        ("process_start_time_seconds", "gauge", "Start of the process, in seconds since 1970", seconds(stats.started)),
    ] {
        if let Some(value) = value {
            // Writing to a string cannot fail.
            let _ = write!(text, "# HELP {name} {help}\n# TYPE {name} {kind}\n{name} {value}\n\n");
        }
    }
}
