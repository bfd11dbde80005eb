//! Processing of the events of a simulated network.

use peerd::overlay::link::{Keep, keep};
use rand::RngExt;

use super::{DIAL_TIMEOUT, Event, Index, Input, Kind, Micros, Network, Node, Output, REGISTRY_LATENCY, SECOND, ours};

impl<N: Node> Network<N> {
    pub(super) fn process(&mut self, event: Event<N::Message>) {
        match event {
            Event::Start(index, contacts) => self.feed(index, Input::Start(contacts)),
            Event::Found(index, peers) => self.feed(index, Input::Found(peers)),
            Event::Timer(index, incarnation, number) => {
                if self.slots[index as usize].incarnation == incarnation {
                    self.feed(index, Input::Timer(number));
                }
            }
            Event::DialFailed { from, to } => self.feed(from, Input::DialFailed(to)),
            Event::Dial { from, to, link } => self.arrive(from, to, link),
            Event::Dialled { from, to, link } => self.dialled(from, to, link),
            Event::Down { at, peer, .. } if !N::DIALS => {
                // As in iroh-gossip's own simulator, even if there is a new link by now.
                self.feed(at, Input::LinkDown(peer));
            }
            Event::Down { at, peer, link } => {
                let links = &mut self.slots[at as usize].links;
                if links.get(&peer) == Some(&link) {
                    links.remove(&peer);
                    self.feed(at, Input::LinkDown(peer));
                }
            }
            Event::Message { from, to, link, message } => {
                let slot = &mut self.slots[to as usize];
                if !N::DIALS {
                    if slot.node.is_some() {
                        slot.links.insert(from, 0);
                        self.slots[from as usize].links.insert(to, 0);
                    }
                } else if slot.links.get(&from) != Some(&link) {
                    return;
                }
                let until = self.slots[to as usize].paused.get(&from).copied().unwrap_or(0);
                if until > self.now {
                    self.schedule(until - self.now, Event::Message { from, to, link, message });
                    return;
                }
                self.feed(to, Input::Received { from, message });
            }
        }
    }

    /// A dial arrives at `to`.
    fn arrive(&mut self, from: Index, to: Index, link: u64) {
        let latency = self.latency(from, to);
        if self.is_cut(from, to) {
            self.schedule(DIAL_TIMEOUT, Event::DialFailed { from, to });
            return;
        }
        if self.slots[to as usize].node.is_none() {
            self.schedule(latency, Event::DialFailed { from, to });
            return;
        }
        if let Some(existing) = self.slots[to as usize].links.get(&from).copied() {
            let existing_dialled = existing & 1 == u64::from(to < from);
            if keep(ours::id(to), ours::id(from), existing_dialled, false) == Keep::Existing {
                self.schedule(latency, Event::DialFailed { from, to });
                return;
            }
        }
        self.slots[to as usize].links.insert(from, link);
        self.schedule(latency, Event::Dialled { from, to, link });
        let incarnation = self.slots[from as usize].incarnation;
        self.feed(to, Input::LinkUp { peer: from, incarnation, dialled: false });
    }

    /// The hello of the other side arrives at the peer that dialled.
    fn dialled(&mut self, from: Index, to: Index, link: u64) {
        let slot = &mut self.slots[from as usize];
        if slot.node.is_none() {
            self.schedule(0, Event::Down { at: to, peer: from, link });
            return;
        }
        if slot.links.contains_key(&to) && keep(ours::id(from), ours::id(to), false, true) == Keep::Existing {
            return;
        }
        slot.links.insert(to, link);
        let incarnation = self.slots[to as usize].incarnation;
        self.feed(from, Input::LinkUp { peer: to, incarnation, dialled: true });
    }

    /// Gives an input to a peer and carries out its output.
    pub fn feed(&mut self, index: Index, input: Input<N::Message>) {
        let mut out = std::mem::take(&mut self.out);
        let slot = &mut self.slots[index as usize];
        let incarnation = slot.incarnation;
        if let Some(node) = &mut slot.node {
            node.handle(input, self.now, &mut out);
        }
        for output in out.drain(..) {
            self.carry_out(index, incarnation, output);
        }
        self.out = out;
    }

    fn carry_out(&mut self, me: Index, incarnation: u64, output: Output<N::Message>) {
        match output {
            Output::Dial(to) => {
                self.traffic.dials += 1;
                // The lowest bit says that the lower index dialled.
                self.links += 2;
                let link = self.links | u64::from(me < to);
                let latency = self.latency(me, to);
                self.schedule(latency, Event::Dial { from: me, to, link });
            }
            Output::Close(to) => {
                if let Some(link) = self.slots[me as usize].links.remove(&to)
                    && !self.is_cut(me, to)
                {
                    if !N::DIALS {
                        self.slots[to as usize].links.remove(&me);
                    }
                    let late = self.latency(me, to) + 1;
                    self.schedule(late, Event::Down { at: to, peer: me, link });
                }
            }
            Output::Send(to, message) => {
                if N::DIALS {
                    if let Some(link) = self.slots[me as usize].links.get(&to).copied() {
                        self.send(me, to, link, message);
                    }
                } else {
                    self.send(me, to, 0, message);
                }
            }
            Output::Pause(peer, wait) => {
                self.traffic.pauses += 1;
                self.slots[me as usize].paused.insert(peer, self.now + wait);
            }
            Output::Ask(count) => {
                self.traffic.asks += 1;
                let peers = self.sample(me, count);
                self.schedule(REGISTRY_LATENCY, Event::Found(me, peers));
            }
            Output::Timer(at, number) => {
                let wait = at.saturating_sub(self.now);
                self.schedule(wait, Event::Timer(me, incarnation, number));
            }
            Output::Delivered { broadcast, hops } => {
                let index = broadcast.checked_sub(self.first_broadcast);
                let Some(record) = index.and_then(|index| self.broadcasts.get_mut(index as usize)) else {
                    return;
                };
                if record.received_at.len() < self.slots.len() {
                    record.received_at.resize(self.slots.len(), Micros::MAX);
                }
                let received_at = &mut record.received_at[me as usize];
                if *received_at == Micros::MAX {
                    *received_at = self.now;
                    record.last_hop = record.last_hop.max(hops);
                } else {
                    record.duplicates += 1;
                }
            }
            Output::Misbehaved(_) => self.traffic.misbehaved += 1,
        }
    }

    pub(super) fn send(&mut self, from: Index, to: Index, link: u64, mut message: N::Message) {
        match N::kind(&message) {
            Kind::Payload => self.traffic.payloads += 1,
            Kind::Control => self.traffic.controls += 1,
        }
        if self.encode {
            self.traffic.bytes += N::size(&message) as u64;
            message = N::recode(message);
        }
        let mut latency = self.latency(from, to);
        if !N::DIALS && self.slots[to as usize].node.is_none() {
            // iroh-gossip dials by sending. As in its own simulator, it is not informed that this fails. If it were
            // (its network part does it), it would not look for another peer, and its results would be worse.
            return;
        }
        if self.is_cut(from, to) || self.faults.loss > 0.0 && self.rng.random_bool(self.faults.loss) {
            return;
        }
        if self.faults.jitter > 0 {
            latency += self.rng.random_range(0..self.faults.jitter);
        }
        if self.faults.duplicates > 0.0 && self.rng.random_bool(self.faults.duplicates) {
            let late = latency + self.rng.random_range(0..SECOND);
            let message = message.clone();
            self.schedule(late, Event::Message { from, to, link, message });
        }
        self.schedule(latency, Event::Message { from, to, link, message });
    }
}
