//! A malicious peer among correct ones: whatever it sends, the network recovers after it has left.

use std::collections::VecDeque;

use super::*;
use plumtree::{Action, Event};

/// Correct peers, each linked to all others and to the liar.
const HONEST: usize = 3;
/// How long the effects may last: three invented roots, one after the other, each gone after its expiry and
/// remembered as gone for half a minute.
const SETTLED_AFTER: Duration = Duration::from_secs(120);
/// Time for a broadcast to arrive.
const DEADLINE: Duration = Duration::from_secs(10);
/// Not one of [`Source::id`], which the forged messages name.
const LIAR: PeerId = PeerId::from_u128(999);

struct Peers {
    machines: Vec<Plumtree>,
    rng: ChaCha8Rng,
    now: Time,
    in_flight: VecDeque<(usize, PeerId, plumtree::Message)>,
    delivered: Vec<Vec<MessageId>>,
}

fn honest(index: usize) -> PeerId {
    PeerId::from_u128(index as u128 + 1)
}

impl Peers {
    fn handle(&mut self, index: usize, event: Event) {
        let mut out = Vec::new();
        self.machines[index].handle(event, self.now, &mut self.rng, &mut out);
        self.carry_out(index, out);
    }

    fn carry_out(&mut self, index: usize, actions: Vec<Action>) {
        for action in actions {
            match action {
                Action::Send(to, message) if to != LIAR => self.in_flight.push_back((index, to, message)),
                Action::Deliver(_, gossip) => self.delivered[index].push(gossip.id),
                Action::Send(..) | Action::Misbehaved(..) => {}
            }
        }
    }

    /// Runs for `duration`; messages arrive after a millisecond.
    fn run(&mut self, duration: Duration) {
        let end = self.now + duration;
        while self.now < end {
            for (from, to, message) in std::mem::take(&mut self.in_flight) {
                let index = to.as_u128() as usize - 1;
                self.handle(index, Event::Received { from: honest(from), message });
            }
            for index in 0..HONEST {
                if self.machines[index].next_deadline() <= self.now {
                    self.handle(index, Event::Tick);
                }
            }
            let next = self.machines.iter().map(Plumtree::next_deadline).min().unwrap_or(end);
            let soon = self.now + Duration::from_millis(1);
            self.now = if self.in_flight.is_empty() { next.max(soon).min(end.max(soon)) } else { soon };
        }
    }
}

/// Peers that receive any messages from one of them, and the invariants after it has left.
pub fn drive_liar(data: &[u8]) {
    let mut source = Source(data);
    let rng = ChaCha8Rng::seed_from_u64(source.number());
    let machine = |index| Plumtree::new(honest(index), 100 + index as u64, plumtree::Config::default(), Time::ZERO);
    let mut peers = Peers {
        machines: (0..HONEST).map(machine).collect(),
        rng,
        now: Time::ZERO,
        in_flight: VecDeque::new(),
        delivered: vec![Vec::new(); HONEST],
    };
    for index in 0..HONEST {
        for other in (0..HONEST).map(honest).chain([LIAR]).filter(|other| *other != honest(index)) {
            peers.handle(index, Event::NeighbourUp(other));
        }
    }
    while !source.0.is_empty() {
        let index = usize::from(source.byte()) % HONEST;
        let wait = source.wait();
        peers.run(wait);
        let message = source.plumtree();
        peers.handle(index, Event::Received { from: LIAR, message });
    }
    for index in 0..HONEST {
        peers.handle(index, Event::NeighbourDown(LIAR));
    }
    peers.run(SETTLED_AFTER);
    let roots: Vec<PeerId> = peers.machines.iter().map(|machine| machine.tree().root().0.id).collect();
    assert!(roots.iter().all(|root| *root == roots[0]), "{roots:?}");
    for origin in 0..HONEST {
        let mut out = Vec::new();
        let id = peers.machines[origin].broadcast(Bytes::from_static(b"after the liar"), peers.now, &mut out).expect("short");
        peers.carry_out(origin, out);
        peers.run(DEADLINE);
        for index in (0..HONEST).filter(|index| *index != origin) {
            assert_eq!(peers.delivered[index].iter().filter(|got| **got == id).count(), 1, "{id:?} at {index}");
        }
    }
}
