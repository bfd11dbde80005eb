//! The state that all routes share.

use crate::rpc::Services;
use p2pdi::{
    metrics::Metrics,
    server::{HttpToken, HttpTokens},
    status::Reason,
};
use std::sync::Arc;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Most open event streams, one per page: more than the browser windows of one person, few enough that all of them cost little.
const STREAMS_MAX: usize = 32;

/// Longest form accepted: the longest message with every byte percent-encoded, and the other parameters.
pub(super) const FORM_MAX_BYTES: usize = 3 * crate::inbox::BODY_MAX_BYTES + 4 * 1024;

/// The state that all routes share.
#[derive(Clone)]
pub(crate) struct HttpState {
    pub(super) services: Arc<Services>,
    pub(super) metrics: Metrics,
    pub(super) stop: CancellationToken,
    /// Who may use the pages from other machines.
    pub(super) tokens: Arc<HttpTokens>,
    pub(super) has_tls: bool,
    streams: Arc<Semaphore>,
}

impl HttpState {
    /// The state of all routes. `token`: who has it may use them from other machines.
    /// `has_tls`: browsers send the cookie of a login over TLS only.
    pub(crate) fn new(
        services: Arc<Services>,
        metrics: Metrics,
        stop: CancellationToken,
        token: Option<&HttpToken>,
        has_tls: bool,
    ) -> Self {
        let tokens = Arc::new(HttpTokens::new(token, rand::random()));
        Self { services, metrics, stop, tokens, has_tls, streams: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }

    /// A permit for one event stream.
    ///
    /// # Errors
    /// When [`STREAMS_MAX`] are open.
    pub(super) fn admit_stream(&self) -> Result<OwnedSemaphorePermit, Status> {
        Arc::clone(&self.streams).try_acquire_owned().map_err(|_| {
            Reason::TooManyStreams
                .status(format!("{STREAMS_MAX} pages watch this peer already; close one of them, or try again later"))
        })
    }
}
