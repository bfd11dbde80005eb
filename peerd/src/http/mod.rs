//! Plain HTTP for browsers, curl and Prometheus, on the same port as gRPC.

mod caller;
mod documents;
mod live;
mod messages;
mod page;
mod probes;
mod state;
mod text;
mod transfers;

pub(crate) use state::HttpState;

use axum::{Router, middleware, response::Response, routing::get};
use p2pdi::server::{HostNames, check_host, login, page as shared, security_headers};
use std::sync::Arc;

/// Content security policy of answers that set none themselves: nothing may be loaded, and no frame may show them.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";

/// The HTTP routes of a peer's own port.
pub(crate) fn router(state: HttpState, hosts: HostNames) -> Router {
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
        .with_state(state.clone())
        .merge(login(Arc::clone(&state.tokens), state.has_tls))
        .merge(shared::files())
        .merge(probes(state))
        .layer(middleware::from_fn_with_state(hosts, check_host))
        .layer(middleware::map_response(async |answer: Response| security_headers(answer, POLICY)))
}

/// What kubelets and Prometheus ask for.
pub(crate) fn probes(state: HttpState) -> Router {
    Router::new()
        .route("/metrics", get(probes::metrics))
        .route("/healthz", get(probes::health))
        .route("/readyz", get(probes::ready))
        .with_state(state)
}
