//! Serves until the stop.

use super::{Limits, accept::accept};
use crate::{
    channel::{CONNECTION_WINDOW, FRAME_MAX, KEEPALIVE_INTERVAL, KEEPALIVE_TIMEOUT, STREAM_WINDOW},
    metrics::Metrics,
    platform::descriptor_limit,
};
use std::time::Duration;
use tokio::{
    net::TcpListener,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;

/// Largest header block of a request, in bytes: many times a cookie, a trace context and a deadline.
const HEADER_LIST_MAX_BYTES: u32 = 16 * 1024;
/// How often samples are folded into histograms: the exporter otherwise keeps them all until the next scrape.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// Descriptors that a server needs besides connections: open documents, the store, the runtime.
const DESCRIPTORS_SPARE: u64 = 256;
/// How long connections get to end after they were closed.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves `router` on `listener` until `stop`, then lets calls finish within the grace period and closes the connections that are
/// left. Every request carries its [`Caller`](super::Caller).
///
/// # Errors
/// When the server cannot run at all; a connection that fails ends only itself.
pub async fn serve(
    listener: TcpListener,
    router: axum::Router,
    limits: &Limits,
    metrics: &Metrics,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    warn_of_descriptors(limits.connections);
    let close_all = CancellationToken::new();
    let incoming = accept(listener, limits, metrics, &close_all);
    let server = Server::builder()
        .accept_http1(true)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_frame_size(FRAME_MAX)
        .max_concurrent_streams(limits.streams_per_connection)
        .http2_max_header_list_size(HEADER_LIST_MAX_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE_INTERVAL))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
        .serve_with_incoming_shutdown(router, incoming, stop.clone().cancelled_owned());
    let mut server = std::pin::pin!(server);
    let mut upkeep = interval(UPKEEP_INTERVAL);
    loop {
        tokio::select! {
            served = &mut server => return served,
            _ = upkeep.tick() => metrics.upkeep(),
            () = stop.cancelled() => break,
        }
    }
    if let Ok(served) = timeout(limits.grace, &mut server).await {
        return served;
    }
    tracing::warn!(grace = ?limits.grace, "calls are still under way after the grace period; closing their connections");
    close_all.cancel();
    timeout(CLOSE_TIMEOUT, &mut server).await.unwrap_or(Ok(()))
}

/// The program's `main` raises the limit; a library does not.
fn warn_of_descriptors(connections: usize) {
    let needed = (connections as u64).saturating_add(DESCRIPTORS_SPARE);
    if let Some(descriptors) = descriptor_limit().filter(|limit| *limit < needed) {
        tracing::warn!(descriptors, connections, "fewer files may be open than connections are allowed; raise `ulimit -Hn`");
    }
}
