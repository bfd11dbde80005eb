//! The task that ends leases and removes old records. One sleep serves all leases.

use crate::{
    queue::{Job, Jobs},
    shared_swarms::SharedSwarms,
    shared_table::SharedTable,
    store_health::StoreHealth,
};
use std::{sync::Arc, time::Duration};
use tokio::{sync::oneshot, time::sleep};
use tokio_util::sync::CancellationToken;

/// Leases checked under one hold of the table's lock, some 100 µs.
const CHECKED_AT_ONCE: usize = 512;
/// Shortest sleep, so that a record which cannot be evicted yet does not make the loop spin.
const SLEEP_MIN: Duration = Duration::from_millis(10);
/// Longest sleep. Nothing else wakes this task to forget records after 30 days.
const SLEEP_MAX: Duration = Duration::from_secs(60 * 60);
/// How soon a store that failed is tried again.
const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// Ends leases when they run out, and what depends on them, until `stop`.
pub(crate) async fn run(
    table: Arc<SharedTable>,
    swarms: Arc<SharedSwarms>,
    jobs: Jobs,
    health: Arc<StoreHealth>,
    stop: CancellationToken,
) {
    stop.run_until_cancelled(expire(&table, &swarms, &jobs, &health)).await;
    // Without a writer there is nothing to do; the writer's end stops the registry.
    stop.cancelled().await;
}

/// Returns when the writer has ended.
async fn expire(table: &SharedTable, swarms: &SharedSwarms, jobs: &Jobs, health: &StoreHealth) {
    loop {
        let expired = table.with(|table, now| table.expire(now, CHECKED_AT_ONCE));
        swarms.leave(&expired.ended);
        if !expired.changes.is_empty() {
            // One batch at a time: a crowd that expires at once is written as fast as the disk takes it, and does not fill the queue.
            let (done, written) = oneshot::channel();
            if jobs.send(Job::Expiries(expired.changes, done)).await.is_err() || written.await.is_err() {
                return;
            }
        }
        if health.is_failing() {
            sleep(PROBE_INTERVAL).await;
            // A full queue finds out without it.
            let _full = jobs.try_send(Job::Probe);
        } else if expired.more {
            tokio::task::yield_now().await;
        } else {
            table.next_deadline(SLEEP_MIN, SLEEP_MAX).await;
        }
    }
}
