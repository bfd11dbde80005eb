//! What Prometheus and Kubernetes ask for: metrics, liveness, readiness.

use super::state::HttpState;
use axum::{
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use p2pdi::v1::SessionState;

/// `/metrics`, in the text format of Prometheus.
pub(super) async fn metrics(State(state): State<HttpState>) -> impl IntoResponse {
    let status = state.services.status();
    let registry = status.registry.unwrap_or_default();
    let registered = u64::from(registry.state() == SessionState::Registered);
    let mesh = status.mesh.unwrap_or_default();
    // Everyone may read them, so they count what is for everyone.
    let (documents, bytes) = state.services.catalog.public_totals();
    let gauges = [
        ("p2pdi_share_documents", "Documents shared with everyone", documents),
        ("p2pdi_share_bytes", "Bytes of the documents shared with everyone", bytes),
        ("p2pdi_learned_documents", "Documents known from other peers", status.share.unwrap_or_default().learned_documents),
        ("p2pdi_known_peers", "Peers known through the registry", registry.known_peers),
        ("p2pdi_mesh_links", "Open links", mesh.links.into()),
        ("p2pdi_mesh_neighbours", "Neighbours in the mesh", mesh.neighbours.into()),
        ("p2pdi_mesh_namesakes", "Other peers with this peer's name", mesh.namesakes.len() as u64),
        ("p2pdi_registered", "1 while registered", registered),
    ];
    for (name, help, value) in gauges {
        #[expect(clippy::cast_precision_loss, reason = "Prometheus has no other numbers")]
        state.metrics.gauge(name, help, &[]).set(value as f64);
    }
    for (name, help, value) in [
        ("p2pdi_mesh_broadcasts_total", "Broadcasts received", mesh.broadcasts),
        ("p2pdi_mesh_duplicates_total", "Duplicate broadcasts received", mesh.duplicates),
        ("p2pdi_mesh_relayed_total", "Messages relayed for other peers", mesh.relayed),
        ("p2pdi_mesh_throttled_total", "Frames dropped because their sender exceeded its rate limit", mesh.throttled),
        ("p2pdi_mesh_misbehaviour_total", "Frames that violate the protocol", mesh.misbehaviour),
        ("p2pdi_mesh_paused_total", "Times reading from a link paused because its sender exceeded its rate limit", mesh.paused),
    ] {
        state.metrics.counter(name, help, &[]).absolute(value);
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4")], state.metrics.render())
}

/// `/healthz`: the process answers.
pub(super) async fn health() -> &'static str {
    "ok\n"
}

/// `/readyz`: see [`Services::unready`](crate::rpc::Services::unready).
pub(super) async fn ready(State(state): State<HttpState>) -> (StatusCode, String) {
    let stopping = || state.stop.is_cancelled().then(|| "stopping".to_owned());
    match stopping().or_else(|| state.services.unready()) {
        Some(why) => (StatusCode::SERVICE_UNAVAILABLE, why + "\n"),
        None => (StatusCode::OK, "ready\n".to_owned()),
    }
}
