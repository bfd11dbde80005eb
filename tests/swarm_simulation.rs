//! Many peers that want one file in the same second: the tracker of the registry and the announces of each peer, in virtual time.

#![allow(
    clippy::print_stdout,
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    reason = "a test fails by a panic, in its helpers too"
)]
#![allow(clippy::cast_possible_truncation, reason = "sizes are small")]

use p2pdi::{content::ContentHash, cookie::CookieHash, id::PeerId, v1::AnnounceResponse};
use peerd::holders::{
    announcer::{Action, CONNECTIONS_MAX, CONNECTIONS_WANTED, Decisions, Event},
    source::Source,
};
use rand::{RngExt as _, SeedableRng as _, rngs::StdRng};
use registry::swarms::{Announce, Caller, DocumentKey, ReportedHolder, Swarms, WANT_MAX};
use std::{
    cmp::Reverse,
    collections::{BTreeSet, BinaryHeap},
    time::Duration,
};

const SIZE: u64 = 1 << 30;
const DOCUMENT: DocumentKey = DocumentKey { hash: ContentHash::from_bytes([7; 32]), size: SIZE };
/// One way to the registry and back.
const ROUND_TRIP: Duration = Duration::from_millis(20);
/// A search that finds somebody: some of it is waiting for peers that do not answer.
const SEARCH_TAKES: Duration = Duration::from_millis(900);
/// Peers that one search asks.
const SEARCH_ASKS: u32 = 24;
/// How long the fetch takes once a holder of the whole is known.
const FETCH_TAKES: Duration = Duration::from_secs(60);

/// What happens to one peer at some time.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum What {
    Time,
    Answered { interval: Duration, search: bool, others: Vec<usize>, seed: bool },
    Found(bool),
}

struct Peer {
    decisions: Decisions,
    zone: usize,
    announces: u32,
    searches: u32,
    /// Others that it knows.
    known: BTreeSet<usize>,
    knows_seed: bool,
    /// When it knew ten others and the seed.
    ready: Option<Duration>,
    /// When it first knew the seed.
    began: Option<Duration>,
    dials: BTreeSet<usize>,
}

struct World {
    swarms: Swarms,
    peers: Vec<Peer>,
    events: BinaryHeap<Reverse<(Duration, usize, What)>>,
    rng: StdRng,
    /// Whether searches find the seed.
    seed_exists: bool,
    /// Most announces in one second.
    announces: Vec<u32>,
}

const SEED: usize = usize::MAX;
const SEED_ENDPOINT: &str = "10.9.9.9:7801";

fn caller(number: usize, zone: usize) -> Caller {
    Caller {
        cookie: CookieHash::from_bytes((number as u128).to_be_bytes()),
        id: PeerId::from_u128(number as u128),
        name: format!("p{number}").into(),
        endpoint: format!("10.0.0.1:{}", 1 + number).into(),
        zone: format!("z{zone}").into(),
        uploads: 0,
    }
}

fn number_of(endpoint: &str) -> usize {
    if endpoint == SEED_ENDPOINT { SEED } else { endpoint.rsplit(':').next().unwrap().parse::<usize>().unwrap() - 1 }
}

impl World {
    fn new(count: usize, seed: u64, seed_exists: bool) -> Self {
        let mut rng = StdRng::seed_from_u64(seed);
        let mut events = BinaryHeap::new();
        let peers = (0..count)
            .map(|number| {
                let begins = Duration::from_micros(rng.random_range(0..1_000_000));
                events.push(Reverse((begins, number, What::Time)));
                Peer {
                    decisions: Decisions::new(SIZE, 0, Vec::new(), begins),
                    zone: number % 3,
                    announces: 0,
                    searches: 0,
                    known: BTreeSet::new(),
                    knows_seed: false,
                    ready: None,
                    began: None,
                    dials: BTreeSet::new(),
                }
            })
            .collect();
        Self { swarms: Swarms::default(), peers, events, rng, seed_exists, announces: Vec::new() }
    }

    fn run(&mut self, until: Duration) {
        while self.events.peek().is_some_and(|Reverse((at, ..))| *at <= until) {
            let Some(Reverse((now, number, what))) = self.events.pop() else { return };
            let peer = &mut self.peers[number];
            // What a fetch has after this time.
            if let Some(began) = peer.began {
                let part = (now - began).as_secs_f64() / FETCH_TAKES.as_secs_f64();
                let had = if part >= 1.0 { SIZE } else { (part * SIZE as f64) as u64 };
                let actions = peer.decisions.handle(Event::Had(had), now, &mut self.rng);
                self.act(number, actions, now);
            }
            let peer = &mut self.peers[number];
            let event = match what {
                What::Time if peer.decisions.next().is_none_or(|next| next > now) => continue,
                What::Time => Event::Time,
                What::Answered { interval, search, others, seed } => {
                    let count = others.len();
                    peer.known.extend(others.iter().copied());
                    peer.knows_seed |= seed;
                    Event::Answered { interval, search, others: count }
                }
                What::Found(found) => {
                    peer.knows_seed |= found;
                    let seed = Source::new(None, SEED_ENDPOINT.parse().unwrap());
                    Event::Found(if found { vec![seed] } else { Vec::new() })
                }
            };
            if peer.knows_seed && peer.began.is_none() {
                peer.began = Some(now);
            }
            if peer.knows_seed && peer.known.len() >= 10 && peer.ready.is_none() {
                peer.ready = Some(now);
            }
            let actions = peer.decisions.handle(event, now, &mut self.rng);
            self.act(number, actions, now);
            self.dial(number);
            // A fetch with few useful others asks for more.
            let peer = &mut self.peers[number];
            if peer.began.is_some() && peer.known.len() + peer.dials.len() < 10 {
                let actions = peer.decisions.handle(Event::WantMore { starved: false }, now, &mut self.rng);
                self.act(number, actions, now);
            }
            if let Some(next) = self.peers[number].decisions.next() {
                self.events.push(Reverse((next.max(now), number, What::Time)));
            }
        }
    }

    fn act(&mut self, number: usize, actions: Vec<Action>, now: Duration) {
        for action in actions {
            match action {
                Action::Announce { had, holders, searched, starved } => {
                    let zone = self.peers[number].zone;
                    self.peers[number].announces += 1;
                    let second = usize::try_from(now.as_secs()).unwrap();
                    if self.announces.len() <= second {
                        self.announces.resize(second + 1, 0);
                    }
                    self.announces[second] += 1;
                    let reported = |source: &Source| ReportedHolder {
                        id: None,
                        name: "".into(),
                        endpoint: source.endpoint.as_str().into(),
                        zone: "".into(),
                    };
                    let holders = holders.iter().map(reported).collect();
                    let announce = Announce { document: DOCUMENT, had, done: false, holders, want: WANT_MAX, searched, starved };
                    let now_ms = u64::try_from(now.as_millis()).unwrap();
                    while self.swarms.expire(now_ms, 8) {}
                    let answer = self.swarms.handle(&caller(number, zone), &announce, now_ms, &mut self.rng).unwrap();
                    self.events.push(Reverse((now + ROUND_TRIP, number, answered(&answer))));
                }
                Action::Search => {
                    self.peers[number].searches += 1;
                    self.events.push(Reverse((now + SEARCH_TAKES, number, What::Found(self.seed_exists))));
                }
            }
        }
    }

    /// Opens streams to those it knows.
    fn dial(&mut self, number: usize) {
        let known: Vec<usize> = self.peers[number].known.iter().copied().collect();
        for other in known {
            let own = self.peers[number].dials.len();
            if own >= CONNECTIONS_WANTED || self.peers[number].dials.contains(&other) {
                continue;
            }
            if self.peers[other].dials.len() < CONNECTIONS_MAX {
                self.peers[number].dials.insert(other);
                self.peers[other].dials.insert(number);
            }
        }
    }

    /// Peers that can be reached from the first one over streams.
    fn reached(&self) -> usize {
        let (mut reached, mut waiting) = (BTreeSet::from([0]), vec![0]);
        while let Some(at) = waiting.pop() {
            waiting.extend(self.peers[at].dials.iter().copied().filter(|other| reached.insert(*other)));
        }
        reached.len()
    }
}

fn answered(answer: &AnnounceResponse) -> What {
    let others = answer.others.iter().map(|other| number_of(&other.peer.as_ref().unwrap().endpoint));
    let (seed, others): (Vec<_>, Vec<_>) = others.partition(|other| *other == SEED);
    What::Answered {
        interval: answer.interval.unwrap().try_into().unwrap(),
        search: answer.search,
        others,
        seed: !seed.is_empty(),
    }
}

/// Figures of one run.
fn crowd(count: usize, lasts: Duration) {
    let mut world = World::new(count, 1, true);
    world.run(lasts);
    let searches: u32 = world.peers.iter().map(|peer| peer.searches).sum();
    let most_announces = world.peers.iter().map(|peer| peer.announces).max().unwrap();
    let announces: u32 = world.peers.iter().map(|peer| peer.announces).sum();
    let mut ready: Vec<Duration> = world.peers.iter().map(|peer| peer.ready.expect("knows ten others and the seed")).collect();
    ready.sort_unstable();
    let calls = f64::from(announces + searches * SEARCH_ASKS) / count as f64;
    let fewest = world.peers.iter().map(|peer| peer.dials.len()).min().unwrap();
    let most = world.peers.iter().map(|peer| peer.dials.len()).max().unwrap();
    let busiest = world.announces.iter().max().unwrap();
    println!(
        "{count} peers: {calls:.1} calls each ({most_announces} announces at most), {searches} searches, ready after {:?} at the median \
         and {:?} at the last, {fewest} to {most} streams, {busiest} announces in the busiest second",
        ready[count / 2],
        ready[count - 1]
    );
    assert!((1..=2).contains(&searches), "{searches}");
    assert!(calls <= 15.0 && most_announces <= 30, "{calls} {most_announces}");
    assert!(ready[count - 1] <= Duration::from_secs(6), "{:?}", ready[count - 1]);
    assert_eq!(world.reached(), count, "the streams connect all");
    assert!(fewest >= 10, "{fewest}");
}

#[test]
fn a_thousand_peers_that_begin_together_search_once_and_soon_know_each_other() {
    // A minute of waiting and fetching, then a minute of serving.
    crowd(1_000, Duration::from_secs(120));
}

#[test]
fn ten_thousand_peers_that_begin_together_search_once_and_soon_know_each_other() {
    crowd(10_000, Duration::from_secs(40));
}

#[test]
fn where_nobody_has_the_document_few_search_and_all_ask_ever_more_rarely() {
    let mut world = World::new(1_000, 2, false);
    world.run(Duration::from_secs(600));
    let searches: u32 = world.peers.iter().map(|peer| peer.searches).sum();
    let announces: u32 = world.peers.iter().map(|peer| peer.announces).sum();
    println!("{searches} searches, {:.1} announces each in ten minutes", f64::from(announces) / 1_000.0);
    assert!((5..=20).contains(&searches), "{searches}");
    assert!(announces <= 40_000, "{announces}");
    // It appears at last: within one interval all know it.
    world.seed_exists = true;
    world.run(Duration::from_secs(600 + 150));
    assert!(world.peers.iter().all(|peer| peer.knows_seed));
}
