//! WatchPeers: what a watcher is told.

use super::*;
use p2pdi::{
    id::PeerId,
    v1::{WatchPeersResponse, peer_event},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};

/// A watcher, and what it knows by what it was told.
struct Watcher {
    watch: Watch,
    known: BTreeMap<String, String>,
    revision: u64,
    caught_up: bool,
    events: Vec<String>,
}

impl Watcher {
    fn begin(table: &mut Table, caller: &CookieHash, since: u64, now: Now) -> Self {
        let watch = table.watch(caller, since, now).unwrap();
        Self { watch, known: BTreeMap::new(), revision: since, caught_up: false, events: Vec::new() }
    }

    /// Reads all there is. Gives the number of messages.
    fn read(&mut self, table: &mut Table, now: Now) -> Result<usize, Refusal> {
        let mut messages = 0;
        while let Some(told) = table.watched(&mut self.watch, false, now)? {
            messages += 1;
            self.take(&told.message);
            assert_eq!(told.more, self.revision != table.revision(), "at the end, and only there, all is told");
        }
        Ok(messages)
    }

    fn take(&mut self, message: &WatchPeersResponse) {
        assert!(message.events.len() <= 256);
        assert!(message.revision >= self.revision || self.revision == 0 || message.start_over || message.revision == 0);
        self.revision = message.revision;
        if message.start_over {
            self.known.clear();
        }
        assert!(!(self.caught_up && message.caught_up), "it is said once");
        self.caught_up |= message.caught_up;
        for event in message.events().unwrap() {
            match event.change.unwrap() {
                peer_event::Change::Joined(peer) => {
                    self.events.push(format!("{} joined", peer.name));
                    self.known.insert(peer.name, peer.endpoint);
                }
                peer_event::Change::Changed(peer) => {
                    self.events.push(format!("{} changed", peer.name));
                    self.known.insert(peer.name, peer.endpoint);
                }
                peer_event::Change::Left(gone) => {
                    self.events.push(format!("{} left", gone.name));
                    self.known.remove(&gone.name);
                }
            }
        }
    }

    fn assert_knows_all(&self, table: &mut Table, caller: &CookieHash, now: Now) {
        // One page has them all.
        let all = all(table, caller, now).peers.into_iter().map(|peer| (peer.name, peer.endpoint));
        assert_eq!(self.known, all.collect());
        assert!(self.caught_up);
    }
}

/// A peer that registered with another registry of the same store.
fn stored(name: &str) -> Peer {
    Peer {
        strings: PackedStrings::new(name, "10.0.0.2:1", &Labels::default()),
        id: PeerId::from_bytes([1; 16]),
        cookie: cookie(99).hash(),
        address: Ipv6Addr::LOCALHOST,
        first_registered_ms: 0,
        last_registered_ms: 0,
        last_active_ms: 0,
        registrations: Registrations::default(),
        active: true,
    }
}

fn free(table: &mut Table, name: &str, now: Now) {
    if let Ok(Prepared::Write(change)) = table.prepare_free(&name.parse().unwrap()) {
        accept(table, change, now);
    }
}

#[test]
fn a_watcher_is_told_the_list_in_bounded_messages_and_then_each_change() {
    let mut table = table();
    let (_, own) = register(&mut table, &ask("own", 1), at(0)).unwrap();
    for number in 0..600 {
        register(&mut table, &ask(&format!("p{number}"), 100 + number), at(0)).unwrap();
    }
    let mut watcher = Watcher::begin(&mut table, &own, 0, at(0));
    assert!(watcher.read(&mut table, at(0)).unwrap() >= 3);
    watcher.assert_knows_all(&mut table, &own, at(0));
    assert_eq!(watcher.known.len(), 600);
    assert!(table.watched(&mut watcher.watch, false, at(0)).unwrap().is_none());
    let idle = table.watched(&mut watcher.watch, true, at(0)).unwrap().unwrap().message;
    assert_eq!((idle.revision, idle.events.len(), idle.caught_up), (table.revision(), 0, false));

    watcher.events.clear();
    let (_, a) = register(&mut table, &ask("a", 2), at(10)).unwrap();
    let elsewhere = Registration { endpoint: Some("10.0.0.9:1".parse().unwrap()), ..holder("a", 2) };
    register(&mut table, &elsewhere, at(20)).unwrap();
    leave(&mut table, &a, at(30)).unwrap();
    free(&mut table, "P7", at(40));
    // Nobody sees an observer, and its own changes a watcher knows.
    register(&mut table, &Registration { endpoint: None, ..ask("o", 3) }, at(50)).unwrap();
    register(&mut table, &holder("own", 1), at(50)).unwrap();
    let revision = table.revision() + 1;
    table.apply(Change::put(stored("b"), 0), revision, at(60));
    assert_eq!(watcher.read(&mut table, at(60)), Ok(1));
    assert_eq!(watcher.events, ["a joined", "a changed", "a left", "p7 left", "b joined"]);
    watcher.assert_knows_all(&mut table, &own, at(60));

    for ms in (0..40_000).step_by(5_000) {
        table.keep_alive(&own, KeepAliveRequest::default(), at(ms)).unwrap();
    }
    expire(&mut table, at(40_000), 100);
    watcher.read(&mut table, at(40_000)).unwrap();
    assert!(watcher.known.is_empty());
    watcher.assert_knows_all(&mut table, &own, at(40_000));
}

#[test]
fn a_watcher_without_a_lease_is_told_so() {
    let mut table = table();
    let (_, own) = register(&mut table, &ask("own", 1), at(0)).unwrap();
    let mut watcher = Watcher::begin(&mut table, &own, 0, at(0));
    watcher.read(&mut table, at(10)).unwrap();
    assert_eq!(watcher.read(&mut table, at(30_001)), Err(Refusal::LeaseExpired));
    assert_eq!(table.watch(&own, 0, at(30_001)).err(), Some(Refusal::LeaseExpired));
    free(&mut table, "own", at(30_001));
    assert_eq!(watcher.read(&mut table, at(30_001)), Err(Refusal::CookieUnknown));
}

#[test]
fn a_watcher_that_lags_is_told_so_and_misses_nothing_when_it_begins_again() {
    let mut table = table();
    let (_, own) = register(&mut table, &ask("own", 1), at(0)).unwrap();
    let mut slow = Watcher::begin(&mut table, &own, 0, at(0));
    slow.read(&mut table, at(0)).unwrap();
    for number in 0..5_000 {
        register(&mut table, &ask(&format!("p{number}"), 100 + number), at(0)).unwrap();
    }
    assert_eq!(slow.read(&mut table, at(0)), Err(Refusal::Lagged));
    let mut again = Watcher::begin(&mut table, &own, slow.revision, at(0));
    again.read(&mut table, at(0)).unwrap();
    assert_eq!((again.known.len(), again.caught_up), (5_000, true));
    assert!(again.events.iter().all(|event| event.ends_with("changed") || event.ends_with("joined")));
}

#[test]
fn a_revision_that_is_not_known_starts_over() {
    let mut table = table();
    let (_, own) = register(&mut table, &ask("own", 1), at(0)).unwrap();
    let (lease, _) = register(&mut table, &ask("a", 2), at(0)).unwrap();
    for since in [table.revision() + 1, u64::MAX] {
        let mut watch = table.watch(&own, since, at(0)).unwrap();
        let first = table.watched(&mut watch, false, at(0)).unwrap().unwrap();
        assert!(first.message.start_over && first.message.events.len() == 1, "{since}");
    }
    // As after a restart.
    table.loaded(lease.revision + 10, lease.revision + 10, at(0));
    let mut watch = table.watch(&own, lease.revision, at(0)).unwrap();
    assert!(table.watched(&mut watch, false, at(0)).unwrap().unwrap().message.start_over);
}

#[test]
fn a_name_that_is_freed_is_gone_for_who_asks_by_revision_too() {
    let mut table = table();
    let (_, own) = register(&mut table, &ask("own", 1), at(0)).unwrap();
    register(&mut table, &ask("a", 2), at(0)).unwrap();
    let seen = all(&mut table, &own, at(0));
    free(&mut table, "a", at(0));
    let query = Query { page_size: PAGE_MAX, since_revision: seen.revision, ..Query::default() };
    let delta = table.query(&own, &query, at(0)).unwrap();
    assert!(delta.start_over && delta.peers.is_empty(), "{delta:?}");
}

#[test]
fn whoever_watches_in_whatever_pieces_knows_what_the_table_lists() {
    for seed in 0..20 {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut table = table();
        let (_, own) = register(&mut table, &ask("own", 1), at(0)).unwrap();
        let mut watchers: Vec<Watcher> = (0..4).map(|_| Watcher::begin(&mut table, &own, 0, at(0))).collect();
        for step in 0..2_000_u64 {
            let now = at(step * 50);
            let number = rng.random_range(0..40_u128);
            let (name, cookie) = (format!("p{number}"), cookie(100 + number));
            match rng.random_range(0..20) {
                0..8 => {
                    let endpoint = Some(format!("10.0.0.1:{}", rng.random_range(1..100)).parse().unwrap());
                    let _taken = register(&mut table, &Registration { endpoint, ..holder(&name, 100 + number) }, now);
                }
                8..12 => {
                    let _unknown = leave(&mut table, &cookie.hash(), now);
                }
                12 => free(&mut table, &name, now),
                13..16 => expire(&mut table, now, 10),
                _ => {
                    let chosen = rng.random_range(0..watchers.len());
                    let watcher = &mut watchers[chosen];
                    if rng.random_bool(0.3) {
                        // It reconnects, and keeps what it knows.
                        watcher.watch = table.watch(&own, watcher.revision, now).unwrap();
                        watcher.caught_up = false;
                    }
                    watcher.read(&mut table, now).unwrap();
                    expire(&mut table, now, 10);
                    watcher.read(&mut table, now).unwrap();
                    watcher.assert_knows_all(&mut table, &own, now);
                }
            }
            table.keep_alive(&own, KeepAliveRequest::default(), now).unwrap();
        }
    }
}
