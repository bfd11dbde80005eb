//! What a few peers do, linked to each other.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

/// Bytes waiting for a link above which a driver offers a broadcast in the place of sending it.
const CONGESTED: usize = 2 << 20;
const LATENCY: Duration = Duration::from_millis(5);

/// Machines with links that lose nothing, but may be slow or cut.
struct Linked {
    machines: Vec<Plumtree>,
    rng: ChaCha8Rng,
    now: Time,
    links: BTreeSet<(usize, usize)>,
    /// By arrival.
    under_way: BTreeMap<(Time, u64), (usize, usize, Message)>,
    sent: u64,
    /// When the last that was sent each way has arrived, and the bytes on their way.
    busy: BTreeMap<(usize, usize), (Time, usize)>,
    bits_per_second: u64,
    delivered: Vec<Vec<MessageId>>,
    payloads: usize,
    grafts: usize,
    named: usize,
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
            under_way: BTreeMap::new(),
            sent: 0,
            busy: BTreeMap::new(),
            bits_per_second,
            delivered: vec![Vec::new(); count],
            payloads: 0,
            grafts: 0,
            named: 0,
        }
    }

    fn tell(&mut self, place: usize, event: Event) {
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
                Action::Misbehaved(..) => self.named += 1,
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
        self.under_way.insert((*until + LATENCY, self.sent), (from, to, message));
    }

    fn link(&mut self, a: usize, b: usize) {
        self.links.insert((a.min(b), a.max(b)));
        self.tell(a, Event::NeighbourUp(peer(b)));
        self.tell(b, Event::NeighbourUp(peer(a)));
    }

    fn cut(&mut self, a: usize, b: usize) {
        self.links.remove(&(a.min(b), a.max(b)));
        self.tell(a, Event::NeighbourDown(peer(b)));
        self.tell(b, Event::NeighbourDown(peer(a)));
    }

    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        loop {
            let arrival = self.under_way.first_key_value().map(|(at, _)| at.0);
            let timer = self.machines.iter().map(Plumtree::next_deadline).min().map(|at| at.max(self.now));
            let Some(next) = arrival.into_iter().chain(timer).min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            while let Some(entry) = self.under_way.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let (from, to, message) = entry.remove();
                if let Some((_, waiting)) = self.busy.get_mut(&(from, to)) {
                    *waiting -= size(&message);
                }
                if self.links.contains(&(from.min(to), from.max(to))) {
                    self.tell(to, Event::Received { from: peer(from), message });
                }
            }
            for place in 0..self.machines.len() {
                if self.machines[place].next_deadline() <= self.now {
                    self.tell(place, Event::Tick);
                }
            }
            // Timers are no finer than this.
            self.now += Duration::from_millis(1);
        }
        self.now = end;
    }
}

/// 130 broadcasts of 60 KiB that one peer missed, over a link of so many Mbit/s: how many it gets, and how many payloads are sent.
fn catch_up(megabits: u64) -> (usize, usize) {
    let mut linked = Linked::new(2, megabits * 1_000_000);
    linked.run(Duration::from_secs(100));
    for _ in 0..130 {
        linked.broadcast(0, 60 << 10);
    }
    linked.link(0, 1);
    linked.run(Duration::from_secs(120));
    assert_eq!(linked.named, 0, "nobody is to blame");
    assert!(linked.grafts < 130, "{} pulls", linked.grafts);
    (linked.delivered[1].len(), linked.payloads)
}

#[test]
fn a_peer_behind_a_slow_link_catches_up_and_is_given_each_broadcast_once() {
    for megabits in [2, 5, 10, 50, 1_000] {
        let (got, sent) = catch_up(megabits);
        assert_eq!(got, 130, "over {megabits} Mbit/s");
        assert!(sent <= 140, "{sent} payloads over {megabits} Mbit/s");
    }
    // It takes more than a minute; what comes in that time does come.
    let (got, sent) = catch_up(1);
    assert!(got >= 100, "{got} of 130 over 1 Mbit/s");
    assert!(sent <= 140, "{sent} payloads over 1 Mbit/s");
}

#[test]
fn what_was_said_while_two_peers_had_lost_the_others_for_a_moment_reaches_them() {
    let mut linked = Linked::new(3, 100_000_000);
    for (a, b) in [(0, 1), (0, 2), (1, 2)] {
        linked.link(a, b);
    }
    linked.run(Duration::from_secs(30));
    for (cut_ms, again) in [(300, true), (1_000, true), (3_000, false), (7_000, false), (9_000, true)] {
        linked.cut(0, 1);
        linked.cut(0, 2);
        linked.run(Duration::from_millis(cut_ms));
        let said = linked.broadcast(0, 5);
        linked.run(Duration::from_millis(500));
        linked.link(0, 1);
        if again {
            linked.link(0, 2);
        }
        linked.run(Duration::from_secs(10));
        for place in [1, 2] {
            assert!(linked.delivered[place].contains(&said), "{place} after {cut_ms} ms");
        }
        linked.link(0, 2);
        linked.run(Duration::from_secs(30));
    }
    let all = linked.delivered[1].len() + linked.delivered[2].len();
    assert_eq!(all, 10, "and nothing twice");
}

#[test]
fn what_was_lost_with_a_link_comes_over_the_one_in_its_place() {
    let mut linked = Linked::new(2, 100_000_000);
    linked.link(0, 1);
    linked.run(Duration::from_secs(30));
    let said = linked.broadcast(0, 5);
    linked.under_way.clear();
    linked.busy.clear();
    // Neither side has noticed that there was none.
    linked.link(0, 1);
    linked.run(Duration::from_secs(5));
    assert_eq!(linked.delivered[1], [said]);
}

#[test]
fn a_root_that_is_lied_to_about_its_own_count_goes_on_being_followed() {
    let mut linked = Linked::new(3, 100_000_000);
    linked.link(0, 1);
    linked.link(0, 2);
    linked.link(1, 2);
    // Not at the moment of a beacon, which is news to all others.
    linked.run(Duration::from_millis(20_500));
    let (root, _) = linked.machines[0].tree().root();
    assert!(linked.machines[0].tree().is_root());
    for sequence in [MAX_BEACON_SEQUENCE - 1, MAX_BEACON_SEQUENCE, u64::MAX, 5_000, 10_000] {
        let lie = Beacon { root, sequence, hops: 1, parent: true };
        for _ in 0..10 {
            linked.tell(0, Event::Received { from: peer(2), message: Message::Beacon(lie) });
        }
        for _ in 0..72 {
            linked.run(Duration::from_secs(1));
            let (its, sequence) = linked.machines[0].tree().root();
            for place in [1, 2] {
                let tree = linked.machines[place].tree();
                assert_eq!((tree.root().0, tree.parent()), (its, Some(peer(0))), "{place} after {:?}", linked.now);
                assert!(!tree.is_foreign(its, sequence), "{place} after {:?}", linked.now);
            }
        }
    }
}
