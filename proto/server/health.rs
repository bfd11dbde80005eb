//! The health of a server for gRPC and for a port of its own, where kubelets and Prometheus reach nothing else.

use super::{HostNames, Limits, ServeError, Shutdown, check_host, security_headers, serve};
use crate::metrics::Metrics;
use axum::{http::StatusCode, middleware, response::Response};
use std::{future::Future, time::Duration};
use tokio::{
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};
use tokio_util::sync::CancellationToken;
use tonic::service::Routes;
use tonic_health::{
    ServingStatus,
    server::{HealthReporter, HealthService},
};

/// Service name of gRPC health that is serving as long as the process answers, as `/healthz`.
pub const LIVE: &str = "live";
/// Service name of gRPC health that is serving while the server can do its work, as `/readyz`.
pub const READY: &str = "ready";
/// How often readiness is looked at: kubelets ask every few seconds.
const READY_INTERVAL: Duration = Duration::from_secs(1);
/// Content security policy: nothing may be loaded, and no frame may show the answers.
const POLICY: &str = "default-src 'none'; frame-ancestors 'none'";
/// Connections of a health port at once: kubelets, Prometheus and a few curious people.
const CONNECTIONS_MAX: usize = 64;

/// Keeps [`LIVE`] and [`READY`] in gRPC health, until `stop`; then the server is not ready.
pub async fn report(health: HealthReporter, is_ready: impl Fn() -> bool, stop: CancellationToken) {
    health.set_service_status(LIVE, ServingStatus::Serving).await;
    let mut tick = interval(READY_INTERVAL);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut said = None;
    let watch = async {
        loop {
            tick.tick().await;
            let ready = is_ready();
            if said.replace(ready) != Some(ready) {
                let status = if ready { ServingStatus::Serving } else { ServingStatus::NotServing };
                health.set_service_status(READY, status).await;
            }
        }
    };
    let _stopped: Option<()> = stop.run_until_cancelled(watch).await;
    health.set_service_status(READY, ServingStatus::NotServing).await;
}

/// Serves `probes` (`/healthz`, `/readyz`, `/metrics`) and gRPC health on a port of its own, in plain HTTP, until `stop`.
///
/// # Errors
/// When the server cannot run at all.
pub fn serve_health(
    listener: TcpListener,
    health: HealthReporter,
    probes: axum::Router,
    names: HostNames,
    stop: CancellationToken,
) -> impl Future<Output = Result<(), ServeError>> {
    let service = tonic_health::pb::health_server::HealthServer::new(HealthService::from_health_reporter(health));
    let probes = probes
        .layer(middleware::from_fn_with_state(names, check_host))
        .layer(middleware::map_response(async |answer: Response| security_headers(answer, POLICY)));
    let router = Routes::new(service).into_axum_router().merge(probes).fallback(async || StatusCode::NOT_FOUND);
    async move {
        let limits = Limits { connections: CONNECTIONS_MAX, ..Limits::default() };
        // Its connections are not among those of the server.
        serve(listener, router, &limits, None, &Metrics::default(), Shutdown::at(stop)).await
    }
}
