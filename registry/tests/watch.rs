//! WatchPeers against a real server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

mod support;

use p2pdi::{
    status::Reason,
    v1::{PQueryRequest, WatchPeersRequest, WatchPeersResponse, peer_event::Change},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};
use support::*;
use tokio::{task::JoinSet, time::timeout};
use tonic::{Status, Streaming, transport::Endpoint};

/// A stream of WatchPeers, and what it told.
struct Watcher {
    stream: Streaming<WatchPeersResponse>,
    revision: u64,
    caught_up: bool,
    started_over: bool,
}

impl Watcher {
    async fn begin(client: &mut Client, cookie: &str, since_revision: u64) -> Result<Self, Status> {
        let request = with_cookie(WatchPeersRequest { since_revision }, cookie);
        let stream = client.watch_peers(request).await?.into_inner();
        Ok(Self { stream, revision: since_revision, caught_up: false, started_over: false })
    }

    /// The changes of the next message.
    async fn next(&mut self) -> Result<Vec<String>, Status> {
        let message = timeout(PATIENCE, self.stream.message()).await.expect("a message in time")?.expect("it goes on");
        self.revision = message.revision;
        self.caught_up |= message.caught_up;
        self.started_over |= message.start_over;
        let text = |change| match change {
            Change::Joined(peer) => format!("{} joined", peer.name),
            Change::Changed(peer) => format!("{} changed to {}", peer.name, peer.endpoint),
            Change::Left(gone) => format!("{} left", gone.name),
        };
        Ok(message.events().unwrap().into_iter().filter_map(|event| event.change).map(text).collect())
    }

    /// The next `count` changes.
    async fn changes(&mut self, count: usize) -> Vec<String> {
        let mut changes = Vec::new();
        while changes.len() < count {
            changes.extend(self.next().await.unwrap());
        }
        changes
    }

    /// Reads until it is caught up.
    async fn catch_up(&mut self) -> Vec<String> {
        let mut changes = Vec::new();
        while !self.caught_up {
            changes.extend(self.next().await.unwrap());
        }
        changes
    }
}

#[tokio::test]
async fn a_watcher_is_told_who_is_there_and_who_joins_changes_and_leaves() {
    // Long enough for the steps before the end of a lease, of which each message takes 100 ms at least, also on a busy machine.
    let config = registry::Config { ttl: Duration::from_secs(6), ..in_memory() };
    let registry = Running::start(config).await;
    let mut client = registry.client();
    let first = register(&mut client, "first", "10.0.0.1:7801").await;
    let own = observe(&mut client, "own").await;
    let mut watcher = Watcher::begin(&mut client, &own.cookie, 0).await.unwrap();
    assert_eq!(watcher.catch_up().await, ["first joined"]);
    assert!(!watcher.started_over && watcher.revision == first.revision);
    let a = register(&mut client, "a", "10.0.0.2:7801").await;
    assert_eq!(watcher.changes(1).await, ["a joined"]);
    client.register(with_cookie(asking("a", "10.0.0.3:7801"), &a.cookie)).await.unwrap();
    assert_eq!(watcher.changes(1).await, ["a changed to 10.0.0.3:7801"]);
    leave(&mut client, &a.cookie).await.unwrap();
    assert_eq!(watcher.changes(1).await, ["a left"]);
    // The lease of the other one ends; the watcher keeps its own.
    let until = Instant::now() + PATIENCE;
    let left = loop {
        keep_alive(&mut client, &own.cookie).await.unwrap();
        if let Ok(Ok(left)) = timeout(Duration::from_millis(100), watcher.next()).await {
            break left;
        }
        assert!(Instant::now() < until, "its lease does not end");
    };
    assert_eq!(left, ["first left"]);
    registry.stop().await;
}

#[tokio::test]
async fn a_caller_without_a_lease_cannot_watch() {
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let own = observe(&mut client, "own").await;
    leave(&mut client, &own.cookie).await.unwrap();
    assert_refused(Watcher::begin(&mut client, &own.cookie, 0).await.map(drop), Reason::CookieUnknown);
    let without = client.watch_peers(WatchPeersRequest::default()).await;
    assert_refused(without.map(drop), Reason::CookieMissing);
    registry.stop().await;
}

#[tokio::test]
async fn a_registry_that_stops_ends_its_watches_and_they_go_on_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let registry = Running::start(in_folder(folder.path())).await;
    let mut client = registry.client();
    let own = register(&mut client, "own", "10.0.0.1:7801").await;
    register(&mut client, "a", "10.0.0.2:7801").await;
    let mut watcher = Watcher::begin(&mut client, &own.cookie, 0).await.unwrap();
    assert_eq!(watcher.catch_up().await, ["a joined"]);
    let ((), ended) = tokio::join!(registry.stop(), watcher.next());
    assert_refused(ended, Reason::ShuttingDown);

    let registry = Running::start(in_folder(folder.path())).await;
    let mut client = registry.client();
    let mut again = Watcher::begin(&mut client, &own.cookie, watcher.revision).await.unwrap();
    // From before the restart the registry knows the list only.
    assert_eq!(again.catch_up().await, ["a joined"]);
    assert!(again.started_over);
    register(&mut client, "b", "10.0.0.3:7801").await;
    assert_eq!(again.changes(1).await, ["b joined"]);
    let mut resumed = Watcher::begin(&mut client, &own.cookie, again.revision - 1).await.unwrap();
    assert_eq!(resumed.catch_up().await, ["b joined"]);
    assert!(!resumed.started_over);
    registry.stop().await;
}

#[tokio::test]
async fn a_watcher_that_does_not_read_is_told_that_it_lags_and_holds_up_nobody() {
    // No lease ends while all register one after the other, also on a slow machine.
    let config = registry::Config { ttl: Duration::from_secs(600), ..in_memory() };
    let registry = Running::start(config).await;
    let mut client = registry.client();
    let own = observe(&mut client, "own").await;
    let narrow = Endpoint::from_shared(format!("http://{}", registry.address)).unwrap().initial_stream_window_size(65_535);
    let mut slow_client = Client::new(narrow.connect_lazy());
    let mut slow = Watcher::begin(&mut slow_client, &own.cookie, 0).await.unwrap();
    slow.catch_up().await;
    let labels: BTreeMap<String, String> = (0..16).map(|n| (format!("{n:0>60}"), "x".repeat(60))).collect();
    for number in 0..4_500 {
        let ask = p2pdi::v1::RegisterRequest { labels: labels.clone(), ..asking(&format!("p{number}"), "10.0.0.2:7801") };
        client.register(ask).await.unwrap();
    }
    let mut told = 0;
    let lagged = loop {
        match slow.next().await {
            Ok(changes) => told += changes.len(),
            Err(status) => break status,
        }
    };
    assert!(told < 4_500);
    let lagged = assert_refused::<()>(Err(lagged), Reason::Lagged);
    assert!(lagged.message().contains("since_revision"), "{lagged:?}");
    // What it missed, it asks for.
    let query_since = PQueryRequest { since_revision: slow.revision, ..Default::default() };
    let delta = query(&mut client, &own.cookie, query_since).await.unwrap();
    assert!(!delta.start_over && !delta.peers.is_empty());
    let mut again = Watcher::begin(&mut client, &own.cookie, slow.revision).await.unwrap();
    assert_eq!(told + again.catch_up().await.len(), 4_500);
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_thousand_watchers_are_told_of_a_change() {
    const WATCHERS: usize = 1_000;
    let registry = Running::start(in_memory()).await;
    let mut client = registry.client();
    let own = observe(&mut client, "own").await;
    let mut watching = JoinSet::new();
    for _ in 0..WATCHERS / 100 {
        // A connection carries some hundred streams.
        let mut client = registry.client();
        for _ in 0..100 {
            let mut watcher = Watcher::begin(&mut client, &own.cookie, 0).await.unwrap();
            watcher.catch_up().await;
            watching.spawn(async move { watcher.changes(1).await });
        }
    }
    register(&mut client, "a", "10.0.0.2:7801").await;
    let told = timeout(PATIENCE, watching.join_all()).await.expect("all are told");
    assert_eq!(told.len(), WATCHERS);
    // How fast, the benchmark measures.
    assert!(told.iter().all(|changes| changes == &["a joined"]));
    registry.stop().await;
}
