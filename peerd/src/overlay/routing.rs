//! Finding a way to a peer by its name along links, and passing messages along it.
//!
//! A seek spreads over the links as an echo: whoever hears it for the first time passes it on and answers once one of
//! those it asked says "this way", or all of them have answered (Chang: *Echo Algorithms*, IEEE TSE 8(4), 1982). So the
//! asker hears that there is no way as soon as that is known. The answers form a tree, along which the message follows.
//!
//! A way that was found is known for a while, to all peers on it: further messages follow it without another seek, until one
//! comes back as lost. Every message is remembered where it passes until its answer has, so one that came back to a peer
//! that has it already, along ways that have changed meanwhile, is lost and not sent in circles.
//!
//! Pure: no I/O, no clock, no randomness of its own.

mod message;

#[cfg(test)]
mod tests;

pub use message::{Action, Message, Relay, RelayReply, RouteId};

use crate::overlay::{Time, TokenBucket};
use p2pdi::{contact::Contact, id::PeerId, name::PeerName};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

/// Most links a seek travels. Networks of 10,000 peers are 15 links across (`tests/overlay_simulation.rs`).
pub const HOPS_MAX: u32 = 16;
/// How long a way is remembered: longer than any message on it may take.
pub const LIFETIME: Duration = Duration::from_secs(10);
/// Ways remembered at once, some 300 bytes each. A guess: 400 seeks a second through one peer.
pub const ROUTES_MAX: usize = 4_096;
/// Of those, asked for by one link: it cannot use up all. A guess.
pub const ROUTES_OF_LINK_MAX: usize = ROUTES_MAX / 4;
/// Of those, asked for by all links together: the rest is for what this peer sends itself. A guess.
pub const ROUTES_OF_LINKS_MAX: usize = ROUTES_MAX / 4 * 3;
/// How long a way that was found is used without seeking again, so that a shorter one is found too. A guess.
pub const WAY_LIFETIME: Duration = Duration::from_secs(30);
/// A way along which a message has waited so long for its answer is sought again. Longer than a receiver takes to answer,
/// and shorter than a sender waits before it tries something else (`messages::whisper`, 2 s).
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Ways to peers known at once, some 300 bytes each. A guess: more peers than one relays for within that time.
pub const WAYS_MAX: usize = 1_024;
/// Seeks passed on for one link per second: each costs every peer of the network a frame or two. A guess. What is past it is answered as
/// busy, so that whoever asked tries again and does not take the peer for gone.
pub const SEEKS_PER_SECOND: u32 = 50;

/// One seek, or one message, on its way.
#[derive(Debug)]
struct Route {
    /// Whom the answer goes to; `None`: this peer asked.
    from: Option<PeerId>,
    to: PeerName,
    way: Way,
    /// When it is forgotten at the latest.
    end: Time,
    /// A seek: remembered to its end, so that the same one is not passed on again.
    sought: bool,
}

/// The way to a peer, as a seek found it.
#[derive(Debug)]
struct KnownWay {
    contact: Contact,
    /// The first link of it.
    next: PeerId,
    end: Time,
    /// Since when a message along it waits for its answer.
    waits: Option<Time>,
}

#[derive(Debug)]
enum Way {
    /// None of those that have answered knows it.
    Asked {
        /// These have not answered yet.
        waiting: BTreeSet<PeerId>,
        /// One of those that have could not look.
        busy: bool,
    },
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

impl Way {
    /// Over the link to `next`, to whoever is there.
    fn over(next: PeerId) -> Self {
        Self::Found { next, peer: None, waiting: BTreeSet::new() }
    }
}

/// The ways through one peer.
#[derive(Debug)]
pub struct Routing {
    me: Contact,
    routes: BTreeMap<RouteId, Route>,
    /// In the order they end.
    ends: BTreeSet<(Time, RouteId)>,
    /// How many each link asked for.
    of_links: BTreeMap<PeerId, usize>,
    ways: BTreeMap<PeerName, KnownWay>,
    /// What each link may still ask.
    seekers: BTreeMap<PeerId, TokenBucket>,
    relayed: u64,
    /// Another peer has this one's name, and gets the messages for it.
    yields: bool,
}

impl Routing {
    /// A peer that knows no way.
    pub fn new(me: Contact) -> Self {
        Self {
            me,
            routes: BTreeMap::new(),
            ends: BTreeSet::new(),
            of_links: BTreeMap::new(),
            ways: BTreeMap::new(),
            seekers: BTreeMap::new(),
            relayed: 0,
            yields: false,
        }
    }

    /// Whether another peer with this one's name gets the messages for it. Says whether that is new.
    pub fn yield_name(&mut self, yields: bool) -> bool {
        std::mem::replace(&mut self.yields, yields) != yields
    }

    fn is_mine(&self, name: &PeerName) -> bool {
        !self.yields && name == self.me.name()
    }

    /// Messages passed on for others.
    pub fn relayed(&self) -> u64 {
        self.relayed
    }

    /// Seeks and messages remembered.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// When [`Routing::tick`] has something to forget.
    pub fn next_deadline(&self) -> Option<Time> {
        self.ends.first().map(|(end, _)| *end)
    }

    /// Forgets what is over.
    pub fn tick(&mut self, now: Time) -> Vec<Action> {
        let mut out = Vec::new();
        while let Some((end, id)) = self.ends.first().copied()
            && end <= now
        {
            let Some(route) = self.forget(id) else { break };
            if let Way::Found { next, .. } = route.way
                && !route.sought
            {
                // No answer came along it.
                self.leads_nowhere(&route.to, next);
            }
            match route {
                Route { from: None, way: Way::Asked { busy: true, .. }, .. } => out.push(Action::Busy(id)),
                Route { from: None, way: Way::Asked { .. } | Way::Found { .. }, .. } => out.push(Action::NoWay(id)),
                _ => {}
            }
        }
        out
    }

    /// Asks `neighbours` for the way to `to`, unless it is known; ends with [`Action::Found`], [`Action::NoWay`] or [`Action::Busy`].
    pub fn seek(&mut self, id: RouteId, to: &PeerName, neighbours: &[Contact], now: Time) -> Vec<Action> {
        if let Some((contact, next)) = self.known(to, now) {
            let known = self.remember(id, None, to, Way::over(next), false, now);
            return vec![if known { Action::Found(id, contact) } else { Action::Busy(id) }];
        }
        let mut out = Vec::new();
        self.ask(id, None, to, 1, neighbours, now, &mut out);
        out
    }

    /// Sends `relay` along the way that was found for it; ends with [`Action::Answer`] or [`Action::NoWay`].
    pub fn send(&mut self, relay: Relay) -> Vec<Action> {
        match self.routes.get(&relay.id) {
            Some(Route { from: None, way: Way::Found { next, .. }, .. }) => {
                vec![Action::Send(*next, Message::Relay(Relay { hops: 1, ..relay }))]
            }
            _ => vec![Action::NoWay(relay.id)],
        }
    }

    /// Sends `relay` to the linked peer it is for; ends with [`Action::Answer`], [`Action::NoWay`] or [`Action::Busy`].
    pub fn send_to(&mut self, peer: PeerId, relay: Relay, now: Time) -> Vec<Action> {
        let id = relay.id;
        if !self.remember(id, None, &relay.to, Way::over(peer), false, now) {
            return vec![Action::Busy(id)];
        }
        self.send(relay)
    }

    /// The link that a relay should have gone along does not take it now.
    pub fn refuse(&mut self, id: RouteId) -> Vec<Action> {
        match self.forget(id) {
            Some(Route { from: Some(from), .. }) => vec![Action::Send(from, Message::RelayReply(RelayReply::lost(id)))],
            Some(Route { from: None, .. }) => vec![Action::NoWay(id)],
            None => Vec::new(),
        }
    }

    /// A peer said something.
    pub fn received(&mut self, from: PeerId, message: Message, neighbours: &[Contact], now: Time) -> Vec<Action> {
        let mut out = Vec::new();
        match message {
            Message::Seek { id, to, hops } => self.on_seek(from, id, &to, hops, neighbours, now, &mut out),
            Message::SeekReply { id, found, busy } => self.on_seek_reply(from, id, (found, busy), now, &mut out),
            Message::Relay(relay) => self.on_relay(from, relay, neighbours, now, &mut out),
            Message::RelayReply(reply) => self.on_relay_reply(from, reply, &mut out),
            Message::Namesake { id, peer } => self.on_namesake(from, id, peer, &mut out),
        }
        out
    }

    /// A link is gone, and all ways over it.
    pub fn link_down(&mut self, peer: PeerId) -> Vec<Action> {
        self.seekers.remove(&peer);
        self.ways.retain(|_, way| way.next != peer);
        let mut out = Vec::new();
        let mut asked = Vec::new();
        for (id, route) in &mut self.routes {
            match &route.way {
                Way::Asked { waiting, .. } if waiting.contains(&peer) => asked.push(*id),
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
            self.on_seek_reply(peer, id, (None, false), Time::ZERO, &mut out);
        }
        out
    }

    /// Remembers where a seek or a message goes; not where there is no room, nor one that is remembered already.
    fn remember(&mut self, id: RouteId, from: Option<PeerId>, to: &PeerName, way: Way, sought: bool, now: Time) -> bool {
        let of_link = from.map_or(0, |from| self.of_links.get(&from).copied().unwrap_or_default());
        let most = if from.is_some() { ROUTES_OF_LINKS_MAX } else { ROUTES_MAX };
        if self.routes.len() >= most || of_link >= ROUTES_OF_LINK_MAX || self.routes.contains_key(&id) {
            return false;
        }
        if let Some(from) = from {
            self.of_links.insert(from, of_link + 1);
        }
        let end = now + LIFETIME;
        self.routes.insert(id, Route { from, to: to.clone(), way, end, sought });
        self.ends.insert((end, id));
        true
    }

    fn forget(&mut self, id: RouteId) -> Option<Route> {
        let route = self.routes.remove(&id)?;
        self.ends.remove(&(route.end, id));
        if let Some(from) = route.from
            && let Entry::Occupied(mut count) = self.of_links.entry(from)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(route)
    }

    /// Keeps the way to a peer for the messages that follow.
    fn learn(&mut self, contact: &Contact, next: PeerId, now: Time) {
        self.ways.retain(|_, way| way.end > now);
        if self.ways.len() < WAYS_MAX || self.ways.contains_key(contact.name()) {
            let way = KnownWay { contact: contact.clone(), next, end: now + WAY_LIFETIME, waits: None };
            self.ways.insert(contact.name().clone(), way);
        }
    }

    /// The way to a peer as it was found, for one more message.
    fn known(&mut self, to: &PeerName, now: Time) -> Option<(Contact, PeerId)> {
        let way = self.ways.get_mut(to)?;
        if way.end <= now || way.waits.is_some_and(|since| since + ANSWER_TIMEOUT <= now) {
            return None;
        }
        way.waits.get_or_insert(now);
        Some((way.contact.clone(), way.next))
    }

    /// A message did not arrive along the way over `next`.
    fn leads_nowhere(&mut self, to: &PeerName, next: PeerId) {
        if self.ways.get(to).is_some_and(|way| way.next == next) {
            self.ways.remove(to);
        }
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
        let nobody = asked.is_empty();
        if nobody || !self.remember(id, from, to, Way::Asked { waiting: asked.clone(), busy: false }, true, now) {
            out.push(not_found(id, from, !nobody));
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
        let allowed = linked || self.seekers.entry(from).or_insert_with(|| TokenBucket::new(SEEKS_PER_SECOND, now)).try_take(now);
        if self.is_mine(to) {
            out.push(Action::Send(from, Message::SeekReply { id, found: Some(self.me.clone()), busy: false }));
        } else if self.routes.contains_key(&id) {
            out.push(not_found(id, Some(from), false));
        } else if !allowed {
            out.push(not_found(id, Some(from), true));
        } else {
            self.ask(id, Some(from), to, hops.saturating_add(1), neighbours, now, out);
        }
    }

    fn on_seek_reply(
        &mut self,
        peer: PeerId,
        id: RouteId,
        (found, is_busy): (Option<Contact>, bool),
        now: Time,
        out: &mut Vec<Action>,
    ) {
        let Some(route) = self.routes.get_mut(&id) else { return };
        let (waiting, busy) = match &mut route.way {
            Way::Asked { waiting, busy } => (waiting, busy),
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
        *busy |= is_busy;
        match found {
            Some(contact) => {
                let waiting = std::mem::take(waiting);
                route.way = Way::Found { next: peer, peer: Some(contact.clone()), waiting };
                let (from, right) = (route.from, route.to == *contact.name());
                if right {
                    self.learn(&contact, peer, now);
                }
                out.push(match from {
                    None => Action::Found(id, contact),
                    Some(from) => Action::Send(from, Message::SeekReply { id, found: Some(contact), busy: false }),
                });
            }
            None if waiting.is_empty() => {
                out.push(not_found(id, route.from, *busy));
                route.way = Way::None;
            }
            None => {}
        }
    }

    fn on_relay(&mut self, from: PeerId, relay: Relay, neighbours: &[Contact], now: Time, out: &mut Vec<Action>) {
        if self.is_mine(&relay.to) {
            out.push(Action::Deliver(from, relay));
            return;
        }
        let next = match self.routes.get(&relay.id) {
            _ if relay.hops > HOPS_MAX => None,
            Some(Route { from: Some(asker), way: Way::Found { next, .. }, sought: true, .. }) if *asker == from => Some(*next),
            Some(_) => None,
            None => {
                let next = self.towards(&relay.to, from, neighbours, now);
                next.filter(|next| self.remember(relay.id, Some(from), &relay.to, Way::over(*next), false, now))
            }
        };
        match next {
            Some(next) => {
                self.relayed += 1;
                let hops = relay.hops.saturating_add(1);
                out.push(Action::Send(next, Message::Relay(Relay { hops, ..relay })));
            }
            None => out.push(Action::Send(from, Message::RelayReply(RelayReply::lost(relay.id)))),
        }
    }

    /// The link that leads to a peer, as far as is known without asking; never back.
    fn towards(&mut self, to: &PeerName, from: PeerId, neighbours: &[Contact], now: Time) -> Option<PeerId> {
        let linked = neighbours.iter().find(|contact| contact.name() == to).map(Contact::id);
        let next = linked.or_else(|| self.known(to, now).map(|(_, next)| next));
        next.filter(|next| *next != from)
    }

    fn on_relay_reply(&mut self, peer: PeerId, reply: RelayReply, out: &mut Vec<Action>) {
        let Some(Route { from, to, way: Way::Found { next, .. }, sought, .. }) = self.routes.get(&reply.id) else { return };
        if *next != peer {
            return;
        }
        let (from, to, sought) = (*from, to.clone(), *sought);
        if !sought {
            self.forget(reply.id);
        }
        if !reply.delivered {
            self.leads_nowhere(&to, peer);
        } else if let Some(way) = self.ways.get_mut(&to).filter(|way| way.next == peer) {
            way.waits = None;
        }
        out.push(match from {
            Some(from) => Action::Send(from, Message::RelayReply(reply)),
            None if reply.delivered => Action::Answer(reply),
            None => Action::NoWay(reply.id),
        });
    }

    /// On its way to the peer that was found, or here.
    ///
    /// A second answer that met the first one further on, and so was not passed on itself, leads no further than here; then the
    /// other peer is told by whoever is asked next.
    fn on_namesake(&mut self, from: PeerId, id: RouteId, peer: Contact, out: &mut Vec<Action>) {
        match self.routes.get(&id) {
            Some(Route { from: Some(asker), way: Way::Found { next, .. }, .. }) if *asker == from => {
                out.push(Action::Send(*next, Message::Namesake { id, peer }));
            }
            None if peer.name() == self.me.name() && peer.id() != self.me.id() => out.push(Action::Namesake(peer)),
            _ => {}
        }
    }
}

/// No way is known to whoever asked: there is none, or too much is asked to look for one.
fn not_found(id: RouteId, from: Option<PeerId>, busy: bool) -> Action {
    match from {
        Some(from) => Action::Send(from, Message::SeekReply { id, found: None, busy }),
        None if busy => Action::Busy(id),
        None => Action::NoWay(id),
    }
}
