//! A liar among peers that keep to the rules: whatever it says, it does no harm that lasts.

use std::collections::VecDeque;

use super::*;
use plumtree::{Action, Event};

/// Honest peers, each linked to all others and to the liar.
const HONEST: usize = 3;
/// How long the liar's traces may last: three roots that never were, one after the other, each gone after its expiry and
/// remembered as gone for half a minute.
const SETTLED_AFTER: Duration = Duration::from_secs(120);
/// Within which a broadcast has to arrive.
const DEADLINE: Duration = Duration::from_secs(10);
/// Not one of [`Source::id`], which lies are about.
const LIAR: PeerId = PeerId::from_u128(999);

struct Peers {
    machines: Vec<Plumtree>,
    rng: ChaCha8Rng,
    now: Time,
    under_way: VecDeque<(usize, PeerId, plumtree::Message)>,
    delivered: Vec<Vec<MessageId>>,
}

fn honest(place: usize) -> PeerId {
    PeerId::from_u128(place as u128 + 1)
}

impl Peers {
    fn tell(&mut self, place: usize, event: Event) {
        let mut out = Vec::new();
        self.machines[place].handle(event, self.now, &mut self.rng, &mut out);
        self.carry_out(place, out);
    }

    fn carry_out(&mut self, place: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(to, message) if to != LIAR => self.under_way.push_back((place, to, message)),
                Action::Deliver(_, gossip) => self.delivered[place].push(gossip.id),
                Action::Send(..) | Action::Misbehaved(..) => {}
            }
        }
    }

    /// Lets time pass; what is said arrives a millisecond later.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            for (from, to, message) in std::mem::take(&mut self.under_way) {
                let place = to.as_u128() as usize - 1;
                self.tell(place, Event::Received { from: honest(from), message });
            }
            for place in 0..HONEST {
                if self.machines[place].next_deadline() <= self.now {
                    self.tell(place, Event::Tick);
                }
            }
            let next = self.machines.iter().map(Plumtree::next_deadline).min().unwrap_or(end);
            let soon = self.now + Duration::from_millis(1);
            self.now = if self.under_way.is_empty() { next.max(soon).min(end.max(soon)) } else { soon };
        }
    }
}

/// Peers that hear any story from one of them, and what holds once it has left.
pub fn drive_liar(data: &[u8]) {
    let mut source = Source(data);
    let rng = ChaCha8Rng::seed_from_u64(source.number());
    let machine = |place| Plumtree::new(honest(place), 100 + place as u64, plumtree::Config::default(), Time::ZERO);
    let mut peers = Peers {
        machines: (0..HONEST).map(machine).collect(),
        rng,
        now: Time::ZERO,
        under_way: VecDeque::new(),
        delivered: vec![Vec::new(); HONEST],
    };
    for place in 0..HONEST {
        for other in (0..HONEST).map(honest).chain([LIAR]).filter(|other| *other != honest(place)) {
            peers.tell(place, Event::NeighbourUp(other));
        }
    }
    while !source.0.is_empty() {
        let place = usize::from(source.byte()) % HONEST;
        let wait = source.wait();
        peers.run(wait);
        let message = source.plumtree();
        peers.tell(place, Event::Received { from: LIAR, message });
    }
    for place in 0..HONEST {
        peers.tell(place, Event::NeighbourDown(LIAR));
    }
    peers.run(SETTLED_AFTER);
    let roots: Vec<PeerId> = peers.machines.iter().map(|machine| machine.tree().root().0.id).collect();
    assert!(roots.iter().all(|root| *root == roots[0]), "{roots:?}");
    for origin in 0..HONEST {
        let mut out = Vec::new();
        let id = peers.machines[origin].broadcast(Bytes::from_static(b"after the liar"), peers.now, &mut out).expect("short");
        peers.carry_out(origin, out);
        peers.run(DEADLINE);
        for place in (0..HONEST).filter(|place| *place != origin) {
            assert_eq!(peers.delivered[place].iter().filter(|got| **got == id).count(), 1, "{id:?} at {place}");
        }
    }
}
