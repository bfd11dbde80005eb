//! Many peers that nobody can dial around one that can be: all turn to it, and it has not room for all.

use super::*;

const LATENCY: Duration = Duration::from_millis(2);

enum Happens {
    Dialled { by: usize },
    Said { to: usize, from: usize, link: u64, message: Message },
    Closed { at: usize, peer: usize, link: u64 },
    DialFailed { by: usize, peer: PeerId },
    Found { by: usize },
}

/// The hub is the first; it is the only one that can be dialled.
struct Crowd {
    machines: Vec<Membership>,
    rng: ChaCha8Rng,
    now: Time,
    coming: BTreeMap<(Time, u64), Happens>,
    links: BTreeMap<(usize, usize), u64>,
    count: u64,
    put_out: usize,
    dials: usize,
    calls: usize,
}

impl Crowd {
    fn around_one(takers: usize) -> Self {
        let machine = |place| Membership::new(contact(place as u128), Config::default(), Time::ZERO);
        let mut crowd = Self {
            machines: (0..=takers).map(machine).collect(),
            rng: ChaCha8Rng::seed_from_u64(3),
            now: Time::ZERO,
            coming: BTreeMap::new(),
            links: BTreeMap::new(),
            count: 0,
            put_out: 0,
            dials: 0,
            calls: 0,
        };
        for by in 1..=takers {
            crowd.later(Duration::from_millis(200 * by as u64), Happens::Found { by });
        }
        crowd
    }

    fn later(&mut self, wait: Duration, happens: Happens) {
        self.count += 1;
        self.coming.insert((self.now + wait, self.count), happens);
    }

    fn tell(&mut self, place: usize, event: Event) {
        let mut out = Vec::new();
        self.machines[place].handle(event, self.now, &mut self.rng, &mut out);
        let index = |peer: PeerId| peer.as_u128() as usize;
        for action in out {
            match action {
                Action::Dial(peer) => {
                    self.dials += 1;
                    let failed = Happens::DialFailed { by: place, peer: peer.id() };
                    self.later(LATENCY, if index(peer.id()) == 0 { Happens::Dialled { by: place } } else { failed });
                }
                Action::Send(peer, message) => {
                    if let Some(link) = self.links.get(&(place, index(peer))).copied() {
                        self.later(LATENCY, Happens::Said { to: index(peer), from: place, link, message });
                    }
                }
                Action::Close(peer) => {
                    if let Some(link) = self.links.remove(&(place, index(peer))) {
                        self.later(2 * LATENCY, Happens::Closed { at: index(peer), peer: place, link });
                    }
                }
                Action::AskForPeers(_) => {
                    self.calls += 1;
                    self.later(LATENCY, Happens::Found { by: place });
                }
                Action::NeighbourDown(_) if place == 0 => self.put_out += 1,
                _ => {}
            }
        }
    }

    fn happen(&mut self, happens: Happens) {
        match happens {
            Happens::Found { by } => self.tell(by, Event::PeersFound(vec![contact(0)])),
            Happens::DialFailed { by, peer } => self.tell(by, Event::DialFailed { peer }),
            Happens::Dialled { by } => {
                for (at, peer) in [(0, by), (by, 0)] {
                    self.links.insert((at, peer), self.count);
                }
                for (at, peer) in [(0, by), (by, 0)] {
                    self.tell(at, Event::LinkUp { peer: contact(peer as u128), incarnation: 1, dialled: at == by });
                }
            }
            Happens::Said { to, from, link, message } if self.links.get(&(to, from)) == Some(&link) => {
                self.tell(to, Event::Received { from: PeerId::from_u128(from as u128), message });
            }
            Happens::Closed { at, peer, link } if self.links.get(&(at, peer)) == Some(&link) => {
                self.links.remove(&(at, peer));
                self.tell(at, Event::LinkDown { peer: PeerId::from_u128(peer as u128) });
            }
            Happens::Said { .. } | Happens::Closed { .. } => {}
        }
    }

    fn run(&mut self, duration: Duration) {
        (self.put_out, self.dials, self.calls) = (0, 0, 0);
        let end = self.now + duration;
        while self.now < end {
            while let Some(entry) = self.coming.first_entry().filter(|entry| entry.key().0 <= self.now) {
                let happens = entry.remove();
                self.happen(happens);
            }
            for place in 0..self.machines.len() {
                if self.machines[place].next_deadline(self.now).is_some_and(|due| due <= self.now) {
                    self.tell(place, Event::Tick);
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
fn peers_that_only_take_do_not_put_out_each_other_for_ever() {
    let slots = Config::default().incoming + Config::default().reserved;
    for takers in [4, 7, 14] {
        let mut crowd = Crowd::around_one(takers);
        crowd.run(Duration::from_secs(300));
        crowd.run(Duration::from_secs(120));
        let left_out = takers.saturating_sub(slots);
        assert_eq!(crowd.without_a_link(), left_out, "of {takers}");
        assert_eq!(crowd.put_out, 0, "of {takers}");
        // Each dials those it has heard of once in a minute, and the one that can be dialled; and calls for help as often.
        assert!(crowd.dials <= 12 * takers, "{} dials of {takers}", crowd.dials);
        assert!(crowd.calls <= 4 * takers, "{} calls of {takers}", crowd.calls);
    }
}
