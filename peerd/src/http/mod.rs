//! Plain HTTP for browsers, curl and Prometheus, on the same port as gRPC.

mod caller;
mod documents;
mod fields;
mod live;
mod messages;
mod page;
mod probes;
mod response;
mod state;
mod text;
mod transfers;

#[cfg(any(test, feature = "fuzzing"))]
pub use fields::check_any_form;

use crate::rpc::Services;
use axum::{Router, middleware, response::Response, routing::get};
use p2pdi::{
    metrics::Metrics,
    server::{page as shared, security_headers},
};
use state::HttpState;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// Content security policy of answers that set none themselves: nothing may be loaded, and no frame may show them.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// The HTTP routes of a peer.
pub(crate) fn router(services: Arc<Services>, metrics: Metrics, stop: CancellationToken) -> Router {
    Router::new()
        .route("/", get(page::front))
        .route("/peer.css", get(page::style))
        .route("/peer.js", get(page::script))
        .route("/graph.js", get(page::drawing))
        .route("/transfers.js", get(page::transfers))
        .route("/live", get(live::events))
        .route("/network", get(live::topology))
        .route("/documents", get(documents::find))
        .route("/whisper", messages::whisper())
        .route("/broadcast", messages::broadcast())
        .route("/metrics", get(probes::metrics))
        .route("/healthz", get(probes::health))
        .route("/readyz", get(probes::ready))
        .with_state(HttpState::new(services, metrics, stop))
        .merge(shared::files())
        .layer(middleware::map_response(async |answer: Response| security_headers(answer, POLICY)))
}
