//! What a browser, curl and Prometheus see, on the same port as gRPC.

mod caller;
mod documents;
mod fields;
mod live;
mod messages;
mod page;
mod text;

use crate::rpc::Services;
use axum::{
    Router,
    extract::State,
    http::{StatusCode, header},
    middleware,
    response::{IntoResponse, Response},
    routing::get,
};
use p2pdi::{metrics::Metrics, server::security_headers, v1::SessionState};
use std::sync::Arc;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

/// Open event streams, each of one page: more than one person has browser windows, and few enough that all of them cost little.
const STREAMS_MAX: usize = 32;

/// What browsers may do with an answer that does not say so itself: load nothing, and show it in no frame.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

#[derive(Clone)]
struct Page {
    services: Arc<Services>,
    metrics: Metrics,
    stop: CancellationToken,
    /// For event streams.
    places: Arc<Semaphore>,
}

/// The plain HTTP side of a peer.
pub(crate) fn router(services: Arc<Services>, metrics: Metrics, stop: CancellationToken) -> Router {
    let page = Page { services, metrics, stop, places: Arc::new(Semaphore::new(STREAMS_MAX)) };
    Router::new()
        .route("/", get(page::front))
        .route("/page.css", get(page::style))
        .route("/page.js", get(page::script))
        .route("/graph.js", get(page::drawing))
        .route("/icon.svg", get(page::icon))
        .route("/live", get(live::events))
        .route("/network", get(live::topology))
        .route("/documents", get(documents::find))
        .route("/whisper", messages::whisper())
        .route("/broadcast", messages::broadcast())
        .route("/metrics", get(render_metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(page)
        .layer(middleware::map_response(async |answer: Response| security_headers(answer, POLICY)))
}

async fn render_metrics(State(page): State<Page>) -> impl IntoResponse {
    let status = page.services.status();
    let registry = status.registry.unwrap_or_default();
    let registered = u64::from(registry.state() == SessionState::Registered);
    let mesh = status.mesh.unwrap_or_default();
    let gauges = [
        ("p2pdi_learned_documents", "Documents known from other peers", status.share.unwrap_or_default().learned_documents),
        ("p2pdi_known_peers", "Peers known through the registry", registry.known_peers),
        ("p2pdi_mesh_links", "Open links", mesh.links.into()),
        ("p2pdi_mesh_neighbours", "Neighbours in the mesh", mesh.neighbours.into()),
        ("p2pdi_mesh_broadcasts", "Broadcasts that arrived", mesh.broadcasts),
        ("p2pdi_mesh_duplicates", "Broadcasts that arrived again", mesh.duplicates),
        ("p2pdi_mesh_relayed", "Messages passed on for others", mesh.relayed),
        ("p2pdi_mesh_throttled", "Frames dropped since their sender sent more than its share", mesh.throttled),
        ("p2pdi_mesh_misbehaviour", "Frames that no peer should send", mesh.misbehaviour),
        ("p2pdi_mesh_paused", "Times a link was not read for a while since its sender sent more than its share", mesh.paused),
        ("p2pdi_mesh_namesakes", "Other peers that go by this peer's name", mesh.namesakes.len() as u64),
        ("p2pdi_registered", "1 while registered", registered),
    ];
    for (name, help, value) in gauges {
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
        page.metrics.gauge(name, help, &[]).set(value as f64);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], page.metrics.render())
}

/// Ready: the share is read, and the registry does not refuse this peer. A registry that is away does not make a peer useless.
async fn ready(State(page): State<Page>) -> (StatusCode, String) {
    if page.stop.is_cancelled() {
        return (StatusCode::SERVICE_UNAVAILABLE, "stopping\n".to_owned());
    }
    let standing = page.services.session.status();
    if !page.services.catalog.share().progress().borrow().settled {
        return (StatusCode::SERVICE_UNAVAILABLE, "the share is still being read\n".to_owned());
    }
    match standing.state() {
        SessionState::Refused | SessionState::Registering => (StatusCode::SERVICE_UNAVAILABLE, format!("{}\n", standing.detail)),
        _ => (StatusCode::OK, "ready\n".to_owned()),
    }
}
