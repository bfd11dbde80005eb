//! Finding a way to a peer by its name along links, and passing messages along it. Pure.
//!
//! A seek spreads over the links as an echo: whoever hears it for the first time passes it on and answers once one of
//! those it asked says "this way", or all of them have answered (Chang: *Echo Algorithms*, IEEE TSE 8(4), 1982). So the
//! asker hears that there is no way as soon as that is known. The answers form a tree, along which the message follows.

mod message;

#[cfg(test)]
mod tests;

pub use message::{Action, Message, Relay, RelayReply, RouteId};

use crate::overlay::{Contact, Time, link::Bucket};
use p2pdi::{id::PeerId, name::PeerName};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    time::Duration,
};

/// Most links a seek travels. Networks of 10,000 peers are 15 links across (`tests/overlay_simulation.rs`).
pub const HOPS_MAX: u32 = 16;
/// How long a way is remembered: longer than any message on it may take.
pub const LIFETIME: Duration = Duration::from_secs(10);
/// Ways remembered at once, some 300 bytes each. A guess: 400 seeks a second through one peer.
pub const ROUTES_MAX: usize = 4_096;
/// Seeks passed on for one link per second: each costs every peer of the network a frame or two. A guess.
pub const SEEKS_PER_SECOND: u32 = 50;

/// What is known of the way to one peer.
#[derive(Debug)]
struct Route {
    /// Whom the answer goes to; `None`: this peer asked.
    from: Option<PeerId>,
    way: Way,
}

#[derive(Debug)]
enum Way {
    /// These have not answered yet.
    Asked(BTreeSet<PeerId>),
    /// That link leads there.
    Found {
        /// The link.
        next: PeerId,
        /// Who is there; not known where no seek came before.
        peer: Option<Contact>,
        /// These were asked as well and have not answered. If one of them finds another peer, two have one name.
        waiting: BTreeSet<PeerId>,
    },
    /// None does, or the one that did is gone.
    None,
}

/// The ways through one peer.
#[derive(Debug)]
pub struct Routing {
    me: Contact,
    routes: BTreeMap<RouteId, Route>,
    /// In the order they end.
    ends: VecDeque<(Time, RouteId)>,
    /// What each link may still ask.
    seekers: BTreeMap<PeerId, Bucket>,
    relayed: u64,
    /// Another peer has this one's name, and gets the messages for it.
    yields: bool,
}

impl Routing {
    /// A peer that knows no way.
    pub fn new(me: Contact) -> Self {
        Self { me, routes: BTreeMap::new(), ends: VecDeque::new(), seekers: BTreeMap::new(), relayed: 0, yields: false }
    }

    /// Whether another peer with this one's name gets the messages for it.
    pub fn yield_name(&mut self, yields: bool) {
        self.yields = yields;
    }

    fn is_mine(&self, name: &PeerName) -> bool {
        !self.yields && name == self.me.name()
    }

    /// Messages passed on for others.
    pub fn relayed(&self) -> u64 {
        self.relayed
    }

    /// Ways remembered.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// When [`Routing::tick`] has something to forget.
    pub fn next_deadline(&self) -> Option<Time> {
        self.ends.front().map(|(end, _)| *end)
    }

    /// Forgets what is over.
    pub fn tick(&mut self, now: Time) -> Vec<Action> {
        let mut out = Vec::new();
        while let Some((end, id)) = self.ends.front().copied()
            && end <= now
        {
            self.ends.pop_front();
            if let Some(Route { from: None, way: Way::Asked(_) | Way::Found { .. } }) = self.routes.remove(&id) {
                out.push(Action::NoWay(id));
            }
        }
        out
    }

    /// Asks `neighbours` for the way to `to`; ends with [`Action::Found`] or [`Action::NoWay`].
    pub fn seek(&mut self, id: RouteId, to: &PeerName, neighbours: &[Contact], now: Time) -> Vec<Action> {
        let mut out = Vec::new();
        self.ask(id, None, to, 1, neighbours, now, &mut out);
        out
    }

    /// Sends `relay` along the way that was found for it; ends with [`Action::Answer`] or [`Action::NoWay`].
    pub fn send(&mut self, relay: Relay) -> Vec<Action> {
        match self.routes.get(&relay.id) {
            Some(Route { from: None, way: Way::Found { next, .. } }) => {
                vec![Action::Send(*next, Message::Relay(Relay { hops: 1, ..relay }))]
            }
            _ => vec![Action::NoWay(relay.id)],
        }
    }

    /// Sends `relay` to the linked peer it is for; ends with [`Action::Answer`] or [`Action::NoWay`].
    pub fn send_to(&mut self, peer: PeerId, relay: Relay, now: Time) -> Vec<Action> {
        let id = relay.id;
        if !self.remember(id, Route { from: None, way: Way::Found { next: peer, peer: None, waiting: BTreeSet::new() } }, now) {
            return vec![Action::NoWay(id)];
        }
        self.send(relay)
    }

    /// A peer said something.
    pub fn received(&mut self, from: PeerId, message: Message, neighbours: &[Contact], now: Time) -> Vec<Action> {
        let mut out = Vec::new();
        match message {
            Message::Seek { id, to, hops } => self.on_seek(from, id, &to, hops, neighbours, now, &mut out),
            Message::SeekReply { id, found } => self.on_seek_reply(from, id, found, &mut out),
            Message::Relay(relay) => self.on_relay(from, relay, &mut out),
            Message::RelayReply(reply) => self.on_relay_reply(from, reply, &mut out),
            Message::Namesake { id, peer } => self.on_namesake(from, id, peer, &mut out),
        }
        out
    }

    /// A link is gone, and all ways over it.
    pub fn link_down(&mut self, peer: PeerId) -> Vec<Action> {
        self.seekers.remove(&peer);
        let mut out = Vec::new();
        let mut asked = Vec::new();
        for (id, route) in &mut self.routes {
            match &route.way {
                Way::Asked(waiting) if waiting.contains(&peer) => asked.push(*id),
                Way::Found { next, .. } if *next == peer => {
                    route.way = Way::None;
                    out.push(match route.from {
                        None => Action::NoWay(*id),
                        Some(from) => Action::Send(from, Message::RelayReply(RelayReply::lost(*id))),
                    });
                }
                _ => {}
            }
        }
        for id in asked {
            self.on_seek_reply(peer, id, None, &mut out);
        }
        out
    }

    fn remember(&mut self, id: RouteId, route: Route, now: Time) -> bool {
        if self.routes.len() >= ROUTES_MAX || self.routes.contains_key(&id) {
            return false;
        }
        self.routes.insert(id, route);
        self.ends.push_back((now + LIFETIME, id));
        true
    }

    #[expect(clippy::too_many_arguments, reason = "one step of the echo, called from its two ends")]
    fn ask(
        &mut self,
        id: RouteId,
        from: Option<PeerId>,
        to: &PeerName,
        hops: u32,
        neighbours: &[Contact],
        now: Time,
        out: &mut Vec<Action>,
    ) {
        let others = || neighbours.iter().filter(|contact| Some(contact.id()) != from);
        // Whoever is linked to it need not ask the rest.
        let mut asked: BTreeSet<PeerId> = others().filter(|contact| contact.name() == to).map(Contact::id).collect();
        if asked.is_empty() && hops <= HOPS_MAX {
            asked = others().map(Contact::id).collect();
        }
        if asked.is_empty() || !self.remember(id, Route { from, way: Way::Asked(asked.clone()) }, now) {
            out.push(match from {
                None => Action::NoWay(id),
                Some(from) => Action::Send(from, Message::SeekReply { id, found: None }),
            });
            return;
        }
        out.extend(asked.into_iter().map(|peer| Action::Send(peer, Message::Seek { id, to: to.clone(), hops })));
    }

    #[expect(clippy::too_many_arguments, reason = "a message, its sender and the time")]
    fn on_seek(
        &mut self,
        from: PeerId,
        id: RouteId,
        to: &PeerName,
        hops: u32,
        neighbours: &[Contact],
        now: Time,
        out: &mut Vec<Action>,
    ) {
        // Asking the one peer it is for costs the network nothing; asking all others does.
        let linked = neighbours.iter().any(|contact| contact.name() == to);
        let allowed = linked || self.seekers.entry(from).or_insert_with(|| Bucket::new(SEEKS_PER_SECOND, now)).try_take(now);
        if self.is_mine(to) {
            out.push(Action::Send(from, Message::SeekReply { id, found: Some(self.me.clone()) }));
        } else if !allowed || self.routes.contains_key(&id) {
            out.push(Action::Send(from, Message::SeekReply { id, found: None }));
        } else {
            self.ask(id, Some(from), to, hops.saturating_add(1), neighbours, now, out);
        }
    }

    fn on_seek_reply(&mut self, peer: PeerId, id: RouteId, found: Option<Contact>, out: &mut Vec<Action>) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        let waiting = match &mut route.way {
            Way::Asked(waiting) => waiting,
            Way::Found { next, peer: Some(first), waiting } => {
                if waiting.remove(&peer)
                    && let Some(second) = found
                    && second.id() != first.id()
                {
                    // Two answer to one name, and their answers meet here.
                    out.push(Action::Send(*next, Message::Namesake { id, peer: second }));
                    out.push(Action::Send(peer, Message::Namesake { id, peer: first.clone() }));
                }
                return;
            }
            _ => return,
        };
        if !waiting.remove(&peer) {
            return;
        }
        match found {
            Some(contact) => {
                let waiting = std::mem::take(waiting);
                route.way = Way::Found { next: peer, peer: Some(contact.clone()), waiting };
                out.push(match route.from {
                    None => Action::Found(id, contact),
                    Some(from) => Action::Send(from, Message::SeekReply { id, found: Some(contact) }),
                });
            }
            None if waiting.is_empty() => {
                route.way = Way::None;
                out.push(match route.from {
                    None => Action::NoWay(id),
                    Some(from) => Action::Send(from, Message::SeekReply { id, found: None }),
                });
            }
            None => {}
        }
    }

    fn on_relay(&mut self, from: PeerId, relay: Relay, out: &mut Vec<Action>) {
        if self.is_mine(&relay.to) {
            out.push(Action::Deliver(from, relay));
            return;
        }
        match self.routes.get(&relay.id) {
            Some(Route { from: Some(asker), way: Way::Found { next, .. } }) if *asker == from && relay.hops <= HOPS_MAX => {
                self.relayed += 1;
                let hops = relay.hops.saturating_add(1);
                out.push(Action::Send(*next, Message::Relay(Relay { hops, ..relay })));
            }
            _ => out.push(Action::Send(from, Message::RelayReply(RelayReply::lost(relay.id)))),
        }
    }

    fn on_relay_reply(&mut self, peer: PeerId, reply: RelayReply, out: &mut Vec<Action>) {
        match self.routes.get(&reply.id) {
            Some(Route { from, way: Way::Found { next, .. } }) if *next == peer => out.push(match from {
                Some(from) => Action::Send(*from, Message::RelayReply(reply)),
                None if reply.delivered => Action::Answer(reply),
                None => Action::NoWay(reply.id),
            }),
            _ => {}
        }
    }

    /// On its way to the peer that was found, or here.
    ///
    /// A second answer that met the first one further on, and so was not passed on itself, leads no further than here; then the
    /// other peer is told by whoever is asked next.
    fn on_namesake(&mut self, from: PeerId, id: RouteId, peer: Contact, out: &mut Vec<Action>) {
        match self.routes.get(&id) {
            Some(Route { from: Some(asker), way: Way::Found { next, .. } }) if *asker == from => {
                out.push(Action::Send(*next, Message::Namesake { id, peer }));
            }
            None if peer.name() == self.me.name() && peer.id() != self.me.id() => out.push(Action::Namesake(peer)),
            _ => {}
        }
    }
}
