//! One sleeper for all leases.

use crate::{leases::Leases, writer::Job};
use std::{
    sync::atomic::Ordering,
    time::{Duration, Instant},
};
use tokio_util::sync::CancellationToken;

/// Leases looked at under one hold of the table's lock, some 100 µs.
const AT_ONCE: usize = 512;
/// Longest sleep: peers are forgotten by the calendar, which nobody rings for.
const SLEEP_MAX: Duration = Duration::from_secs(60 * 60);
/// How soon an expiry that could not be written is tried again.
const FLUSH_RETRY: Duration = Duration::from_secs(1);

/// Ends leases when they run out, until `stop`.
pub(crate) async fn drive(leases: Leases, stop: CancellationToken) {
    let shared = &leases.shared;
    let mut asked_at: Option<Instant> = None;
    loop {
        while shared.with(|table, now| table.expire(now, AT_ONCE)) {
            tokio::task::yield_now().await;
        }
        let (dirty, now, next_ms) =
            shared.with(|table, now| (table.counts().dirty, now, table.next_deadline_ms().unwrap_or(u64::MAX)));
        let failing = shared.store_failing.load(Ordering::Relaxed);
        if dirty > 0 && !(failing && asked_at.is_some_and(|at| at.elapsed() < FLUSH_RETRY)) {
            asked_at = Some(Instant::now());
            // A queue that is full comes by there anyway.
            let _full = leases.jobs.try_send(Job::Flush);
        }
        let longest = if dirty > 0 { FLUSH_RETRY } else { SLEEP_MAX };
        let longest_ms = u64::try_from(longest.as_millis()).unwrap_or(u64::MAX);
        let until_ms = next_ms.min(now.mono_ms + longest_ms);
        shared.asleep_until_ms.store(until_ms, Ordering::Relaxed);
        // A deadline scheduled since then is seen either here or by whoever scheduled it.
        if shared.with(|table, _| table.next_deadline_ms()).is_some_and(|next_ms| next_ms < until_ms) {
            continue;
        }
        tokio::select! {
            () = tokio::time::sleep_until(shared.clock.instant(until_ms)) => {}
            () = shared.sooner.notified() => {}
            () = stop.cancelled() => return,
        }
    }
}
