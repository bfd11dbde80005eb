//! A few linked peers.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Bytes queued on a link above which the driver sends an advert instead of a payload.
const CONGESTED: usize = 2 << 20;
const LATENCY: Duration = Duration::from_millis(5);

/// State machines with reliable links, which may be slow or cut.
struct Linked {
    machines: Vec<Plumtree>,
    rng: ChaCha8Rng,
    now: Time,
    links: BTreeSet<(usize, usize)>,
    /// Messages in flight, by time of arrival.
    in_flight: BTreeMap<(Time, u64), (usize, usize, Message)>,
    sent: u64,
    /// For each direction: when the link is free again, and the bytes in flight.
    busy: BTreeMap<(usize, usize), (Time, usize)>,
    bits_per_second: u64,
    delivered: Vec<Vec<MessageId>>,
    payloads: usize,
    grafts: usize,
    reports: usize,
}

fn peer(place: usize) -> PeerId {
    PeerId::from_u128(place as u128 + 1)
}

fn size(message: &Message) -> usize {
    60 + if let Message::Gossip(gossip) = message { gossip.payload.len() } else { 0 }
}

impl Linked {
    fn new(count: usize, bits_per_second: u64) -> Self {
        let machine = |place| Plumtree::new(peer(place), place as u64 + 1, Config::default(), Time::ZERO);
        Self {
            machines: (0..count).map(machine).collect(),
            rng: ChaCha8Rng::seed_from_u64(1),
            now: Time::ZERO,
            links: BTreeSet::new(),
            in_flight: BTreeMap::new(),
            sent: 0,
            busy: BTreeMap::new(),
            bits_per_second,
            delivered: vec![Vec::new(); count],
            payloads: 0,
            grafts: 0,
            reports: 0,
        }
    }

    fn handle(&mut self, place: usize, event: Event) {
        let mut out = Vec::new();
        self.machines[place].handle(event, self.now, &mut self.rng, &mut out);
        self.carry_out(place, out);
    }

    fn broadcast(&mut self, place: usize, length: usize) -> MessageId {
        let mut out = Vec::new();
        let id = self.machines[place].broadcast(vec![0; length].into(), self.now, &mut out).expect("short enough");
        self.carry_out(place, out);
        id
    }

    fn carry_out(&mut self, from: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(to, message) => {
                    let to = to.as_u128() as usize - 1;
                    self.send(from, to, message);
                }
                Action::Deliver(_, gossip) => self.delivered[from].push(gossip.id),
                Action::Misbehaved(..) => self.reports += 1,
            }
        }
    }

    fn send(&mut self, from: usize, to: usize, mut message: Message) {
        if !self.links.contains(&(from.min(to), from.max(to))) {
            return;
        }
        let (until, waiting) = self.busy.entry((from, to)).or_insert((self.now, 0));
        if let Message::Gossip(gossip) = &message {
            if *waiting > CONGESTED {
                message = Message::Advertise(vec![Advert { id: gossip.id, age: gossip.age }]);
            } else {
                self.payloads += 1;
            }
        }
        self.grafts += usize::from(matches!(message, Message::Graft { .. }));
        *waiting += size(&message);
        let micros = size(&message) as u64 * 8_000_000 / self.bits_per_second;
        *until = self.now.max(*until) + Duration::from_micros(micros);
        self.sent += 1;
        self.in_flight.insert((*until + LATENCY, self.sent), (from, to, message));
    }

    fn link(&mut self, a: usize, b: usize) {
        self.links.insert((a.min(b), a.max(b)));
        self.handle(a, Event::NeighbourUp(peer(b)));
        self.handle(b, Event::NeighbourUp(peer(a)));
    }

    fn cut(&mut self, a: usize, b: usize) {
        self.links.remove(&(a.min(b), a.max(b)));
        self.handle(a, Event::NeighbourDown(peer(b)));
        self.handle(b, Event::NeighbourDown(peer(a)));
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let arrival = self.in_flight.first_key_value().map(|(at, _)| at.0);
            let timer = self.machines.iter().map(Plumtree::next_deadline).min().map(|at| at.max(self.now));
            let Some(next) = arrival.into_iter().chain(timer).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.in_flight.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (from, to, message) = entry.remove();
                if let Some((_, waiting)) = self.busy.get_mut(&(from, to)) {
                    *waiting -= size(&message);
                }
                if self.links.contains(&(from.min(to), from.max(to))) {
                    self.handle(to, Event::Received { from: peer(from), message });
                }
            }
            for place in 0..self.machines.len() {
                if self.machines[place].next_deadline() <= self.now {
                    self.handle(place, Event::Tick);
                }
            }
            // The resolution of timers.
            self.now += Duration::from_millis(1);
        }
        self.now = end;
    }
}

/// A peer that missed 130 broadcasts of 60 KiB, on a link of the given rate in Mbit/s: how many it receives, and how many payloads are sent.
fn catch_up(megabits: u64) -> (usize, usize) {
    let mut linked = Linked::new(2, megabits * 1_000_000);
    linked.run(Duration::from_secs(100));
    for _ in 0..130 {
        linked.broadcast(0, 60 << 10);
    }
    linked.link(0, 1);
    linked.run(Duration::from_secs(120));
    assert_eq!(linked.reports, 0, "no peer broke the protocol");
    assert!(linked.grafts < 130, "{} pulls", linked.grafts);
    (linked.delivered[1].len(), linked.payloads)
}

#[test]
fn a_peer_on_a_slow_link_catches_up_and_receives_each_broadcast_once() {
    for megabits in [2, 5, 10, 50, 1_000] {
        let (got, sent) = catch_up(megabits);
        assert_eq!(got, 130, "over {megabits} Mbit/s");
        assert!(sent <= 140, "{sent} payloads over {megabits} Mbit/s");
    }
    // It takes longer than the retention; what fits into that time arrives.
    let (got, sent) = catch_up(1);
    assert!(got >= 100, "{got} of 130 over 1 Mbit/s");
    assert!(sent <= 140, "{sent} payloads over 1 Mbit/s");
}

#[test]
fn broadcasts_sent_during_a_short_partition_reach_the_other_side() {
    let mut linked = Linked::new(3, 100_000_000);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        linked.link(a, b);
    }
    linked.run(Duration::from_secs(30));
    for (cut_ms, again) in [(300, true), (1_000, true), (3_000, false), (7_000, false), (9_000, true)] {
        linked.cut(0, 1);
        linked.cut(0, 2);
        linked.run(Duration::from_millis(cut_ms));
        let id = linked.broadcast(0, 5);
        linked.run(Duration::from_millis(500));
        linked.link(0, 1);
        if again {
            linked.link(0, 2);
        }
        linked.run(Duration::from_secs(10));
        for place in [1, 2] {
            assert!(linked.delivered[place].contains(&id), "{place} after {cut_ms} ms");
        }
        linked.link(0, 2);
        linked.run(Duration::from_secs(30));
    }
    let all = linked.delivered[1].len() + linked.delivered[2].len();
    assert_eq!(all, 10, "no duplicate is delivered");
}

#[test]
fn a_broadcast_lost_with_a_link_arrives_on_its_replacement() {
    let mut linked = Linked::new(2, 100_000_000);
    linked.link(0, 1);
    linked.run(Duration::from_secs(30));
    let id = linked.broadcast(0, 5);
    linked.in_flight.clear();
    linked.busy.clear();
    // Neither side noticed the loss.
    linked.link(0, 1);
    linked.run(Duration::from_secs(5));
    assert_eq!(linked.delivered[1], [id]);
}

#[test]
fn a_root_that_receives_forged_sequence_numbers_of_its_own_keeps_its_followers() {
    let mut linked = Linked::new(3, 100_000_000);
    linked.link(0, 1);
    linked.link(0, 2);
    linked.link(1, 2);
    // Between two beacons, so that none is on its way.
    linked.run(Duration::from_millis(20_500));
    let (root, _) = linked.machines[0].tree().root();
    assert!(linked.machines[0].tree().is_root());
    for sequence in [MAX_BEACON_SEQUENCE - 1, MAX_BEACON_SEQUENCE, u64::MAX, 5_000, 10_000] {
        let forged = Beacon { root, sequence, hops: 1, parent: true };
        for _ in 0..10 {
            linked.handle(0, Event::Received { from: peer(2), message: Message::Beacon(forged) });
        }
        for _ in 0..72 {
            linked.run(Duration::from_secs(1));
            let (current, sequence) = linked.machines[0].tree().root();
            for place in [1, 2] {
                let tree = linked.machines[place].tree();
                assert_eq!((tree.root().0, tree.parent()), (current, Some(peer(0))), "{place} after {:?}", linked.now);
                assert!(!tree.is_other_partition(current, sequence), "{place} after {:?}", linked.now);
            }
        }
    }
}
