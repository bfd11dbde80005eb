//! What a browser, curl, Prometheus and Kubernetes see.

use crate::leases::Leases;
use axum::{
    Router,
    extract::State,
    http::{HeaderMap, StatusCode, header},
    middleware,
    response::{Html, IntoResponse as _, Response},
    routing::get,
};
use metrics::Gauge;
use p2pdi::{VERSION, hex, metrics::Metrics, server::security_headers, v1::PeerRecord};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio_util::sync::CancellationToken;

/// Peers shown on the status page; all of them are what PQuery is for.
const PEERS_SHOWN: usize = 100;

/// What browsers may do with an answer that does not say so itself: load nothing, and show it in no frame.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'; base-uri 'none'; form-action 'none'";

#[derive(Clone)]
struct Page {
    leases: Leases,
    metrics: Metrics,
    stop: CancellationToken,
    gauges: Arc<[Gauge; 5]>,
}

pub(crate) fn routes(leases: Leases, metrics: Metrics, stop: CancellationToken) -> Router {
    let gauge = |name, help| metrics.gauge(name, help, &[]);
    let gauges = Arc::new([
        gauge("p2pdi_registry_peers_active", "Peers with a lease"),
        gauge("p2pdi_registry_peers_inactive", "Peers remembered whose lease ended"),
        gauge("p2pdi_registry_observers", "Callers with a lease that only ask"),
        gauge("p2pdi_registry_revision", "The change counter"),
        gauge("p2pdi_registry_unwritten", "Records that are not on disk as they are in memory"),
    ]);
    Router::new()
        .route("/", get(status))
        .route("/metrics", get(measurements))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(Page { leases, metrics, stop, gauges })
        .layer(middleware::map_response(async |answer: Response| security_headers(answer, POLICY)))
}

/// Ready while it does not stop and its disk does not hang. A disk that fails at once is told on the status page and in the
/// metrics only: leases and queries go on without it, and would not for callers that are sent away.
async fn ready(State(page): State<Page>) -> Response {
    if page.stop.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "stopping\n").into_response()
    } else if page.leases.shared.store_hangs() {
        (StatusCode::SERVICE_UNAVAILABLE, "the disk does not answer\n").into_response()
    } else {
        "ok\n".into_response()
    }
}

async fn measurements(State(page): State<Page>) -> Response {
    let counts = page.leases.shared.with(|table, _| table.counts());
    #[expect(clippy::cast_precision_loss, reason = "what a metric is made of")]
    let values =
        [counts.active as f64, counts.inactive as f64, counts.observers as f64, counts.revision as f64, counts.dirty as f64];
    for (gauge, value) in page.gauges.iter().zip(values) {
        gauge.set(value);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], page.metrics.render()).into_response()
}

async fn status(State(page): State<Page>, headers: HeaderMap) -> Response {
    let (counts, ttl_ms, peers) =
        page.leases.shared.with(|table, now| (table.counts(), table.ttl_ms(), table.some_active(PEERS_SHOWN, now)));
    let writable = !page.leases.shared.store_failing.load(Ordering::Relaxed);
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or("");
    if accept.contains("application/json") {
        let body = json!({
            "version": VERSION,
            "active_peers": counts.active,
            "inactive_peers": counts.inactive,
            "observers": counts.observers,
            "revision": counts.revision,
            "ttl": format!("{}s", Duration::from_millis(ttl_ms).as_secs_f64()),
            "store": if writable { "ok" } else { "failing" },
            "peers": peers.iter().map(as_json).collect::<Vec<_>>(),
        });
        return ([(header::CONTENT_TYPE, "application/json")], format!("{body:#}\n")).into_response();
    }
    let mut text = format!(
        "P2P-DI registry {VERSION}\n\n\
         active peers  {}\ninactive      {}\nobservers     {}\nrevision      {}\nttl           {}\nstore         {}\n",
        counts.active,
        counts.inactive,
        counts.observers,
        counts.revision,
        humantime::format_duration(Duration::from_millis(ttl_ms)),
        if writable { "ok" } else { "failing: registrations are refused" },
    );
    if !peers.is_empty() {
        let width = peers.iter().map(|peer| peer.name.len()).max().unwrap_or(0).max(4);
        let _ = write!(text, "\n{:width$}  {:28}  lease left\n", "name", "endpoint");
        for peer in &peers {
            let left = peer.lease_remaining.map_or(0, |left| left.seconds);
            let _ = writeln!(text, "{:width$}  {:28}  {left} s", peer.name, peer.endpoint);
        }
        if counts.active > peers.len() {
            let _ = writeln!(text, "… and {} more", counts.active - peers.len());
        }
    }
    if accept.contains("text/html") {
        // Names and endpoints have no characters of HTML's; the title is ours.
        return Html(format!(
            "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\"><meta http-equiv=\"refresh\" content=\"5\">\
             <title>P2P-DI registry</title><pre>{text}</pre><p><a href=\"/metrics\">metrics</a></html>\n"
        ))
        .into_response();
    }
    text.into_response()
}

fn as_json(peer: &PeerRecord) -> Value {
    json!({
        "name": peer.name,
        "endpoint": peer.endpoint,
        "id": hex::encode(&peer.id),
        "labels": peer.labels,
        "registration_count": peer.registration_count,
        "lease_remaining_seconds": peer.lease_remaining.map_or(0, |left| left.seconds),
    })
}
