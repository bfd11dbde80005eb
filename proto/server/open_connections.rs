//! The open connections of a server: which of them carry calls, and since when the others carry none.

use super::outgoing::Outgoing;
use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// One accepted connection.
pub(super) struct OpenConnection {
    /// Unique in the process.
    id: u64,
    calls: Mutex<Calls>,
    /// What waits to be written to it.
    outgoing: Outgoing,
    /// Answers that were ended because nobody read them, and that HTTP/2 still keeps.
    ended_unread: AtomicUsize,
    /// Notified when the last call ends.
    idle: Notify,
    /// Cancelled when the connection is to end because the server runs out of connections.
    evicted: CancellationToken,
    /// Closes the connection with all calls on it.
    close: CancellationToken,
}

struct Calls {
    under_way: usize,
    /// When the last call ended, or the connection was accepted.
    idle_since: Instant,
    /// When a call began or ended last, or a message of one was read.
    progressed_at: Instant,
}

impl fmt::Debug for OpenConnection {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OpenConnection").finish_non_exhaustive()
    }
}

impl OpenConnection {
    /// A connection without calls. Cancelling `close` closes it.
    pub(super) fn new(close: CancellationToken) -> Self {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        let now = Instant::now();
        Self {
            id: LAST_ID.fetch_add(1, Ordering::Relaxed) + 1,
            calls: Mutex::new(Calls { under_way: 0, idle_since: now, progressed_at: now }),
            outgoing: Outgoing::default(),
            ended_unread: AtomicUsize::new(0),
            idle: Notify::new(),
            evicted: CancellationToken::new(),
            close,
        }
    }

    pub(super) fn id(&self) -> u64 {
        self.id
    }

    pub(super) fn outgoing(&self) -> &Outgoing {
        &self.outgoing
    }

    pub(super) fn ended_unread(&self) -> &AtomicUsize {
        &self.ended_unread
    }

    pub(super) fn progressed(&self, now: Instant) {
        let mut calls = self.calls();
        calls.progressed_at = calls.progressed_at.max(now);
    }

    pub(super) fn progressed_at(&self) -> Instant {
        self.calls().progressed_at
    }

    /// Closes the connection, with all calls on it.
    pub(super) fn close(&self) {
        self.close.cancel();
    }

    /// Returns once the connection has carried no call for `limit`, or was evicted.
    pub(super) async fn unused(&self, limit: Duration) {
        tokio::select! {
            () = self.evicted() => {}
            () = self.idle_for(limit) => {}
        }
    }

    /// Returns once the connection was evicted.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    async fn idle_for(&self, limit: Duration) {
        loop {
            match self.idle_since().map(|since| since + limit) {
                Some(due) if due <= Instant::now() => return,
                Some(due) => sleep_until(due).await,
                None => self.idle.notified().await,
            }
        }
    }

    /// Since when it carries no call; `None` while it carries one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let calls = self.calls();
        (calls.under_way == 0).then_some(calls.idle_since)
    }

    pub(super) fn begin_call(self: &Arc<Self>) -> Call {
        let mut calls = self.calls();
        calls.under_way += 1;
        calls.progressed_at = Instant::now();
        drop(calls);
        Call(Arc::clone(self))
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way, until it is dropped.
pub(super) struct Call(Arc<OpenConnection>);

impl Drop for Call {
    fn drop(&mut self) {
        let mut calls = self.0.calls();
        calls.under_way -= 1;
        calls.progressed_at = Instant::now();
        if calls.under_way == 0 {
            calls.idle_since = calls.progressed_at;
            self.0.idle.notify_one();
        }
    }
}

/// All open connections of a server.
#[derive(Default)]
pub(super) struct OpenConnections(Mutex<Vec<Weak<OpenConnection>>>);

impl OpenConnections {
    pub(super) fn add(&self, connection: &Arc<OpenConnection>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // Closed ones are removed before the list would grow, so that they cost little on average.
        if open.len() == open.capacity() {
            open.retain(|connection| connection.strong_count() > 0);
        }
        open.push(Arc::downgrade(connection));
    }

    /// Evicts up to `count` connections that carry no call, those idle longest first; returns how many.
    pub(super) fn evict(&self, count: usize) -> usize {
        let open: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        let kept = open.iter().filter(|connection| !connection.evicted.is_cancelled());
        let mut idle: Vec<_> = kept.filter_map(|connection| Some((connection.idle_since()?, connection))).collect();
        idle.sort_by_key(|(since, _)| *since);
        idle.truncate(count);
        idle.iter().for_each(|(_, connection)| connection.evicted.cancel());
        idle.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::time::timeout;

    fn connection() -> Arc<OpenConnection> {
        Arc::new(OpenConnection::new(CancellationToken::new()))
    }

    #[tokio::test]
    async fn a_connection_is_idle_from_the_end_of_its_last_call() {
        let (connection, limit) = (connection(), Duration::from_millis(50));
        let calls = [connection.begin_call(), connection.begin_call()];
        let waiting = Arc::clone(&connection);
        let idle = tokio::spawn(async move { waiting.unused(limit).await });
        let mut idle = idle;
        assert!(timeout(3 * limit, &mut idle).await.is_err());
        let ended = Instant::now();
        drop(calls);
        idle.await.unwrap();
        assert!(ended.elapsed() >= limit);
    }

    #[tokio::test]
    async fn connections_that_are_idle_longest_are_evicted_first_and_those_with_calls_never() {
        let open = OpenConnections::default();
        let mut connections = Vec::new();
        for _ in 0..4 {
            connections.push(connection());
            open.add(&connections[connections.len() - 1]);
        }
        let _call = connections[0].begin_call();
        drop(connections[1].begin_call());
        let evicted = || connections.iter().map(|connection| connection.evicted.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(open.evict(1), 1);
        assert_eq!(evicted(), [false, false, true, false]);
        assert_eq!(open.evict(9), 2);
        assert_eq!(evicted(), [false, true, true, true]);
        assert_eq!(open.evict(9), 0);
    }
}
