//! Many leases that run out at once are held.

use super::*;
use crate::table::{Kept, ToldSuspects};

/// A table that keeps everything, with `count` peers that called at 0.
fn crowd(count: u128) -> (Table, Vec<CookieHash>) {
    let mut table = Table::new(Settings { replicated: true, ..SETTINGS }, [7; 32]);
    let cookies = (1..=count).map(|number| register(&mut table, &ask(&format!("p{number}"), number), at(0)).unwrap().1).collect();
    (table, cookies)
}

/// Ends what ran out. Gives how many ended.
fn end(table: &mut Table, ms: u64) -> usize {
    let before = table.counts().active;
    expire(table, at(ms), 1_000);
    before - table.counts().active
}

const TTL_MS: u64 = SETTINGS.ttl_ms;

#[test]
fn a_few_end_in_time_and_of_many_the_rest_are_held_for_two_ttls_more() {
    let (mut table, _) = crowd(20);
    assert_eq!((end(&mut table, TTL_MS + 200), table.counts().suspects), (20, 0));
    let (mut table, cookies) = crowd(100);
    assert_eq!((end(&mut table, TTL_MS + 200), table.counts().suspects), (20, 80));
    // A suspect that calls is none any more, and has a whole ttl.
    let alive = cookies.iter().find(|cookie| table.keep_alive(cookie, KeepAliveRequest::default(), at(TTL_MS + 300)).is_ok());
    let alive = *alive.unwrap();
    assert_eq!(table.counts().suspects, 79);
    // Suspects are said to be, and come last.
    let listed = all(&mut table, &alive, at(TTL_MS + 400)).peers;
    assert_eq!(listed.len(), 79);
    assert!(listed.iter().all(|peer| peer.suspect));
    table.keep_alive(&alive, KeepAliveRequest::default(), at(2 * TTL_MS)).unwrap();
    table.keep_alive(&alive, KeepAliveRequest::default(), at(3 * TTL_MS - 1)).unwrap();
    assert_eq!((end(&mut table, 3 * TTL_MS), table.counts().suspects), (0, 79));
    assert_eq!((end(&mut table, 3 * TTL_MS + 1_000), table.counts().suspects, table.counts().active), (79, 0, 1));
}

#[test]
fn suspects_that_answer_live_on_and_the_others_end_only_if_somebody_answers() {
    let (mut table, _) = crowd(60);
    end(&mut table, TTL_MS + 200);
    let suspects: Vec<_> = table.some_suspects(10).into_iter().map(|suspect| suspect.cookie).collect();
    assert_eq!((suspects.len(), table.counts().suspects), (10, 40));
    table.probed(&[], &suspects, at(TTL_MS + 300));
    assert_eq!((end(&mut table, TTL_MS + 600), table.counts().suspects), (0, 40));
    table.probed(&suspects[..1], &suspects[1..], at(TTL_MS + 700));
    assert_eq!((end(&mut table, TTL_MS + 1_000), table.counts().suspects), (9, 30));
    assert!(table.keep_alive(&suspects[0], KeepAliveRequest::default(), at(2 * TTL_MS)).is_ok());
    assert!(table.keep_alive(&suspects[1], KeepAliveRequest::default(), at(2 * TTL_MS)).is_err());
}

#[test]
fn suspects_of_the_keeper_are_listed_last_by_every_registry_until_they_call_or_end() {
    let settings = Settings { replicated: true, ..SETTINGS };
    let (mut keeper, _) = crowd(60);
    // Another registry over the same store, which keeps none of them.
    let mut other = Table::new(settings, [8; 32]);
    other.keep_shards(Kept::NONE, 0, at(0));
    for slot in 0..60 {
        let record = keeper.records.get(slot).unwrap();
        other.apply(Change::put(record.peer.clone(), 0), record.revision, at(0));
    }
    let (_, me) = register(&mut other, &Registration { endpoint: None, ..ask("me", 99) }, at(TTL_MS)).unwrap();
    let mut told = ToldSuspects::default();
    assert_eq!(keeper.tell_suspects(&mut told, 100), (Vec::new(), Vec::new()));
    end(&mut keeper, TTL_MS + 200);
    let (begun, ended) = keeper.tell_suspects(&mut told, 30);
    assert_eq!((begun.len(), ended.len()), (30, 0));
    let (rest, _) = keeper.tell_suspects(&mut told, 30);
    assert_eq!((rest.len(), keeper.tell_suspects(&mut told, 30).0.len()), (10, 0));
    other.suspected_elsewhere(&begun, &[]);
    other.suspected_elsewhere(&rest, &[]);
    let suspects = |table: &mut Table, ms| {
        let listed = all(table, &me, at(ms)).peers;
        let first = listed.iter().position(|peer| peer.suspect).unwrap_or(listed.len());
        assert!(listed[first..].iter().all(|peer| peer.suspect), "they come last");
        listed.len() - first
    };
    assert_eq!(suspects(&mut other, TTL_MS + 300), 40);
    // One calls here: at once it is none, and the keeper says so once it was passed on.
    other.keep_alive(&begun[0], KeepAliveRequest::default(), at(TTL_MS + 300)).unwrap();
    assert_eq!(suspects(&mut other, TTL_MS + 300), 39);
    for extended in other.take_extended(10) {
        keeper.extended_elsewhere(&extended, at(TTL_MS + 400));
    }
    let told_in_turn: Vec<_> = (0..3).map(|_| keeper.tell_suspects(&mut told, 30)).collect();
    let (begun, ended): (Vec<_>, Vec<_>) = told_in_turn.into_iter().unzip();
    let (begun, ended) = (begun.concat(), ended.concat());
    assert_eq!((begun.len(), ended.len(), told.suspects().len()), (0, 1, 39));
    other.suspected_elsewhere(&[], &ended);
    assert_eq!(suspects(&mut other, TTL_MS + 500), 39);
    // What the stream told ends with it.
    other.suspected_elsewhere(&[], &told.suspects());
    assert_eq!(suspects(&mut other, TTL_MS + 600), 0);
}

#[test]
fn a_registry_that_is_alone_holds_nobody() {
    let mut table = super::table();
    for number in 1..=100 {
        register(&mut table, &ask(&format!("p{number}"), number), at(0)).unwrap();
    }
    assert_eq!((end(&mut table, TTL_MS + 200), table.counts().suspects), (100, 0));
}
