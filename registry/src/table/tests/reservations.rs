//! Who may have a name: the holder of its cookie, or anybody once the reservation has ended.

use super::*;

const HOLD_MS: u64 = 600_000;

fn holding() -> Table {
    Table::new(Settings { name_hold_ms: HOLD_MS, ..SETTINGS }, [7; 32])
}

/// A caller without the cookie, from the address and with the endpoint of the holder.
fn twin(name: &str) -> Registration {
    ask(name, 99)
}

#[track_caller]
fn assert_taken(table: &mut Table, registration: &Registration, has_lease: bool, retry_after_seconds: u64, now: Now) {
    let taken = Refusal::NameTaken { name: "a".into(), has_lease, retry_after_seconds };
    assert_eq!(register(table, registration, now).map(drop), Err(taken));
}

fn observer(registration: Registration) -> Registration {
    Registration { endpoint: None, ..registration }
}

#[test]
fn a_live_name_needs_its_cookie_whatever_the_address() {
    let mut table = holding();
    let (_, held) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    assert_taken(&mut table, &twin("A"), true, 630, at(0));
    assert_taken(&mut table, &observer(twin("a")), true, 630, at(0));
    let other = register(&mut table, &ask("other", 2), at(0)).unwrap();
    assert_taken(&mut table, &Registration { presented: Some(cookie(2)), ..twin("a") }, true, 630, at(0));
    let (lease, again) = register(&mut table, &holder("a", 1), at(1_000)).unwrap();
    assert_eq!((again, lease.peer.registration_count), (held, 2));
    assert!(other.1 != held);
}

#[test]
fn a_name_stays_reserved_after_leave_and_after_expiry_for_its_cookie() {
    for leaves in [true, false] {
        let mut table = holding();
        let (_, held) = register(&mut table, &ask("a", 1), at(0)).unwrap();
        let ended = if leaves {
            leave(&mut table, &held, at(1_000)).unwrap();
            1_000
        } else {
            // The lease has ended, and this does not show yet.
            assert_taken(&mut table, &twin("a"), false, 600, at(30_000));
            expire(&mut table, at(30_128), 10);
            30_000
        };
        assert_taken(&mut table, &twin("a"), false, 600, at(ended));
        assert_taken(&mut table, &twin("a"), false, 1, at(ended + HOLD_MS - 1));
        assert_taken(&mut table, &observer(twin("a")), false, 1, at(ended + HOLD_MS - 1));
        let back = at(ended + HOLD_MS - 1);
        let (lease, again) = register(&mut table, &holder("a", 1), back).unwrap();
        assert_eq!((again, lease.peer.lease_remaining), (held, Some(view::duration(30_000))), "the lease is no longer than any");
        leave(&mut table, &held, back).unwrap();
        let (_, other) = register(&mut table, &twin("a"), at(back.mono_ms + HOLD_MS)).unwrap();
        assert!(other != held);
        assert_eq!(table.keep_alive(&held, KeepAliveRequest::default(), at(back.mono_ms + HOLD_MS)), Err(Refusal::CookieUnknown));
    }
}

#[test]
fn a_reservation_survives_a_restart_for_what_is_left_of_it() {
    let mut table = holding();
    let (_, held) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    leave(&mut table, &held, at(1_000)).unwrap();
    let record = table.records.get(0).unwrap();
    for (wall_ms, left_s) in [(61_000, 570), (1_000, 600), (0, 600), (640_000, 0)] {
        let mut again = holding();
        let now = Now { wall_ms: at(wall_ms).wall_ms, ..at(5_000) };
        again.apply(Change::put(record.peer.clone(), 0), record.revision, now);
        again.loaded(record.revision, record.revision, now);
        match left_s {
            0 => drop(register(&mut again, &twin("a"), now).unwrap()),
            // The wall clock may have been set back; the hold is never longer.
            left_s => assert_taken(&mut again, &twin("a"), false, left_s, now),
        }
    }
}

#[test]
fn a_proposed_cookie_is_taken_unless_somebody_has_it() {
    let mut table = holding();
    let (_, held) = register(&mut table, &holder("a", 1), at(0)).unwrap();
    assert!(held == cookie(1).hash());
    // The answer was lost: the same call again.
    assert_eq!(register(&mut table, &holder("a", 1), at(10)).unwrap().0.peer.registration_count, 2);
    let stolen = Registration { presented: Some(cookie(1)), ..ask("b", 3) };
    assert!(register(&mut table, &stolen, at(20)).unwrap().1 == cookie(3).hash(), "another peer's cookie is not given");
    assert!(register(&mut table, &observer(holder("c", 4)), at(20)).unwrap().1 == cookie(4).hash());
}

#[test]
fn a_freed_name_goes_to_whoever_asks_and_its_cookie_is_gone() {
    let free = |table: &mut Table, name: &str, now| {
        if let Prepared::Write(change) = table.prepare_free(&name.parse().unwrap()).unwrap() {
            accept(table, change, now);
        }
    };
    let mut table = holding();
    let (_, held) = register(&mut table, &ask("a", 1), at(0)).unwrap();
    let (_, watching) = register(&mut table, &observer(ask("w", 2)), at(0)).unwrap();
    for name in ["A", "w", "nobody"] {
        free(&mut table, name, at(1));
    }
    for cookie in [held, watching] {
        assert_eq!(table.keep_alive(&cookie, KeepAliveRequest::default(), at(2)), Err(Refusal::CookieUnknown));
    }
    let (_, other) = register(&mut table, &twin("a"), at(2)).unwrap();
    leave(&mut table, &other, at(3)).unwrap();
    assert_taken(&mut table, &ask("a", 5), false, 600, at(3));
    free(&mut table, "a", at(4));
    register(&mut table, &ask("a", 5), at(4)).unwrap();
    assert_eq!((table.counts().active, table.counts().in_flight, table.removing), (1, 0, 0));
    assert_eq!(table.deadlines.len(), 1);
}
