//! The rules, one by one.

use super::*;
use p2pdi::{
    cookie::{Cookie, CookieHash},
    v1::{PQueryResponse, PeerState},
};
use std::{collections::BTreeSet, net::Ipv6Addr};

pub(super) const SETTINGS: Settings = Settings { ttl_ms: 30_000, max_peers: 1_000_000, max_peers_per_address: 1_000_000 };

pub(super) fn at(ms: u64) -> Now {
    Now { mono_ms: ms, wall_ms: 1_790_000_000_000 + ms }
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
    }
}

pub(super) fn commit_all(table: &mut Table, ask: &Registration, now: Now) -> Result<(Lease, CookieHash), Refusal> {
    let (prepared, cookie) = table.prepare_register(ask, now)?;
    let lease = match prepared {
        Prepared::Done(lease) => lease,
        Prepared::Write(change) => table.commit(change, now).unwrap(),
    };
    Ok((lease, cookie.hash()))
}

pub(super) fn leave(table: &mut Table, cookie: &CookieHash, now: Now) -> Result<(), Refusal> {
    if let Prepared::Write(change) = table.prepare_leave(cookie, now)? {
        table.commit(change, now).unwrap();
    }
    Ok(())
}

fn table() -> Table {
    Table::new(SETTINGS, [7; 32])
}

fn all(table: &mut Table, caller: &CookieHash, now: Now) -> PQueryResponse {
    table.query(caller, &Query { page_size: PAGE_MAX, ..Query::default() }, now).unwrap()
}

#[test]
fn nothing_shows_before_it_is_committed_and_an_abort_leaves_no_trace() {
    let mut table = table();
    let (_, watcher) = commit_all(&mut table, &ask("watcher", 1), at(0)).unwrap();
    let before = table.counts();
    let (prepared, new) = table.prepare_register(&ask("a", 2), at(0)).unwrap();
    let Prepared::Write(change) = prepared else { panic!("a peer is written") };
    assert_eq!(all(&mut table, &watcher, at(1)).peers, []);
    assert_eq!(table.keep_alive(&new.hash(), None, 0, at(1)), Err(Refusal::CookieUnknown));
    assert!(matches!(table.prepare_register(&ask("A", 3), at(1)), Err(Refusal::Busy)));
    table.abort(change);
    assert_eq!(Counts { dirty: 0, ..table.counts() }, before);
    // The write may have reached the disk after all: it is undone there.
    assert_eq!(table.take_dirty(10).len(), 1);
    commit_all(&mut table, &ask("a", 4), at(2)).unwrap();
    assert_eq!(all(&mut table, &watcher, at(2)).peers.len(), 1);
}

#[test]
fn an_aborted_takeover_leaves_the_holder_as_it_was() {
    let mut table = table();
    let (_, held) = commit_all(&mut table, &ask("a", 1), at(0)).unwrap();
    let (prepared, new) = table.prepare_register(&ask("a", 2), at(1_000)).unwrap();
    let Prepared::Write(change) = prepared else { panic!("a peer is written") };
    let kept = table.keep_alive(&held, None, 0, at(2_000)).unwrap();
    assert_eq!(kept.peer.registration_count, 1);
    table.abort(change);
    assert_eq!(table.keep_alive(&new.hash(), None, 0, at(3_000)), Err(Refusal::CookieUnknown));
    assert_eq!(table.keep_alive(&held, None, 0, at(3_000)).unwrap().peer.registration_count, 1);
}

#[test]
fn a_lease_does_not_end_while_its_renewal_is_flushing() {
    let mut table = table();
    let (_, held) = commit_all(&mut table, &ask("a", 1), at(0)).unwrap();
    let (prepared, _) = table.prepare_register(&Registration { presented: Some(cookie(1)), ..ask("a", 2) }, at(29_000)).unwrap();
    let Prepared::Write(change) = prepared else { panic!("a peer is written") };
    table.expire(at(31_000), 100);
    assert_eq!(table.counts().active, 1);
    table.commit(change, at(31_000));
    assert_eq!(table.keep_alive(&held, None, 0, at(60_000)).unwrap().peer.state(), PeerState::Active);
}

#[test]
fn leases_end_within_a_tick_and_keep_alives_put_it_off() {
    let mut table = table();
    let (_, a) = commit_all(&mut table, &ask("a", 1), at(0)).unwrap();
    let (_, b) = commit_all(&mut table, &ask("b", 2), at(0)).unwrap();
    table.keep_alive(&a, None, 0, at(20_000)).unwrap();
    table.expire(at(30_000), 100);
    assert_eq!(table.keep_alive(&b, None, 0, at(30_000)), Err(Refusal::LeaseExpired));
    table.expire(at(30_000 + deadlines::TICK_MS), 100);
    assert_eq!((table.counts().active, table.counts().inactive), (1, 1));
    assert!(table.next_deadline_ms().unwrap() <= 50_000 + deadlines::TICK_MS);
    let written = table.take_dirty(10);
    assert_eq!((written.len(), written[0].1.as_ref().map(|peer| peer.active)), (1, Some(false)));
}

#[test]
fn interval_and_ttl_grow_with_the_population() {
    let mut table = table();
    assert_eq!(table.ttl_ms(), 30_000);
    let (mut spread, mut last) = (BTreeSet::new(), 0);
    for number in 0..100_000 {
        let (lease, _) = commit_all(&mut table, &ask(&format!("p{number}"), number), at(0)).unwrap();
        spread.insert(lease.interval_ms);
        last = lease.interval_ms;
    }
    // 100,000 peers at 5,000 a second: every 20 s.
    assert!((16_000..=20_000).contains(&last), "{last}");
    assert_eq!(table.ttl_ms(), 60_000);
    assert!(spread.len() > 1_000, "jitter spreads the calls: {}", spread.len());
}

#[test]
fn records_are_forgotten_after_thirty_days_and_deltas_from_before_start_over() {
    let mut table = table();
    let (first, a) = commit_all(&mut table, &ask("a", 1), at(0)).unwrap();
    leave(&mut table, &a, at(1_000)).unwrap();
    table.expire(at(FORGET_AFTER_MS), 10);
    assert_eq!(table.counts().inactive, 1);
    table.expire(at(FORGET_AFTER_MS + 1_000), 10);
    assert_eq!(table.counts().inactive, 0);
    assert!(matches!(table.take_dirty(10)[..], [(_, None)]), "its record is removed from disk");
    let now = at(FORGET_AFTER_MS + 2_000);
    assert_eq!(table.keep_alive(&a, None, 0, now), Err(Refusal::CookieUnknown));
    let (_, b) = commit_all(&mut table, &ask("b", 2), now).unwrap();
    let query = Query { page_size: 10, since_revision: first.revision, ..Query::default() };
    assert!(table.query(&b, &query, now).unwrap().start_over);
}

#[test]
fn who_left_makes_room_and_only_leases_fill_the_registry() {
    let mut table = Table::new(Settings { max_peers: 3, ..SETTINGS }, [7; 32]);
    let (_, a) = commit_all(&mut table, &ask("a", 1), at(0)).unwrap();
    for (name, number) in [("b", 2), ("c", 3)] {
        commit_all(&mut table, &ask(name, number), at(0)).unwrap();
    }
    assert_eq!(commit_all(&mut table, &ask("d", 4), at(0)).unwrap_err(), Refusal::Full { max: 3 });
    leave(&mut table, &a, at(1)).unwrap();
    commit_all(&mut table, &ask("d", 4), at(2)).unwrap();
    assert_eq!(table.keep_alive(&a, None, 0, at(3)), Err(Refusal::CookieUnknown));
    assert_eq!(table.counts().active, 3);
}

#[test]
fn one_address_cannot_take_all_names() {
    let mut table = Table::new(Settings { max_peers_per_address: 2, ..SETTINGS }, [7; 32]);
    let (_, a) = commit_all(&mut table, &ask("a", 1), at(0)).unwrap();
    commit_all(&mut table, &Registration { endpoint: None, ..ask("b", 2) }, at(0)).unwrap();
    assert_eq!(commit_all(&mut table, &ask("c", 3), at(0)).unwrap_err(), Refusal::AddressFull { max: 2 });
    commit_all(&mut table, &ask("a", 4), at(0)).expect("the same lease again is not one more");
    let elsewhere = Registration { address: Ipv6Addr::from_bits(0xffff_0a00_0002), ..ask("c", 3) };
    commit_all(&mut table, &elsewhere, at(0)).unwrap();
    assert_eq!(leave(&mut table, &a, at(1)), Err(Refusal::CookieUnknown));
    leave(&mut table, &cookie(4).hash(), at(1)).unwrap();
    commit_all(&mut table, &ask("d", 5), at(2)).unwrap();
}

#[test]
fn a_label_that_changes_takes_the_peer_out_of_a_filtered_delta() {
    let mut table = table();
    let zone = |zone: &str| BTreeMap::from([("zone".to_owned(), zone.to_owned())]);
    let (_, me) = commit_all(&mut table, &ask("me", 1), at(0)).unwrap();
    let labelled = |name, number, value: &str| Registration { labels: Labels::pack(&zone(value)), ..ask(name, number) };
    commit_all(&mut table, &labelled("a", 2, "eu"), at(0)).unwrap();
    let (_, other) = commit_all(&mut table, &labelled("other", 3, "us"), at(0)).unwrap();
    let since_revision = table.revision();
    commit_all(&mut table, &labelled("a", 4, "us"), at(1)).unwrap();
    leave(&mut table, &other, at(1)).unwrap();
    let query = Query { labels: zone("eu"), page_size: 10, since_revision, ..Query::default() };
    let answer = table.query(&me, &query, at(2)).unwrap();
    let gone: Vec<_> = answer.gone.iter().map(|gone| gone.name.as_str()).collect();
    assert_eq!((gone, answer.peers.len()), (vec!["a"], 0));
}

#[test]
fn pages_neither_repeat_nor_lose_peers_that_stay_while_others_come_and_go() {
    let mut table = table();
    let (_, me) = commit_all(&mut table, &ask("me", u128::MAX), at(0)).unwrap();
    for number in 0..100 {
        commit_all(&mut table, &ask(&format!("stays-{number}"), number), at(0)).unwrap();
        commit_all(&mut table, &ask(&format!("goes-{number}"), 1_000 + number), at(0)).unwrap();
    }
    let (mut page_token, mut seen, mut round) = (String::new(), Vec::new(), 0);
    loop {
        let page = table.query(&me, &Query { page_size: 7, page_token, ..Query::default() }, at(1)).unwrap();
        seen.extend(page.peers.into_iter().map(|peer| peer.name).filter(|name| name.starts_with("stays")));
        page_token = page.next_page_token;
        if page_token.is_empty() {
            break;
        }
        leave(&mut table, &cookie(1_000 + round).hash(), at(1)).unwrap();
        commit_all(&mut table, &ask(&format!("comes-{round}"), 2_000 + round), at(1)).unwrap();
        commit_all(&mut table, &ask(&format!("stays-{round}"), round), at(1)).unwrap();
        round += 1;
    }
    assert_eq!((seen.len(), seen.iter().collect::<BTreeSet<_>>().len()), (100, 100));
}

#[test]
fn a_scan_that_finds_nothing_comes_back_with_a_token() {
    let mut table = table();
    let (_, me) = commit_all(&mut table, &ask("me", u128::MAX), at(0)).unwrap();
    for number in 0..40_000 {
        commit_all(&mut table, &ask(&format!("p{number}"), number), at(0)).unwrap();
    }
    let pattern = p2pdi::selector::NamePattern::parse("*39999").unwrap();
    let query = Query { name: "*39999".into(), pattern, page_size: 10, ..Query::default() };
    let (mut found, mut page_token, mut calls) = (0, String::new(), 0);
    loop {
        let page = table.query(&me, &Query { page_token, ..query.clone() }, at(1)).unwrap();
        (found, page_token, calls) = (found + page.peers.len(), page.next_page_token, calls + 1);
        if page_token.is_empty() {
            break;
        }
    }
    assert_eq!((found, calls), (1, 3));
}

#[test]
fn samples_are_distinct_fair_and_without_the_caller() {
    let mut table = table();
    let (_, me) = commit_all(&mut table, &ask("me", u128::MAX), at(0)).unwrap();
    for number in 0..100 {
        commit_all(&mut table, &ask(&format!("p{number}"), number), at(0)).unwrap();
    }
    let mut times: BTreeMap<String, u32> = BTreeMap::new();
    for _ in 0..2_000 {
        let some = table.query(&me, &Query { sample: 10, ..Query::default() }, at(1)).unwrap().peers;
        assert_eq!(some.iter().map(|peer| &peer.name).collect::<BTreeSet<_>>().len(), 10);
        some.into_iter().for_each(|peer| *times.entry(peer.name).or_default() += 1);
    }
    assert_eq!((times.len(), times.contains_key("me")), (100, false));
    // 200 expected; five standard deviations are about 67.
    assert!(times.values().all(|times| (133..=267).contains(times)), "{times:?}");
}

#[test]
fn a_restored_table_gives_everyone_a_whole_ttl_and_keeps_who_left_inactive() {
    let mut table = table();
    let (_, a) = commit_all(&mut table, &ask("a", 1), at(0)).unwrap();
    let (_, b) = commit_all(&mut table, &ask("b", 2), at(0)).unwrap();
    leave(&mut table, &b, at(5)).unwrap();
    let revision = table.revision();
    let mut again = Table::new(SETTINGS, [8; 32]);
    for slot in 0..2 {
        assert!(again.restore(slot * 3, table.records.get(slot).unwrap().peer.clone()));
    }
    assert!(!again.restore(9, table.records.get(0).unwrap().peer.clone()), "a name is there once");
    again.restored(revision + 100, at(1_000_000));
    assert!(again.ceiling_wanted().is_some_and(|ceiling| ceiling > again.revision()));
    assert_eq!((again.counts().active, again.counts().inactive), (1, 1));
    assert_eq!(again.keep_alive(&b, None, 0, at(1_000_001)), Err(Refusal::LeaseExpired));
    let kept = again.keep_alive(&a, None, 0, at(1_029_999)).unwrap();
    assert!(kept.revision > revision + 100);
    let query = Query { page_size: 10, since_revision: revision, ..Query::default() };
    assert!(again.query(&a, &query, at(1_030_000)).unwrap().start_over);
    // The gap between the slots is used again.
    commit_all(&mut again, &ask("c", 3), at(1_030_000)).unwrap();
    assert_eq!(again.records.slots(), 4);
}

#[test]
fn what_could_not_be_written_is_written_again_and_once() {
    let mut table = table();
    let (_, a) = commit_all(&mut table, &ask("a", 1), at(0)).unwrap();
    table.expire(at(40_000), 10);
    let taken = table.take_dirty(10);
    assert_eq!((taken.len(), table.counts().dirty), (1, 1));
    // Not on disk yet, so a Leave is not done without a write of its own.
    let Ok(Prepared::Write(change)) = table.prepare_leave(&a, at(40_000)) else { panic!("it has to be written") };
    table.settle_dirty(taken.iter().map(|(slot, _)| *slot), false);
    assert!(table.take_dirty(10).is_empty(), "the change under way writes it");
    table.abort(change);
    let taken = table.take_dirty(10);
    table.settle_dirty(taken.iter().map(|(slot, _)| *slot), true);
    assert_eq!((taken.len(), table.counts().dirty), (1, 0));
    assert!(matches!(table.prepare_leave(&a, at(40_001)), Ok(Prepared::Done(_))));
}

#[test]
fn pages_samples_and_deltas_end_before_they_are_too_large_for_clients() {
    let mut table = table();
    let (_, me) = commit_all(&mut table, &ask("me", u128::MAX), at(0)).unwrap();
    let since_revision = table.revision();
    // As an older registry let them in.
    let endpoint = format!("10.0.0.1:{}80", "0".repeat(16_000));
    for slot in 1..=600 {
        let name = format!("p{slot}");
        commit_all(&mut table, &ask(&name, u128::from(slot)), at(0)).unwrap();
        table.records.get_mut(slot).unwrap().peer.strings = PackedStrings::new(&name, &endpoint, &Labels::default());
    }
    let fits = |answer: &PQueryResponse| {
        assert!(prost::Message::encoded_len(answer) < p2pdi::channel::REGISTRY_RESPONSE_MAX_BYTES);
        assert!(!answer.peers.is_empty());
    };
    let sampled = table.query(&me, &Query { sample: 1_000, ..Query::default() }, at(1)).unwrap();
    fits(&sampled);
    for since_revision in [0, since_revision] {
        let (mut page_token, mut seen) = (String::new(), BTreeSet::new());
        loop {
            let query = Query { page_size: PAGE_MAX, page_token, since_revision, ..Query::default() };
            let page = table.query(&me, &query, at(1)).unwrap();
            fits(&page);
            seen.extend(page.peers.into_iter().map(|peer| peer.name));
            page_token = page.next_page_token;
            if page_token.is_empty() {
                break;
            }
        }
        assert_eq!(seen.len(), 600);
    }
}

#[test]
fn a_lease_is_never_cut_below_what_its_peer_was_told() {
    let mut table = Table::new(Settings { ttl_ms: 1_000, ..SETTINGS }, [7; 32]);
    for number in 0..20_000 {
        commit_all(&mut table, &ask(&format!("p{number}"), number), at(0)).unwrap();
    }
    let (told, me) = commit_all(&mut table, &ask("me", u128::MAX), at(0)).unwrap();
    assert!(told.ttl_ms > 10_000, "{}", told.ttl_ms);
    for number in 0..20_000 {
        leave(&mut table, &cookie(number).hash(), at(1)).unwrap();
    }
    // Its answer may get lost.
    assert_eq!(table.keep_alive(&me, None, 0, at(2)).unwrap().ttl_ms, 1_000);
    while table.expire(at(9_000), 100) {}
    table.keep_alive(&me, None, 0, at(9_000)).expect("it was told so");
}
