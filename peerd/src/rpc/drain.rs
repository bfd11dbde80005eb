//! Drain: ends the peer in order.

use super::services::Services;
use p2pdi::v1::DrainResponse;
use std::{sync::Arc, time::Duration};
use tokio::time::interval;
use tokio_stream::Stream;
use tonic::Status;

/// How often the caller is told what is still under way.
const REPORT_INTERVAL: Duration = Duration::from_secs(1);

/// Stops the peer, and tells what is under way until nothing is, or the grace period is over.
pub(super) fn drain(services: Arc<Services>) -> impl Stream<Item = Result<DrainResponse, Status>> + Send {
    async_stream::stream! {
        let uploads = |services: &Services| services.uploads.load().uploads;
        let grace = prost_types::Duration::try_from(services.grace).ok();
        // First, so that a caller that goes away at once has it drained all the same.
        services.drain.cancel();
        yield Ok(DrainResponse { uploads: uploads(&services), drained: false, grace });
        let mut report = interval(REPORT_INTERVAL);
        report.tick().await;
        let drained = loop {
            tokio::select! {
                () = services.uploads.drained() => break true,
                () = services.closing.cancelled() => break uploads(&services) == 0,
                _ = report.tick() => yield Ok(DrainResponse { uploads: uploads(&services), ..DrainResponse::default() }),
            }
        };
        yield Ok(DrainResponse { uploads: uploads(&services), drained, grace: None });
    }
}
