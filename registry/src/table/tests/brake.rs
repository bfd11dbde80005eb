//! Many leases that run out at once are held.

use super::*;

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
fn a_registry_that_is_alone_holds_nobody() {
    let mut table = super::table();
    for number in 1..=100 {
        register(&mut table, &ask(&format!("p{number}"), number), at(0)).unwrap();
    }
    assert_eq!((end(&mut table, TTL_MS + 200), table.counts().suspects), (100, 0));
}
