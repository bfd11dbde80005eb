//! Swarms as callers see them.

use super::{limits::*, *};
use p2pdi::{
    content::ContentHash,
    cookie::CookieHash,
    id::PeerId,
    v1::{AnnounceResponse, SwarmPeer},
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use std::collections::BTreeSet;

const SIZE: u64 = 1_000;

struct World {
    swarms: Swarms,
    rng: StdRng,
    now_ms: u64,
}

fn world() -> World {
    World { swarms: Swarms::default(), rng: StdRng::seed_from_u64(7), now_ms: 1_000 }
}

fn cookie(number: u32) -> CookieHash {
    CookieHash::from_bytes(u128::from(number).to_be_bytes())
}

fn caller(number: u32) -> Caller {
    Caller {
        cookie: cookie(number),
        id: PeerId::from_u128(number.into()),
        name: format!("p{number}").into(),
        endpoint: format!("10.0.0.1:{}", 1_000 + number).into(),
        zone: "".into(),
        uploads: 0,
    }
}

fn document(number: u8) -> DocumentKey {
    DocumentKey { hash: ContentHash::from_bytes([number; 32]), size: SIZE }
}

fn announce(had: u64) -> Announce {
    Announce { document: document(1), had, done: false, holders: Vec::new(), want: WANT_MAX, searched: false }
}

fn holder(number: u32) -> ReportedHolder {
    ReportedHolder { id: None, name: "".into(), endpoint: format!("10.9.9.9:{}", 1 + number).into(), zone: "".into() }
}

impl World {
    fn call(&mut self, caller: &Caller, announce: &Announce) -> AnnounceResponse {
        self.swarms.handle(caller, announce, self.now_ms, &mut self.rng).unwrap()
    }

    fn had(&mut self, number: u32, had: u64) -> AnnounceResponse {
        self.call(&caller(number), &announce(had))
    }

    fn expire(&mut self) {
        while self.swarms.expire(self.now_ms, 10) {}
    }
}

fn interval_ms(answer: &AnnounceResponse) -> u64 {
    let interval = answer.interval.unwrap();
    (interval.seconds * 1_000 + i64::from(interval.nanos / 1_000_000)).try_into().unwrap()
}

fn names(peers: &[SwarmPeer]) -> BTreeSet<String> {
    peers.iter().map(|peer| peer.peer.as_ref().unwrap().name.clone()).collect()
}

#[test]
fn a_member_is_named_to_others_until_it_is_done() {
    let mut world = world();
    assert_eq!(world.had(1, 0).others.len(), 0);
    let second = world.had(2, SIZE);
    assert_eq!((names(&second.others), second.members, second.whole), (["p1".to_owned()].into(), 2, 1));
    let first = world.had(1, 10);
    assert_eq!((first.others[0].had, first.others[0].complete, first.others[0].reported), (SIZE, true, false));
    let done = world.call(&caller(2), &Announce { done: true, ..announce(SIZE) });
    assert_eq!((done.others.len(), done.members, done.whole), (0, 1, 0));
    assert_eq!(world.had(1, 10).others.len(), 0);
    world.call(&caller(1), &Announce { done: true, ..announce(10) });
    assert_eq!(world.swarms.counts(), Counts { announces: 6, ..Default::default() });
}

#[test]
fn who_knows_the_hash_only_learns_the_size_and_joins_those_who_know_it() {
    let mut world = world();
    let unknown = Announce { document: DocumentKey { size: 0, ..document(1) }, ..announce(0) };
    let first = world.call(&caller(1), &unknown);
    assert_eq!((first.others.len(), first.search, first.size, first.whole), (0, true, 0, 0));
    let second = world.call(&caller(2), &unknown);
    assert_eq!((names(&second.others), second.search, second.size), (["p1".to_owned()].into(), false, 0));
    // One of two sizes is a lie; two members say the other one.
    world.call(&caller(9), &Announce { document: DocumentKey { size: SIZE + 1, ..document(1) }, ..announce(0) });
    world.had(3, SIZE);
    world.had(4, 0);
    let told = world.call(&caller(1), &unknown);
    assert_eq!((names(&told.others), told.size, told.members, told.whole), (["p3".into(), "p4".into()].into(), SIZE, 3, 1));
    world.had(2, 0);
    assert_eq!(world.swarms.counts().members, 5, "nobody is left among those who do not know the size");
    world.call(&caller(1), &Announce { done: true, ..announce(0) });
    assert_eq!((world.swarms.counts().swarms, world.swarms.counts().members), (2, 4));
    // Nobody says a size: whoever is done leaves at once.
    let other = Announce { document: DocumentKey { size: 0, ..document(2) }, ..announce(0) };
    world.call(&caller(1), &other);
    world.call(&caller(1), &Announce { done: true, ..other });
    assert_eq!(world.swarms.counts().swarms, 2);
}

#[test]
fn a_lease_that_ends_takes_all_memberships_with_it() {
    let mut world = world();
    for number in 1..=50 {
        world.call(&caller(1), &Announce { document: document(number), ..announce(0) });
        world.call(&caller(2), &Announce { document: document(number), holders: vec![holder(1)], ..announce(0) });
    }
    assert_eq!((world.swarms.counts().swarms, world.swarms.counts().members), (50, 100));
    world.swarms.leave(&cookie(1));
    assert_eq!((world.swarms.counts().swarms, world.swarms.counts().members), (50, 50));
    world.swarms.leave(&cookie(2));
    world.swarms.leave(&cookie(2));
    assert_eq!(world.swarms.counts(), Counts { announces: 100, ..Default::default() });
}

#[test]
fn a_member_that_does_not_announce_itself_again_is_forgotten_after_three_intervals() {
    let mut world = world();
    let mut interval = 0;
    for number in 1..=30 {
        world.had(number, 10);
    }
    for _ in 0..3 {
        interval = interval_ms(&world.had(1, 10));
        world.now_ms += interval;
        world.expire();
    }
    // The others announced themselves once, more than their time ago.
    assert!((12_000..=15_000).contains(&interval), "{interval}");
    world.now_ms += 3 * INTERVAL_MS;
    assert_eq!(world.had(31, 0).others.len(), 0, "what is over is not named, even before it is removed");
    world.expire();
    assert_eq!(world.swarms.counts().members, 1);
    world.now_ms += 3 * INTERVAL_MAX_MS;
    world.expire();
    assert_eq!(world.swarms.counts(), Counts { announces: world.swarms.counts().announces, ..Default::default() });
}

#[test]
fn half_of_the_others_are_of_the_callers_zone_when_there_are_enough() {
    let mut world = world();
    let zoned = |number: u32, zone: &str| Caller { zone: zone.into(), ..caller(number) };
    for number in 0..2_000 {
        world.call(&zoned(number, if number % 100 == 0 { "here" } else { "there" }), &announce(10));
    }
    world.now_ms += NEWCOMER_MS;
    for (zone, near) in [("here", 9..=12), ("there", 9..=20), ("nowhere", 0..=0)] {
        for _ in 0..10 {
            let answer = world.call(&zoned(5_000, zone), &announce(10));
            let same = answer.others.iter().filter(|other| other.zone == zone).count();
            assert!(answer.others.len() == WANT_MAX && near.contains(&same), "{zone}: {same} of {}", answer.others.len());
            assert_eq!(names(&answer.others).len(), WANT_MAX, "nobody twice");
        }
    }
}

#[test]
fn the_less_loaded_are_named_first_and_newcomers_and_whole_holders_are_among_them() {
    let mut world = world();
    for number in 0..300 {
        let had = if number < 10 { SIZE } else { 10 };
        world.call(&Caller { uploads: number % 6, ..caller(number) }, &announce(had));
    }
    world.now_ms += NEWCOMER_MS;
    for number in 300..304 {
        world.call(&Caller { uploads: 9, ..caller(number) }, &announce(0));
    }
    let (mut loads, mut newcomers, mut whole) = (0, 0, 0);
    for _ in 0..50 {
        let answer = world.had(1_000, 0);
        let number = |peer: &SwarmPeer| peer.peer.as_ref().unwrap().name[1..].parse::<u32>().unwrap();
        loads += answer.others.iter().map(|peer| if number(peer) >= 300 { 0 } else { number(peer) % 6 }).sum::<u32>();
        newcomers += answer.others.iter().filter(|peer| number(peer) >= 300).count();
        whole += answer.others.iter().filter(|peer| peer.complete).count();
        assert!(answer.others.iter().any(|peer| peer.complete) && answer.others.iter().any(|peer| number(peer) >= 300));
    }
    assert!(loads < 50 * 20, "the mean load of those named is {}, of all 2.5", f64::from(loads) / 1_000.0);
    assert!(newcomers >= 50 && whole >= 200, "{newcomers} {whole}");
}

#[test]
fn who_has_the_whole_is_told_of_those_who_lack_something() {
    let mut world = world();
    for number in 0..40 {
        world.had(number, if number % 2 == 0 { SIZE } else { 10 });
    }
    let answer = world.had(50, SIZE);
    assert!(answer.others.len() >= 10 && answer.others.iter().all(|other| !other.complete));
}

#[test]
fn an_observer_without_an_endpoint_is_counted_and_not_named() {
    let mut world = world();
    world.call(&Caller { endpoint: "".into(), ..caller(1) }, &announce(SIZE));
    let answer = world.had(2, 0);
    assert_eq!((answer.others.len(), answer.members, answer.whole, answer.search), (0, 2, 1, true));
    world.call(&caller(1), &announce(SIZE));
    assert_eq!(world.had(2, 0).others.len(), 1);
}

#[test]
fn a_peer_that_registered_again_is_not_named_to_itself() {
    let mut world = world();
    world.had(1, 0);
    let again = Caller { cookie: cookie(99), name: "P1".into(), ..caller(1) };
    assert_eq!(world.call(&again, &announce(0)).others.len(), 0);
}

#[test]
fn one_member_searches_and_what_it_finds_is_named_to_all() {
    let mut world = world();
    assert!(world.had(1, 0).search);
    for number in 2..100 {
        let answer = world.had(number, 0);
        assert!(!answer.search, "{number}");
        assert!((1_600..=2_000).contains(&interval_ms(&answer)), "who waits asks soon again");
    }
    world.call(&caller(1), &Announce { holders: vec![holder(1), holder(2)], ..announce(0) });
    let answer = world.had(2, 0);
    let reported: Vec<_> = answer.others.iter().filter(|other| other.reported).collect();
    assert_eq!((answer.search, reported.len(), reported[0].complete, answer.whole), (false, 2, true, 0));
    assert_eq!((answer.others.len(), answer.others[WANT_MAX - 3].reported), (WANT_MAX, false), "members come first");
}

#[test]
fn another_member_searches_when_the_first_is_late_and_none_when_it_found_nobody() {
    let mut world = world();
    assert!(world.had(1, 0).search && !world.had(2, 0).search);
    world.now_ms += SEARCH_MS;
    assert!(world.had(2, 0).search && !world.had(1, 0).search);
    world.call(&caller(2), &Announce { searched: true, ..announce(0) });
    assert!(!world.had(3, 0).search);
    world.now_ms += 4 * SEARCH_PAUSE_MS;
    assert!(world.had(3, 0).search);
    world.call(&caller(3), &Announce { done: true, ..announce(0) });
    assert!(world.had(4, 0).search, "one that leaves is replaced at once");
}

#[test]
fn reports_that_are_not_repeated_are_withdrawn_and_a_lie_does_not_end_the_search_for_ever() {
    let mut world = world();
    world.had(1, 0);
    world.call(&caller(1), &Announce { holders: vec![holder(1)], ..announce(0) });
    assert_eq!(world.had(2, 0).others.iter().filter(|other| other.reported).count(), 1);
    world.had(1, 0);
    assert_eq!(world.had(2, 0).others.iter().filter(|other| other.reported).count(), 0);
    // One that lies again and again: those who get nothing search after a while, one at a time.
    let mut searches = 0;
    for _ in 0..60 {
        world.call(&caller(66), &Announce { holders: vec![holder(66)], ..announce(0) });
        for number in [2, 3] {
            if world.had(number, 0).search {
                searches += 1;
                world.call(&caller(number), &Announce { searched: true, ..announce(0) });
            }
        }
        world.now_ms += 1_000;
        world.expire();
    }
    assert!((1..=4).contains(&searches), "{searches}");
}

#[test]
fn limits_of_a_peer_and_of_a_swarm_hold() {
    let mut world = world();
    let of = |number: u32| {
        let mut hash = [0; 32];
        hash[..4].copy_from_slice(&number.to_be_bytes());
        Announce { document: DocumentKey { hash: ContentHash::from_bytes(hash), size: SIZE }, ..announce(0) }
    };
    for number in 0..1_000 {
        world.call(&caller(1), &of(number));
    }
    let refused = world.swarms.handle(&caller(1), &of(1_000), world.now_ms, &mut world.rng);
    assert_eq!(refused, Err(TooManySwarms::OfCaller { max: SWARMS_PER_PEER_MAX }));
    world.call(&caller(1), &of(5));
    world.call(&caller(1), &Announce { done: true, ..of(5) });
    world.call(&caller(1), &of(1_000));
    assert_eq!((world.swarms.counts().swarms, world.swarms.counts().members), (1_000, 1_000));
}

#[test]
fn two_sizes_for_one_hash_are_two_swarms() {
    let mut world = world();
    world.had(1, 0);
    let other = Announce { document: DocumentKey { size: SIZE + 1, ..document(1) }, ..announce(0) };
    assert_eq!(world.call(&caller(2), &other).members, 1);
}

#[test]
fn random_calls_leave_the_counts_right() {
    for seed in 0..20 {
        let mut world = World { rng: StdRng::seed_from_u64(seed), ..world() };
        let mut rng = StdRng::seed_from_u64(seed + 1_000);
        for _ in 0..3_000 {
            let number = rng.random_range(0..40);
            let zone = ["", "a", "b", "c"][rng.random_range(0..4)];
            let caller = Caller { zone: zone.into(), uploads: rng.random_range(0..9), ..caller(number) };
            let said = Announce {
                document: document(rng.random_range(0..6)),
                had: rng.random_range(0..4) * SIZE / 3,
                done: rng.random_ratio(1, 8),
                holders: (0..rng.random_range(0..3)).map(holder).collect(),
                want: rng.random_range(0..=WANT_MAX),
                searched: rng.random_ratio(1, 8),
            };
            match rng.random_range(0..20) {
                0 => world.swarms.leave(&caller.cookie),
                1 => {
                    world.now_ms += rng.random_range(0..60_000);
                    world.expire();
                }
                _ => {
                    let answer = world.call(&caller, &said);
                    assert!(answer.others.len() <= said.want);
                    assert!(!names(&answer.others).contains(&*caller.name), "never the caller");
                    assert!(answer.whole <= answer.members && answer.members <= 40);
                    assert!(!answer.search || said.had < SIZE);
                }
            }
        }
        assert!(world.swarms.counts().bytes > 0);
        for number in 0..40 {
            world.swarms.leave(&cookie(number));
        }
        let counts = world.swarms.counts();
        assert_eq!(counts, Counts { announces: counts.announces, ..Default::default() }, "seed {seed}");
    }
}
