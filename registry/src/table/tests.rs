//! The rules of the table.

mod brake;
mod queries;
mod replicated;
mod reservations;
mod watching;

use super::{deadlines::TICK_MS, *};
use p2pdi::{
    cookie::{Cookie, CookieHash},
    v1::{KeepAliveRequest, PQueryResponse, PeerState},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv6Addr,
};

pub(super) const SETTINGS: Settings =
    Settings { ttl_ms: 30_000, max_peers: 1_000_000, max_peers_per_address: 1_000_000, replicated: false, name_hold_ms: 0 };

pub(super) fn at(ms: u64) -> Now {
    Now { mono_ms: ms, uptime_ms: ms, wall_ms: 1_790_000_000_000 + ms }
}

pub(super) fn cookie(number: u128) -> Cookie {
    Cookie::from_bytes(number.to_be_bytes())
}

pub(super) fn ask(name: &str, number: u128) -> Registration {
    Registration {
        name: name.parse().unwrap(),
        endpoint: Some("10.0.0.1:7801".parse().unwrap()),
        labels: Labels::default(),
        id: None,
        presented: None,
        candidate_cookie: cookie(number),
        address: Ipv6Addr::from_bits(0xffff_0a00_0001),
        owned: false,
    }
}

/// The peer with this cookie registers again.
pub(super) fn holder(name: &str, number: u128) -> Registration {
    Registration { presented: Some(cookie(number)), ..ask(name, u128::MAX - 1) }
}

/// As a store would accept it.
pub(super) fn accept(table: &mut Table, change: Change, now: Now) -> Option<Lease> {
    let revision = table.revision() + 1;
    if table.settings.replicated {
        table.apply(change.clone(), revision, now);
    }
    table.settle(change, Some(revision), now)
}

pub(super) fn register(table: &mut Table, registration: &Registration, now: Now) -> Result<(Lease, CookieHash), Refusal> {
    let (prepared, cookie) = table.prepare_register(registration, now)?;
    let lease = match prepared {
        Prepared::Done(lease) => lease,
        Prepared::Write(change) => accept(table, change, now).unwrap(),
    };
    Ok((lease, cookie.hash()))
}

pub(super) fn leave(table: &mut Table, cookie: &CookieHash, now: Now) -> Result<(), Refusal> {
    if let Prepared::Write(change) = table.prepare_leave(cookie, now)? {
        accept(table, change, now).unwrap();
    }
    Ok(())
}

/// Ends all leases that ran out, looking at `limit` at a time.
pub(super) fn expire(table: &mut Table, now: Now, limit: usize) {
    loop {
        let expired = table.expire(now, limit);
        for change in expired.changes {
            accept(table, change, now);
        }
        if !expired.more {
            return;
        }
    }
}

fn prepared_change(table: &mut Table, registration: &Registration, now: Now) -> (Change, Cookie) {
    let (prepared, cookie) = table.prepare_register(registration, now).unwrap();
    let Prepared::Write(change) = prepared else { panic!("a peer is stored") };
    (change, cookie)
}

fn table() -> Table {
    Table::new(SETTINGS, [7; 32])
}

fn all(table: &mut Table, caller: &CookieHash, now: Now) -> PQueryResponse {
    table.query(caller, &Query { page_size: PAGE_MAX, ..Query::default() }, now).unwrap()
}

#[test]
fn a_change_shows_once_it_is_accepted_and_a_refused_one_leaves_no_trace() {
    let mut table = table();
    let (_, watcher) = register(&mut table, &ask("watcher", 1), at(0)).unwrap();
    let before = table.counts();
    let (change, new) = prepared_change(&mut table, &ask("a", 2), at(0));
    assert_eq!((&*change.key, change.expected_revision), ("a", 0));
    assert_eq!(all(&mut table, &watcher, at(1)).peers, []);
    assert_eq!(table.keep_alive(&new.hash(), KeepAliveRequest::default(), at(1)), Err(Refusal::CookieUnknown));
    assert!(matches!(table.prepare_register(&ask("A", 3), at(1)), Err(Refusal::Busy)));
    assert_eq!(table.counts().in_flight, 1);
    assert_eq!(table.settle(change, None, at(1)), None);
    assert_eq!(table.counts(), before);
    assert_eq!(all(&mut table, &watcher, at(2)).peers, []);
    register(&mut table, &ask("a", 4), at(2)).unwrap();
    assert_eq!(all(&mut table, &watcher, at(2)).peers.len(), 1);
}

#[test]
fn the_end_of_an_old_change_does_not_release_a_record_registered_anew() {
    let mut table = table();
    let (first, _) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    let (old, _) = prepared_change(&mut table, &holder("a", 1), at(1_000));
    // Another registry removes the record meanwhile.
    table.apply(Change::remove("a", first.revision), first.revision + 1, at(1_000));
    let (new, _) = prepared_change(&mut table, &ask("a", 3), at(1_000));
    assert_eq!(table.settle(old, None, at(1_000)), None);
    assert!(matches!(table.prepare_register(&ask("a", 4), at(1_000)), Err(Refusal::Busy)));
    assert!(accept(&mut table, new, at(1_000)).is_some());
    assert_eq!(table.counts().in_flight, 0);
    register(&mut table, &holder("a", 3), at(2_000)).unwrap();
}

#[test]
fn a_refused_move_leaves_the_holder_as_it_was() {
    let mut table = table();
    let (first, held) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    let elsewhere = Some("10.0.0.9:7801".parse().unwrap());
    let (change, own) = prepared_change(&mut table, &Registration { endpoint: elsewhere, ..holder("a", 1) }, at(1_000));
    assert_eq!((change.expected_revision, own.hash()), (first.revision, held));
    let kept = table.keep_alive(&held, KeepAliveRequest::default(), at(2_000)).unwrap();
    assert_eq!(kept.peer.registration_count, 1);
    table.settle(change, None, at(2_000));
    let kept = table.keep_alive(&held, KeepAliveRequest::default(), at(3_000)).unwrap().peer;
    assert_eq!((kept.registration_count, kept.endpoint.as_str()), (1, "10.0.0.1:7801"));
}

#[test]
fn a_lease_does_not_end_while_its_renewal_is_in_flight() {
    let mut table = table();
    let (_, held) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    let (change, _) = prepared_change(&mut table, &holder("a", 1), at(29_000));
    expire(&mut table, at(31_000), 100);
    assert_eq!(table.counts().active, 1);
    accept(&mut table, change, at(31_000)).unwrap();
    assert_eq!(table.keep_alive(&held, KeepAliveRequest::default(), at(60_000)).unwrap().peer.state(), PeerState::Active);
}

#[test]
fn leases_end_within_a_tick_and_keep_alives_extend_them() {
    let mut table = table();
    let (_, a) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    let (_, b) = register(&mut table, &ask("b", 2), at(0)).unwrap();
    table.keep_alive(&a, KeepAliveRequest::default(), at(20_000)).unwrap();
    expire(&mut table, at(30_000), 100);
    assert_eq!(table.keep_alive(&b, KeepAliveRequest::default(), at(30_000)), Err(Refusal::LeaseExpired));
    let expired = table.expire(at(30_000 + TICK_MS), 100).changes;
    assert_eq!(
        expired.iter().map(|change| (&*change.key, change.peer.as_ref().unwrap().active)).collect::<Vec<_>>(),
        [("b", false)]
    );
    accept(&mut table, expired[0].clone(), at(30_000 + TICK_MS));
    assert_eq!((table.counts().active, table.counts().inactive), (1, 1));
    assert!(table.next_deadline_ms().unwrap() <= 50_000 + TICK_MS);
}

#[test]
fn an_expiry_that_cannot_be_stored_does_not_show_and_is_tried_again() {
    let mut table = table();
    let (_, a) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    let revision = table.revision();
    let mut expired = table.expire(at(40_000), 10).changes;
    assert_eq!((expired.len(), table.counts().in_flight), (1, 1));
    assert!(table.expire(at(41_000), 10).changes.is_empty(), "it is in flight");
    assert!(matches!(table.prepare_leave(&a, at(41_000)), Err(Refusal::Busy)));
    table.settle(expired.remove(0), None, at(41_000));
    assert_eq!((table.counts().in_flight, table.counts().inactive, table.revision()), (0, 0, revision));
    assert_eq!(table.keep_alive(&a, KeepAliveRequest::default(), at(41_000)), Err(Refusal::LeaseExpired));
    expire(&mut table, at(42_000), 10);
    assert_eq!((table.counts().inactive, table.revision()), (1, revision + 1));
    assert!(matches!(table.prepare_leave(&a, at(42_000)), Ok(Prepared::Done(_))));
}

#[test]
fn a_change_of_another_registry_shows_and_one_applied_twice_counts_once() {
    let (mut table, mut other) = (table(), table());
    let (_, me) = register(&mut table, &ask("me", u128::MAX), at(0)).unwrap();
    let since_revision = table.revision();
    let (change, theirs) = prepared_change(&mut other, &ask("a", 1), at(5));
    // Both registries decide on the same name; the other one is first.
    let (refused, ours) = prepared_change(&mut table, &ask("A", 2), at(5));
    for _ in 0..2 {
        table.apply(change.clone(), since_revision + 5, at(6));
    }
    table.settle(refused, None, at(7));
    assert_eq!(
        table.counts(),
        Counts { active: 2, inactive: 0, observers: 0, revision: since_revision + 5, in_flight: 0, suspects: 0 }
    );
    assert_eq!(table.keep_alive(&ours.hash(), KeepAliveRequest::default(), at(8)), Err(Refusal::CookieUnknown));
    assert_eq!(table.keep_alive(&theirs.hash(), KeepAliveRequest::default(), at(8)).unwrap().peer.name, "a");
    // It is removed there, and an older change comes late.
    table.apply(Change::remove("a", since_revision + 5), since_revision + 9, at(9));
    assert_eq!(table.keep_alive(&theirs.hash(), KeepAliveRequest::default(), at(9)), Err(Refusal::CookieUnknown));
    let delta = Query { page_size: 10, since_revision, ..Query::default() };
    let answer = table.query(&me, &delta, at(9)).unwrap();
    assert_eq!((answer.revision, answer.start_over), (since_revision + 9, true), "what it should report has been removed");
}

#[test]
fn interval_and_ttl_grow_with_the_population() {
    let mut table = table();
    assert_eq!(table.ttl_ms(), 30_000);
    let (mut spread, mut last) = (BTreeSet::new(), 0);
    for number in 0..100_000 {
        let (lease, _) = register(&mut table, &ask(&format!("p{number}"), number), at(0)).unwrap();
        spread.insert(lease.interval_ms);
        last = lease.interval_ms;
    }
    // 100,000 peers at 5,000 a second: every 20 s.
    assert!((16_000..=20_000).contains(&last), "{last}");
    assert_eq!(table.ttl_ms(), 60_000);
    assert!(spread.len() > 1_000, "jitter spreads the calls: {}", spread.len());
}

#[test]
fn records_are_removed_after_thirty_days_and_deltas_from_before_start_over() {
    let mut table = table();
    let (first, a) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    leave(&mut table, &a, at(1_000)).unwrap();
    expire(&mut table, at(FORGET_AFTER_MS), 10);
    assert_eq!(table.counts().inactive, 1);
    let removed = table.expire(at(FORGET_AFTER_MS + 1_000), 10).changes;
    assert_eq!(
        removed.iter().map(|change| (&*change.key, &change.peer, change.expected_revision)).collect::<Vec<_>>(),
        [("a", &None, first.revision + 1)]
    );
    assert!(removed[0].fence.is_some());
    assert!(table.expire(at(FORGET_AFTER_MS + 1_000), 10).changes.is_empty(), "the removal is in flight");
    accept(&mut table, removed[0].clone(), at(FORGET_AFTER_MS + 1_000));
    assert_eq!(table.counts().inactive, 0);
    let now = at(FORGET_AFTER_MS + 2_000);
    assert_eq!(table.keep_alive(&a, KeepAliveRequest::default(), now), Err(Refusal::CookieUnknown));
    let (_, b) = register(&mut table, &ask("b", 2), now).unwrap();
    let query = Query { page_size: 10, since_revision: first.revision, ..Query::default() };
    assert!(table.query(&b, &query, now).unwrap().start_over);
}

#[test]
fn only_leases_fill_the_registry_and_the_oldest_inactive_record_is_evicted() {
    let mut table = Table::new(Settings { max_peers: 3, ..SETTINGS }, [7; 32]);
    let (_, a) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    for (name, number) in [("b", 2), ("c", 3)] {
        register(&mut table, &ask(name, number), at(0)).unwrap();
    }
    assert_eq!(register(&mut table, &ask("d", 4), at(0)).unwrap_err(), Refusal::Full { max: 3 });
    leave(&mut table, &a, at(1)).unwrap();
    assert_eq!(table.keep_alive(&a, KeepAliveRequest::default(), at(2)), Err(Refusal::LeaseExpired));
    register(&mut table, &ask("d", 4), at(2)).unwrap();
    assert_eq!(table.next_deadline_ms(), Some(0), "there is a record to evict");
    expire(&mut table, at(3), 10);
    assert_eq!(table.keep_alive(&a, KeepAliveRequest::default(), at(3)), Err(Refusal::CookieUnknown));
    assert_eq!((table.counts().active, table.counts().inactive), (3, 0));
    assert!(table.next_deadline_ms().is_some_and(|next_ms| next_ms > 0));
}

#[test]
fn one_address_holds_a_limited_number_of_leases() {
    let mut table = Table::new(Settings { max_peers_per_address: 2, ..SETTINGS }, [7; 32]);
    let (_, a) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    register(&mut table, &Registration { endpoint: None, ..ask("b", 2) }, at(0)).unwrap();
    assert_eq!(register(&mut table, &ask("c", 3), at(0)).unwrap_err(), Refusal::AddressFull { max: 2 });
    register(&mut table, &holder("a", 1), at(0)).expect("renewing a lease adds none");
    let elsewhere = Registration { address: Ipv6Addr::from_bits(0xffff_0a00_0002), ..ask("c", 3) };
    register(&mut table, &elsewhere, at(0)).unwrap();
    leave(&mut table, &a, at(1)).unwrap();
    register(&mut table, &ask("d", 5), at(2)).unwrap();
}

#[test]
fn registrations_that_are_being_written_count_for_their_address() {
    let mut table = Table::new(Settings { max_peers_per_address: 2, ..SETTINGS }, [7; 32]);
    let full = Err(Refusal::AddressFull { max: 2 });
    let refused = |table: &mut Table, name: &str| table.prepare_register(&ask(name, 9), at(0)).map(drop);
    let (first, _) = prepared_change(&mut table, &ask("a", 1), at(0));
    let (second, _) = prepared_change(&mut table, &ask("b", 2), at(0));
    assert_eq!(refused(&mut table, "c"), full);
    // One is stored, one is not.
    accept(&mut table, first, at(1)).unwrap();
    assert_eq!(refused(&mut table, "c"), full);
    table.settle(second, None, at(1));
    // A renewal in flight is no further lease.
    let (renewal, _) = prepared_change(&mut table, &holder("a", 1), at(2));
    let (third, c) = prepared_change(&mut table, &ask("c", 4), at(2));
    assert_eq!(refused(&mut table, "d"), full);
    accept(&mut table, renewal, at(3)).unwrap();
    accept(&mut table, third, at(3)).unwrap();
    assert_eq!(refused(&mut table, "d"), full);
    leave(&mut table, &c.hash(), at(4)).unwrap();
    // Another registry removes the record of a registration in flight.
    let (moved, _) = prepared_change(&mut table, &ask("d", 5), at(5));
    table.settle(moved, None, at(5));
    assert_eq!(table.addresses.count(ask("a", 1).address), 1, "nothing stays counted");
}

#[test]
fn callers_that_register_and_leave_in_a_loop_leave_nothing_behind() {
    let mut table = Table::new(Settings { max_peers: 3, ..SETTINGS }, [7; 32]);
    let (_, stays) = register(&mut table, &ask("stays", 1), at(0)).unwrap();
    for number in 0..10_000 {
        // The same names, new ones, and observers, all within one ttl.
        let name = if number % 2 == 0 { "again".to_owned() } else { format!("new-{number}") };
        let (_, peer) = register(&mut table, &ask(&name, 10 + 2 * number), at(2)).unwrap();
        let asks = Registration { endpoint: None, ..ask("observer", 11 + 2 * number) };
        let (_, observer) = register(&mut table, &asks, at(1)).unwrap();
        leave(&mut table, &peer, at(2)).unwrap();
        leave(&mut table, &observer, at(2)).unwrap();
        expire(&mut table, at(2), 10);
        assert!(table.deadlines.len() <= 1, "{} after {number} rounds", table.deadlines.len());
    }
    table.keep_alive(&stays, KeepAliveRequest::default(), at(3)).unwrap();
    assert_eq!(table.deadlines.len(), 1);
    assert!(table.records.len() <= 3);
}

#[test]
fn after_a_load_every_active_peer_has_a_whole_ttl_and_inactive_ones_stay_inactive() {
    let mut table = table();
    let (_, a) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    let (_, b) = register(&mut table, &ask("b", 2), at(0)).unwrap();
    leave(&mut table, &b, at(5)).unwrap();
    let revision = table.revision();
    let mut again = Table::new(SETTINGS, [8; 32]);
    for slot in [1, 0] {
        let record = table.records.get(slot).unwrap();
        again.apply(Change::put(record.peer.clone(), 0), record.revision, at(900_000));
    }
    again.loaded(revision + 100, revision + 100, at(1_000_000));
    assert_eq!((again.counts().active, again.counts().inactive), (1, 1));
    assert_eq!(again.keep_alive(&b, KeepAliveRequest::default(), at(1_000_001)), Err(Refusal::LeaseExpired));
    let by_name =
        Query { name: "a".into(), pattern: p2pdi::selector::NamePattern::parse("a").unwrap(), page_size: 1, ..Query::default() };
    let (_, observer) = register(&mut again, &Registration { endpoint: None, ..ask("observer", 9) }, at(1_000_001)).unwrap();
    let listed = again.query(&observer, &by_name, at(1_000_001)).unwrap().peers.remove(0);
    assert_eq!(listed.last_active_at, Some(view::timestamp(at(0).wall_ms)), "the load is no activity of the peer");
    let kept = again.keep_alive(&a, KeepAliveRequest::default(), at(1_029_999)).unwrap();
    assert_eq!(kept.revision, revision + 100);
    let query = Query { page_size: 10, since_revision: revision, ..Query::default() };
    assert!(again.query(&a, &query, at(1_030_000)).unwrap().start_over);
}

#[test]
fn a_lease_never_ends_before_the_ttl_that_its_peer_was_given() {
    let mut table = Table::new(Settings { ttl_ms: 1_000, ..SETTINGS }, [7; 32]);
    for number in 0..20_000 {
        register(&mut table, &ask(&format!("p{number}"), number), at(0)).unwrap();
    }
    let (given, me) = register(&mut table, &ask("me", u128::MAX), at(0)).unwrap();
    assert!(given.ttl_ms > 10_000, "{}", given.ttl_ms);
    for number in 0..20_000 {
        leave(&mut table, &cookie(number).hash(), at(1)).unwrap();
    }
    // The answer with the new ttl may get lost.
    assert_eq!(table.keep_alive(&me, KeepAliveRequest::default(), at(2)).unwrap().ttl_ms, 1_000);
    expire(&mut table, at(9_000), 100);
    table.keep_alive(&me, KeepAliveRequest::default(), at(9_000)).expect("its ttl of the registration still counts");
}

#[test]
fn leases_outlive_a_pause_of_the_registry_and_end_when_it_has_run_for_their_ttl() {
    const TTL_MS: u64 = 10_000;
    for (pause_ms, left_after_ms) in [(2_000, 7_000), (9_000, 7_000), (40_000, TTL_MS), (365 * 86_400_000, TTL_MS)] {
        let mut table = Table::new(Settings { ttl_ms: TTL_MS, ..SETTINGS }, [7; 32]);
        let mut clock = RunningTime::start(500_000, TTL_MS);
        let mut uptime_ms = 500_000;
        // As whoever uses the table reads the clock.
        let mut read = |table: &mut Table, uptime_ms: u64| {
            let (mono_ms, paused_ms) = clock.check(uptime_ms);
            let now = at(mono_ms);
            if paused_ms > 0 {
                table.resumed(paused_ms, now);
            }
            expire(table, now, 100);
            now
        };
        let started = read(&mut table, uptime_ms);
        let (_, gone) = register(&mut table, &ask("gone", 1), started).unwrap();
        let (_, kept) = register(&mut table, &ask("kept", 2), started).unwrap();
        let (_, watcher) = register(&mut table, &Registration { endpoint: None, ..ask("watcher", 3) }, started).unwrap();
        for _ in 0..6 {
            uptime_ms += 500;
            read(&mut table, uptime_ms);
        }
        uptime_ms += pause_ms;
        let resumed = read(&mut table, uptime_ms);
        let listed = all(&mut table, &watcher, resumed).peers;
        let left: Vec<_> = listed.iter().map(|peer| peer.lease_remaining.unwrap()).collect();
        assert_eq!(left, [view::duration(left_after_ms); 2], "after {pause_ms} ms");
        table.keep_alive(&kept, KeepAliveRequest::default(), resumed).expect("it is alive");
        for _ in 0..left_after_ms / 500 {
            uptime_ms += 500;
            let now = read(&mut table, uptime_ms);
            table.keep_alive(&kept, KeepAliveRequest::default(), now).unwrap();
        }
        let now = read(&mut table, uptime_ms);
        assert_eq!(table.keep_alive(&gone, KeepAliveRequest::default(), now), Err(Refusal::LeaseExpired), "after {pause_ms} ms");
    }
}

#[test]
fn a_lease_that_ended_before_a_pause_stays_ended() {
    let mut table = table();
    let (_, gone) = register(&mut table, &ask("gone", 1), at(0)).unwrap();
    table.resumed(40_000, at(30_000));
    assert_eq!(table.keep_alive(&gone, KeepAliveRequest::default(), at(30_000)), Err(Refusal::LeaseExpired));
}
