//! A table of one of several registries.

use super::*;
use crate::table::{Kept, SHARDS};

const REPLICATED: Settings = Settings { replicated: true, ..SETTINGS };

/// A table that keeps no shard, with a peer `a`.
fn foreign() -> (Table, CookieHash) {
    let mut table = Table::new(REPLICATED, [7; 32]);
    table.keep_shards(Kept::NONE, 0, at(0));
    let (_, a) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    (table, a)
}

/// All shards, each with this fence.
fn fenced(fence: i64) -> Kept {
    (0..SHARDS).map(|shard| (shard, fence)).collect()
}

#[test]
fn a_shard_that_was_lost_and_taken_again_is_a_new_one_and_what_was_decided_before_is_of_the_old_one() {
    let mut table = Table::new(REPLICATED, [7; 32]);
    table.keep_shards(fenced(7), 0, at(0));
    register(&mut table, &ask("a", 1), at(0)).unwrap();
    register(&mut table, &ask("b", 2), at(20_000)).unwrap();
    let decided = table.expire(at(30_000 + 2 * TICK_MS), 10).changes;
    assert_eq!((decided.len(), decided[0].fence), (1, Some(7)));
    // Both were without a keeper for a moment, in which calls to others were not passed on to this table.
    table.keep_shards(fenced(8), 5_000, at(49_000));
    assert_eq!(decided[0].fence, Some(7), "the store refuses it");
    table.settle(decided[0].clone(), None, at(49_000));
    assert!(table.expire(at(83_999), 10).changes.is_empty(), "a whole ttl and the grace");
    let ended = table.expire(at(84_000 + 2 * TICK_MS), 10).changes;
    assert_eq!(ended.iter().map(|change| change.fence).collect::<Vec<_>>(), [Some(8), Some(8)]);
    // The same shards again are nothing new.
    table.keep_shards(fenced(8), 5_000, at(90_000));
    assert_eq!(table.counts().in_flight, 2);
}

#[test]
fn a_lease_that_another_registry_keeps_ends_only_when_that_is_stored() {
    let (mut table, a) = foreign();
    assert_eq!(table.next_deadline_ms(), None);
    assert!(table.expire(at(10_000_000), 10).changes.is_empty());
    table.keep_alive(&a, KeepAliveRequest::default(), at(10_000_000)).unwrap();
    // Nobody else has the name meanwhile, however late it is.
    let taken = table.prepare_register(&ask("a", 2), at(20_000_000)).err();
    assert!(matches!(taken, Some(Refusal::NameTaken { has_lease: true, retry_after_seconds: 30, .. })), "{taken:?}");
    let record = table.records.get(0).unwrap();
    let ended = Change::put(Peer { active: false, ..record.peer.clone() }, 0);
    let revision = record.revision + 1;
    table.apply(ended, revision, at(20_000_000));
    assert_eq!(table.keep_alive(&a, KeepAliveRequest::default(), at(20_000_001)).err(), Some(Refusal::LeaseExpired));
}

#[test]
fn what_is_extended_is_passed_on_once_with_the_latest_report() {
    let (mut table, a) = foreign();
    assert!(table.take_extended(10).is_empty());
    for documents in [1, 2] {
        table.keep_alive(&a, KeepAliveRequest { documents, ..KeepAliveRequest::default() }, at(1_000)).unwrap();
    }
    let extended = table.take_extended(10);
    assert_eq!(extended.len(), 1);
    assert_eq!((extended[0].cookie, extended[0].documents), (a, 2));
    assert!(table.take_extended(10).is_empty());
    // Observers are nobody else's business.
    let (_, observer) = register(&mut table, &Registration { endpoint: None, ..ask("o", 9) }, at(1_000)).unwrap();
    table.keep_alive(&observer, KeepAliveRequest::default(), at(1_000)).unwrap();
    assert!(table.take_extended(10).is_empty());
}

#[test]
fn a_peer_that_gets_another_cookie_before_it_was_passed_on_is_passed_on_under_that_one() {
    let (mut table, a) = foreign();
    table.keep_alive(&a, KeepAliveRequest::default(), at(1_000)).unwrap();
    let record = table.records.get(0).unwrap();
    let changed = Change::put(Peer { cookie: cookie(2).hash(), ..record.peer.clone() }, 0);
    let revision = record.revision + 1;
    table.apply(changed, revision, at(1_001));
    table.take_extended(10);
    table.keep_alive(&cookie(2).hash(), KeepAliveRequest::default(), at(2_000)).unwrap();
    assert_eq!(table.take_extended(10).iter().map(|extended| extended.cookie).collect::<Vec<_>>(), [cookie(2).hash()]);
}

#[test]
fn who_takes_a_shard_over_gives_everybody_a_whole_ttl_and_a_grace() {
    let (mut table, a) = foreign();
    table.keep_shards(fenced(7), 5_000, at(100_000));
    assert!(table.expire(at(134_999), 10).changes.is_empty());
    let passed_on = Extended { cookie: a, load: None, index_version: 3, documents: 4 };
    table.extended_elsewhere(&passed_on, at(134_000));
    assert!(table.expire(at(163_999), 10).changes.is_empty());
    let ended = table.expire(at(164_000 + 2 * TICK_MS), 10).changes;
    assert_eq!((ended.len(), ended[0].fence), (1, Some(7)));
    let peer = table.records.get(0).unwrap();
    assert_eq!((peer.index_version, peer.documents), (3, 4));
}

#[test]
fn who_gives_a_shard_away_ends_no_lease_of_it_any_more() {
    let mut table = Table::new(REPLICATED, [7; 32]);
    register(&mut table, &ask("a", 1), at(0)).unwrap();
    assert!(table.next_deadline_ms().is_some());
    table.keep_shards(Kept::NONE, 0, at(1_000));
    assert_eq!((table.next_deadline_ms(), table.deadlines.len()), (None, 0));
    assert!(table.expire(at(1_000_000), 10).changes.is_empty());
}

#[test]
fn a_listing_by_revisions_is_the_same_at_two_tables_and_continues_at_either() {
    let mut tables = [Table::new(REPLICATED, [1; 32]), Table::new(REPLICATED, [2; 32])];
    tables.iter_mut().for_each(|table| table.set_token_key([9; 32]));
    let (_, me) = register(&mut tables[0], &ask("me", 1), at(0)).unwrap();
    for number in 2..40 {
        register(&mut tables[0], &ask(&format!("p{number}"), number), at(0)).unwrap();
    }
    // The other one read the records in another order.
    let records: Vec<_> =
        (0..39).map(|slot| tables[0].records.get(slot).unwrap()).map(|r| (r.peer.clone(), r.revision)).collect();
    for (peer, revision) in records.into_iter().rev() {
        tables[1].apply(Change::put(peer, 0), revision, at(0));
    }
    let (mut seen, mut token) = (BTreeSet::new(), String::new());
    for page in 0.. {
        let query = Query { page_size: 5, page_token: token, ..Query::default() };
        let answer = tables[page % 2].query(&me, &query, at(1)).unwrap();
        for peer in answer.peers {
            assert!(seen.insert(peer.name), "twice");
        }
        token = answer.next_page_token;
        if token.is_empty() {
            break;
        }
    }
    assert_eq!(seen.len(), 38);
}

#[test]
fn records_that_are_not_stored_any_more_are_found_but_not_those_that_are_being_written() {
    let (mut table, _) = foreign();
    register(&mut table, &ask("b", 2), at(0)).unwrap();
    let (change, _) = prepared_change(&mut table, &ask("c", 3), at(0));
    let stored = [Box::from("b")].into_iter().collect();
    assert_eq!(table.not_stored(&stored, 0, 100), (vec!["a".to_owned()], None));
    assert_eq!(table.not_stored(&stored, 0, 1), (vec!["a".to_owned()], Some(1)));
    table.settle(change, None, at(0));
}

#[test]
fn of_two_observers_that_claim_one_name_at_once_one_stays_and_a_claimed_one_in_any_case() {
    let name: p2pdi::name::PeerName = "o".parse().unwrap();
    let observer = |number, owned| Registration { endpoint: None, owned, ..ask("o", number) };
    let mut held: Vec<_> = [1, 2].map(|number| cookie(number).hash()).into();
    held.sort_by_key(|hash| *hash.as_bytes());
    let number = |hash: &CookieHash| if *hash == cookie(1).hash() { 1 } else { 2 };
    let race = |owned| {
        let mut tables = [Table::new(REPLICATED, [1; 32]), Table::new(REPLICATED, [2; 32])];
        for (table, hash) in tables.iter_mut().zip(&held) {
            register(table, &observer(number(hash), owned), at(0)).unwrap();
            assert!(table.is_unclaimed(hash));
        }
        // Each asks the other's registry: the smaller hash stays.
        assert_eq!(tables[0].claim_elsewhere(&name, &held[1], owned, at(1)), Some(29_999));
        assert_eq!(tables[1].claim_elsewhere(&name, &held[0], owned, at(1)), None);
        assert!(tables[0].claimed(&held[0]) && !tables[1].claimed(&held[1]));
        assert!(!tables[0].is_unclaimed(&held[0]));
        tables
    };
    race(true);
    let mut tables = race(false);
    // Now it stays whatever the other one's hash is, but not for whose certificate carries the name.
    register(&mut tables[1], &observer(number(&held[1]), false), at(2)).unwrap();
    assert!(tables[1].claimed(&held[1]));
    assert!(tables[1].claim_elsewhere(&name, &held[0], false, at(2)).is_some());
    assert_eq!(tables[1].claim_elsewhere(&name, &held[0], true, at(2)), None);
    assert_eq!(tables[1].counts().observers, 0);
}

#[test]
fn a_peer_that_registered_elsewhere_ends_an_observer_with_its_name_unless_one_certificate_carries_it() {
    for owned in [false, true] {
        let mut table = Table::new(REPLICATED, [1; 32]);
        let (_, observer) = register(&mut table, &Registration { endpoint: None, owned, ..ask("o", 1) }, at(0)).unwrap();
        let mut elsewhere = Table::new(REPLICATED, [2; 32]);
        let (change, _) = prepared_change(&mut elsewhere, &ask("O", 2), at(0));
        // Where the peer is, the observer is adopted on the same condition, which it keeps.
        elsewhere.adopt_observer(observer, table.observer(&observer, at(0)).unwrap(), at(1));
        assert_eq!(elsewhere.observer(&observer, at(1)).map(|found| found.owned), owned.then_some(true));
        table.apply(change, 7, at(1));
        assert_eq!(table.observer(&observer, at(1)).is_some(), owned);
    }
}

#[test]
fn a_change_that_was_undone_before_it_was_answered_does_not_come_back() {
    let mut table = Table::new(REPLICATED, [7; 32]);
    let (change, _) = prepared_change(&mut table, &ask("a", 1), at(0));
    table.apply(change.clone(), 100, at(1));
    table.apply(Change::remove("a", 100), 101, at(1));
    // Somebody else asks for the name meanwhile.
    let (next, _) = prepared_change(&mut table, &ask("a", 2), at(1));
    assert_eq!(table.settle(change, Some(100), at(2)), None);
    assert_eq!((table.counts().active, next.expected_revision), (0, 0));
    table.apply(next.clone(), 102, at(3));
    assert_eq!(table.settle(next, Some(102), at(3)).unwrap().peer.name, "a");
    assert_eq!((table.counts().active, table.counts().in_flight), (1, 0));
}

#[test]
fn only_the_keeper_of_a_lease_that_ran_out_gives_the_name_to_somebody_else() {
    let mut table = Table::new(REPLICATED, [7; 32]);
    register(&mut table, &ask("a", 1), at(0)).unwrap();
    let late = at(REPLICATED.ttl_ms + 1);
    for (registration, is_of_keeper) in
        [(holder("a", 1), false), (Registration { owned: true, ..ask("a", 2) }, false), (ask("a", 2), true)]
    {
        let (change, _) = prepared_change(&mut table, &registration, late);
        assert_eq!(change.fence.is_some(), is_of_keeper);
        table.settle(change, None, late);
    }
}

#[test]
fn a_revision_is_reached_once_all_records_before_it_are_there() {
    let (mut table, a) = foreign();
    let before = table.revision();
    table.reload();
    let record = table.records.get(0).unwrap().peer.clone();
    table.apply(Change::put(record, 0), before + 50, at(1));
    assert_eq!(table.revision(), before);
    table.reloaded(before + 60);
    assert_eq!(table.revision(), before + 60);
    // What changed meanwhile is not known change by change.
    assert!(table.query(&a, &Query { since_revision: before, ..Query::default() }, at(2)).unwrap().start_over);
}
