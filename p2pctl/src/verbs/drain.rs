//! drain: ends a running peer in order.

use super::jobs::call;
use crate::{
    args::Drain,
    call::CALL_TIMEOUT,
    failure::{Failure, Outcome},
    printer::{Printer, proto_span},
};
use p2pdi::{
    phrases::counted,
    v1::{DrainRequest, DrainResponse},
};
use peerd::connections::channels::ChannelPool;
use std::time::Duration;
use tokio::time::timeout;

/// How long the peer may take longer than its grace period.
const SPARE: Duration = Duration::from_secs(5);

pub(super) async fn drain(channels: &ChannelPool, args: Drain, printer: Printer) -> Outcome {
    let at = args.at.at;
    let mut stream = call(channels, &at, async |mut client| client.drain(DrainRequest {}).await).await?;
    let first = timeout(CALL_TIMEOUT, stream.message()).await.map_err(|_| Failure::timed_out(at.as_str(), CALL_TIMEOUT))?;
    let first = first.map_err(|status| Failure::call(at.as_str(), &status))?.unwrap_or_default();
    let grace = first.grace.and_then(|grace| Duration::try_from(grace).ok()).unwrap_or_default();
    if first.uploads > 0 {
        let uploads = counted(first.uploads.into(), "upload");
        printer.note(&format!("{at} finishes {uploads} within {}", proto_span(first.grace)));
    }
    let mut last = first;
    let ending = async {
        // The peer ends with its connections, also where the last message is lost.
        while let Ok(Some(message)) = stream.message().await {
            last = message;
        }
    };
    if timeout(grace + SPARE, ending).await.is_err() {
        return Err(Failure::timed_out(at.as_str(), grace + SPARE));
    }
    let DrainResponse { uploads, drained, .. } = last;
    printer.message(&last, || match drained {
        true => format!("{at} is drained, and ends"),
        false => format!("{at} ends; its grace period was over before {}", counted(uploads.into(), "upload")),
    })?;
    Ok(())
}
