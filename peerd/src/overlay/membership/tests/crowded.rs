//! Many peers behind NAT around a single one that can be dialled: all ask it, and it cannot accept all.

use super::*;

const LATENCY: Duration = Duration::from_millis(2);

enum Occurrence {
    Dialled { by: usize },
    Received { to: usize, from: usize, link: u64, message: Message },
    Closed { at: usize, peer: usize, link: u64 },
    DialFailed { by: usize, peer: PeerId },
    Found { by: usize },
}

/// The hub is the first; it is the only one that can be dialled.
struct Crowd {
    machines: Vec<Membership>,
    rng: ChaCha8Rng,
    now: Time,
    queue: BTreeMap<(Time, u64), Occurrence>,
    links: BTreeMap<(usize, usize), u64>,
    count: u64,
    evictions: usize,
    dials: usize,
    asks: usize,
}

impl Crowd {
    fn around_one(clients: usize) -> Self {
        let machine = |place| Membership::new(contact(place as u128), Config::default(), Time::ZERO);
        let mut crowd = Self {
            machines: (0..=clients).map(machine).collect(),
            rng: ChaCha8Rng::seed_from_u64(3),
            now: Time::ZERO,
            queue: BTreeMap::new(),
            links: BTreeMap::new(),
            count: 0,
            evictions: 0,
            dials: 0,
            asks: 0,
        };
        for by in 1..=clients {
            crowd.schedule(Duration::from_millis(200 * by as u64), Occurrence::Found { by });
        }
        crowd
    }

    fn schedule(&mut self, wait: Duration, occurrence: Occurrence) {
        self.count += 1;
        self.queue.insert((self.now + wait, self.count), occurrence);
    }

    fn handle(&mut self, place: usize, event: Event) {
        let mut out = Vec::new();
        self.machines[place].handle(event, self.now, &mut self.rng, &mut out);
        let index = |peer: PeerId| peer.as_u128() as usize;
        for action in out {
            match action {
                Action::Dial(peer) => {
                    self.dials += 1;
                    let failed = Occurrence::DialFailed { by: place, peer: peer.id() };
                    self.schedule(LATENCY, if index(peer.id()) == 0 { Occurrence::Dialled { by: place } } else { failed });
                }
                Action::Send(peer, message) => {
                    if let Some(link) = self.links.get(&(place, index(peer))).copied() {
                        self.schedule(LATENCY, Occurrence::Received { to: index(peer), from: place, link, message });
                    }
                }
                Action::Close(peer) => {
                    if let Some(link) = self.links.remove(&(place, index(peer))) {
                        self.schedule(2 * LATENCY, Occurrence::Closed { at: index(peer), peer: place, link });
                    }
                }
                Action::AskForPeers(_) => {
                    self.asks += 1;
                    self.schedule(LATENCY, Occurrence::Found { by: place });
                }
                Action::NeighbourDown(_) if place == 0 => self.evictions += 1,
                _ => {}
            }
        }
    }

    fn process(&mut self, occurrence: Occurrence) {
        match occurrence {
            Occurrence::Found { by } => self.handle(by, Event::PeersFound(vec![contact(0)])),
            Occurrence::DialFailed { by, peer } => self.handle(by, Event::DialFailed { peer }),
            Occurrence::Dialled { by } => {
                for (at, peer) in [(0, by), (by, 0)] {
                    self.links.insert((at, peer), self.count);
                }
                for (at, peer) in [(0, by), (by, 0)] {
                    self.handle(at, Event::LinkUp { peer: contact(peer as u128), incarnation: 1, dialled: at == by });
                }
            }
            Occurrence::Received { to, from, link, message } if self.links.get(&(to, from)) == Some(&link) => {
                self.handle(to, Event::Received { from: PeerId::from_u128(from as u128), message });
            }
            Occurrence::Closed { at, peer, link } if self.links.get(&(at, peer)) == Some(&link) => {
                self.links.remove(&(at, peer));
                self.handle(at, Event::LinkDown { peer: PeerId::from_u128(peer as u128) });
            }
            Occurrence::Received { .. } | Occurrence::Closed { .. } => {}
        }
    }

    fn run(&mut self, duration: Duration) {
        (self.evictions, self.dials, self.asks) = (0, 0, 0);
        let end = self.now + duration;
        while self.now < end {
            while let Some(entry) = self.queue.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let occurrence = entry.remove();
                self.process(occurrence);
            }
            for place in 0..self.machines.len() {
                if self.machines[place].next_deadline(self.now).is_some_and(|due| due <= self.now) {
                    self.handle(place, Event::Tick);
                }
            }
            self.now += Duration::from_millis(1);
        }
    }

    fn without_a_link(&self) -> usize {
        self.machines.iter().skip(1).filter(|machine| machine.neighbours().count() == 0).count()
    }
}

#[test]
fn peers_that_cannot_be_dialled_do_not_evict_each_other_without_end() {
    let slots = Config::default().incoming + Config::default().reserved;
    for clients in [4, 7, 14] {
        let mut crowd = Crowd::around_one(clients);
        crowd.run(Duration::from_secs(300));
        crowd.run(Duration::from_secs(120));
        let left_out = clients.saturating_sub(slots);
        assert_eq!(crowd.without_a_link(), left_out, "of {clients}");
        assert_eq!(crowd.evictions, 0, "of {clients}");
        // Each dials every contact that it knows, and the hub, once a minute, and asks for peers as often.
        assert!(crowd.dials <= 12 * clients, "{} dials of {clients}", crowd.dials);
        assert!(crowd.asks <= 4 * clients, "{} requests of {clients}", crowd.asks);
    }
}
