//! The open connections of a server: which of them carry calls, since when the others carry none, and how many each client has.

use super::outgoing::Outgoing;
use crate::{
    log_limit::{Line, LogLimit},
    token_bucket::TokenBucket,
};
use metrics::Counter;
use std::{
    collections::HashMap,
    fmt,
    net::IpAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU64, AtomicUsize, Ordering},
    },
    time::Duration,
};
use tokio::{
    sync::Notify,
    time::{Instant, timeout_at},
};
use tokio_util::sync::CancellationToken;

/// Calls that a connection may give up before their answer begins, at once, and in each second after that. A fetch gives up the requests of one document when its last
/// piece is there, a search those to peers that are late: some hundred at once at most. Opening and resetting streams as fast as it goes
/// costs the server more than the client (CVE-2023-44487).
const GIVEN_UP_AT_ONCE: u32 = 1_000;
/// See [`GIVEN_UP_AT_ONCE`].
const GIVEN_UP_PER_SECOND: u32 = 100;

/// One accepted connection.
pub(super) struct OpenConnection {
    /// Unique in the process.
    id: u64,
    /// Whose connection it is ([`crate::endpoint::client_network`]).
    network: IpAddr,
    opened_at: Instant,
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
    /// There was a call.
    begun: bool,
    /// Calls that the client may still give up.
    given_up: TokenBucket,
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
    /// A connection of `network` without calls. Cancelling `close` closes it.
    pub(super) fn new(network: IpAddr, close: CancellationToken) -> Self {
        static LAST_ID: AtomicU64 = AtomicU64::new(0);
        let now = Instant::now();
        let given_up = TokenBucket::holding(GIVEN_UP_AT_ONCE, GIVEN_UP_PER_SECOND, Duration::ZERO);
        Self {
            id: LAST_ID.fetch_add(1, Ordering::Relaxed) + 1,
            network,
            opened_at: now,
            calls: Mutex::new(Calls { under_way: 0, begun: false, given_up, idle_since: now, progressed_at: now }),
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

    /// Returns once the connection has carried no call for `idle`, or has not had its first one within `first` of its begin, or was
    /// evicted. Without any call it counts as evicted.
    pub(super) async fn unused(&self, idle: Duration, first: Duration) {
        tokio::select! {
            () = self.evicted() => {}
            () = self.idle_for(idle, first) => {}
        }
        if !self.calls().begun {
            self.evicted.cancel();
        }
    }

    /// Returns once the connection was evicted.
    pub(super) async fn evicted(&self) {
        self.evicted.cancelled().await;
    }

    async fn idle_for(&self, idle: Duration, first: Duration) {
        loop {
            let limit = if self.calls().begun { idle } else { first };
            match self.idle_since().map(|since| since + limit) {
                Some(due) if due <= Instant::now() => return,
                // The first call may end meanwhile: another limit holds from then on.
                Some(due) => drop(timeout_at(due, self.idle.notified()).await),
                None => self.idle.notified().await,
            }
        }
    }

    /// Since when it carries no call; `None` while it carries one.
    pub(super) fn idle_since(&self) -> Option<Instant> {
        let calls = self.calls();
        (calls.under_way == 0).then_some(calls.idle_since)
    }

    /// `resets` counts the connection if it is closed because the client gives up too many calls.
    pub(super) fn begin_call(self: &Arc<Self>, resets: Counter) -> Call {
        let mut calls = self.calls();
        calls.under_way += 1;
        calls.begun = true;
        calls.progressed_at = Instant::now();
        drop(calls);
        Call { connection: Arc::clone(self), resets, is_answered: false }
    }

    /// The client gave up a call. One that does so all the time loses its connection.
    fn count_given_up(&self, resets: &Counter) {
        static LOG: LogLimit = LogLimit::new(1);
        if self.calls().given_up.try_take(self.opened_at.elapsed()) || self.close.is_cancelled() {
            return;
        }
        resets.increment(1);
        if let Some(Line { suppressed }) = LOG.line() {
            tracing::warn!(client = %self.network, suppressed, "a client resets its calls as fast as it makes them; closing its connection");
        }
        self.close();
    }

    fn calls(&self) -> MutexGuard<'_, Calls> {
        self.calls.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A call under way, until it is dropped.
pub(super) struct Call {
    connection: Arc<OpenConnection>,
    resets: Counter,
    is_answered: bool,
}

impl Call {
    /// Its answer begins.
    pub(super) fn answered(&mut self) {
        self.is_answered = true;
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        let mut calls = self.connection.calls();
        calls.under_way -= 1;
        calls.progressed_at = Instant::now();
        if calls.under_way == 0 {
            calls.idle_since = calls.progressed_at;
            self.connection.idle.notify_one();
        }
        drop(calls);
        if !self.is_answered {
            self.connection.count_given_up(&self.resets);
        }
    }
}

/// How many connections each client network has open.
pub(super) struct ClientConnections {
    /// Most of one network.
    most: usize,
    open: Mutex<HashMap<IpAddr, usize>>,
}

/// Counts one connection of a client network until it is dropped.
pub(super) struct ClientConnection {
    clients: Arc<ClientConnections>,
    network: IpAddr,
}

impl ClientConnections {
    /// At most `most` of one network.
    pub(super) fn new(most: usize) -> Self {
        Self { most, open: Mutex::default() }
    }

    /// One more connection of `network`, and how many further ones it may have; `None`: it has as many as it may.
    pub(super) fn begin(self: &Arc<Self>, network: IpAddr) -> Option<(ClientConnection, usize)> {
        let mut open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        let count = open.get(&network).copied().unwrap_or(0);
        if count >= self.most {
            return None;
        }
        open.insert(network, count + 1);
        Some((ClientConnection { clients: Arc::clone(self), network }, self.most - count - 1))
    }
}

impl Drop for ClientConnection {
    fn drop(&mut self) {
        let mut open = self.clients.open.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = open.get_mut(&self.network) {
            *count -= 1;
            if *count == 0 {
                open.remove(&self.network);
            }
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

    /// Evicts up to `count` connections that carry no call, those idle longest first; returns how many. Only those of one client network,
    /// if `of` names one.
    pub(super) fn evict(&self, count: usize, of: Option<IpAddr>) -> usize {
        let open: Vec<_> = self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().filter_map(Weak::upgrade).collect();
        let chosen = open.iter().filter(|connection| of.is_none_or(|network| connection.network == network));
        let kept = chosen.filter(|connection| !connection.evicted.is_cancelled());
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
    use std::net::Ipv4Addr;
    use tokio::time::timeout;

    const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

    fn connection() -> Arc<OpenConnection> {
        Arc::new(OpenConnection::new(CLIENT, CancellationToken::new()))
    }

    fn begin(connection: &Arc<OpenConnection>) -> Call {
        connection.begin_call(Counter::noop())
    }

    #[tokio::test]
    async fn a_connection_is_idle_from_the_end_of_its_last_call() {
        let (connection, limit) = (connection(), Duration::from_millis(50));
        let calls = [begin(&connection), begin(&connection)];
        let waiting = Arc::clone(&connection);
        let idle = tokio::spawn(async move { waiting.unused(limit, limit).await });
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
        let _call = begin(&connections[0]);
        drop(begin(&connections[1]));
        let evicted = || connections.iter().map(|connection| connection.evicted.is_cancelled()).collect::<Vec<_>>();
        assert_eq!(open.evict(1, None), 1);
        assert_eq!(evicted(), [false, false, true, false]);
        assert_eq!(open.evict(9, Some(Ipv4Addr::BROADCAST.into())), 0);
        assert_eq!(open.evict(9, Some(CLIENT)), 2);
        assert_eq!(evicted(), [false, true, true, true]);
        assert_eq!(open.evict(9, None), 0);
    }

    #[tokio::test]
    async fn a_connection_without_a_first_call_is_evicted_before_one_that_had_one() {
        let (never, once) = (connection(), connection());
        drop(begin(&once));
        let (idle, first) = (Duration::from_secs(60), Duration::from_millis(20));
        never.unused(idle, first).await;
        assert!(never.evicted.is_cancelled());
        assert!(timeout(3 * first, once.unused(idle, first)).await.is_err());
    }

    #[tokio::test]
    async fn a_client_that_gives_up_its_calls_all_the_time_loses_its_connection() {
        let (honest, resetting) = (connection(), connection());
        for _ in 0..2 * GIVEN_UP_AT_ONCE {
            begin(&honest).answered();
            drop(begin(&resetting));
        }
        for _ in 0..GIVEN_UP_AT_ONCE / 2 {
            drop(begin(&honest));
        }
        assert!(resetting.close.is_cancelled());
        assert!(!honest.close.is_cancelled());
    }

    #[test]
    fn each_client_has_its_share_of_connections() {
        let clients = Arc::new(ClientConnections::new(2));
        let [a, b] = [CLIENT, Ipv4Addr::BROADCAST.into()];
        let first = clients.begin(a).unwrap();
        let (_second, left) = clients.begin(a).unwrap();
        assert_eq!((first.1, left), (1, 0));
        assert!(clients.begin(a).is_none() && clients.begin(b).is_some());
        drop(first);
        assert!(clients.begin(a).is_some());
        assert_eq!(clients.open.lock().unwrap().len(), 1, "clients without connections are forgotten");
    }
}
