//! The streams of WatchPeers. A watcher is a position in the table's log of changes, so one that does not read costs no memory.

use crate::{
    leases::CallError,
    shared_table::SharedTable,
    table::{Told, Watch},
};
use p2pdi::{status::Reason, v1::WatchPeersResponse};
use std::{sync::Arc, time::Duration};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tonic::{Status, codegen::tokio_stream::Stream};

/// After a message, changes gather so long for the next one: when a thousand peers join at once, a thousand watchers get ten messages a
/// second each, not a thousand. A change that comes alone is told at once.
const GATHERING: Duration = Duration::from_millis(100);
/// A watcher that is told nothing for so long gets a sign of life, and its lease is looked at: half of the shortest usual ttl.
const IDLE: Duration = Duration::from_secs(15);

/// What `watch` is told, until its caller has no lease any more, lags, or goes away, or until its connection is asked to end.
pub(crate) fn watch(
    table: Arc<SharedTable>,
    mut watch: Watch,
    ending: CancellationToken,
) -> impl Stream<Item = Result<WatchPeersResponse, Status>> + Send {
    async_stream::stream! {
        // Before the table is looked at, so that no change is missed.
        let mut changes = table.changes();
        let mut idle = false;
        let mut told_at = Instant::now();
        loop {
            changes.mark_unchanged();
            match table.with(|table, now| table.watched(&mut watch, idle, now)) {
                Ok(Some(Told { message, more, .. })) => {
                    yield Ok(message);
                    told_at = Instant::now();
                    if more {
                        continue;
                    }
                    let _ended = ending.run_until_cancelled(sleep(GATHERING)).await;
                }
                Ok(None) => {}
                Err(refusal) => {
                    yield Err(CallError::Refused(refusal).into());
                    return;
                }
            }
            let changed = tokio::select! {
                biased;
                () = ending.cancelled() => None,
                changed = changes.changed() => changed.ok().map(|()| true),
                () = sleep_until(told_at + IDLE) => Some(false),
            };
            let Some(changed) = changed else {
                yield Err(Reason::ShuttingDown.status(
                    "the registry is stopping, or this connection is old; watch again, with the `revision` of the last message as `since_revision`",
                ));
                return;
            };
            idle = !changed;
        }
    }
}
