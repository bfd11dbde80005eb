//! Route discovery by name over the links, and relaying of messages along the routes.
//!
//! A seek floods the links with an echo algorithm (Chang: *Echo Algorithms*, IEEE TSE 8(4), 1982): a peer that receives it for
//! the first time forwards it, and replies once one of its neighbours has found the target or all have replied. So the
//! originator learns that there is no route as soon as that is certain. The replies form a tree, and the message follows it.
//!
//! All peers on a route cache it for a while: further messages follow it without another seek, until one
//! is undeliverable. Each peer remembers a relayed message until its reply has passed, so a message that returns to a peer
//! on routes that have changed meanwhile is undeliverable and does not loop.
//!
//! Pure: no I/O, no clock, no randomness of its own.

mod message;
mod route;

#[cfg(test)]
mod tests;

pub use message::{Action, Message, Relay, RelayReply, RouteId, Target};
use route::{CachedRoute, Route, RouteState};

use crate::overlay::{Time, TokenBucket};
use p2pdi::{contact::Contact, id::PeerId, name::PeerName};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    time::Duration,
};

/// Most links that a seek travels. Networks of 10,000 peers have a diameter of 15 (`tests/overlay_simulation.rs`).
pub const HOPS_MAX: u32 = 16;
/// How long a seek or a relayed message is remembered: longer than any message may take.
pub const ROUTE_LIFETIME: Duration = Duration::from_secs(10);
/// Seeks and messages remembered at once, some 300 bytes each. A guess: 400 seeks a second through one peer.
pub const ROUTES_MAX: usize = 4_096;
/// Of those, from one link: it cannot take all. A guess.
pub const ROUTES_PER_LINK_MAX: usize = ROUTES_MAX / 4;
/// Of those, from all links together: the rest is for this peer's own messages. A guess.
pub const ROUTES_OF_LINKS_MAX: usize = ROUTES_MAX / 4 * 3;
/// How long a route is cached; after it, a new seek may find a shorter one. A guess.
pub const CACHED_ROUTE_LIFETIME: Duration = Duration::from_secs(30);
/// A cached route is not used if a message on it has had no reply for this long. Longer than a receiver takes to reply,
/// shorter than a sender waits before it tries something else (`messages::whisper`, 2 s).
const ANSWER_TIMEOUT: Duration = Duration::from_millis(1_500);
/// Routes cached at once, some 300 bytes each. A guess: more peers than one relays for within that time.
pub const CACHED_ROUTES_MAX: usize = 1_024;
/// Seeks forwarded for one link per second: each costs every peer of the network a frame or two. A guess. Further ones are answered as
/// busy, so that the originator retries and does not conclude that the target is gone.
pub const SEEKS_PER_SECOND: u32 = 50;

/// The routing state machine of one peer.
#[derive(Debug)]
pub struct Routing {
    me: Contact,
    routes: BTreeMap<RouteId, Route>,
    /// The routes in the order in which they expire.
    expiries: BTreeSet<(Time, RouteId)>,
    /// Number of routes from each link.
    per_link: BTreeMap<PeerId, usize>,
    cache: BTreeMap<PeerName, CachedRoute>,
    /// Rate of seeks from each link.
    seek_rates: BTreeMap<PeerId, TokenBucket>,
    relayed: u64,
    /// Another peer has the same name, and receives the messages for it.
    yields_name: bool,
}

impl Routing {
    /// A peer without routes.
    pub fn new(me: Contact) -> Self {
        Self {
            me,
            routes: BTreeMap::new(),
            expiries: BTreeSet::new(),
            per_link: BTreeMap::new(),
            cache: BTreeMap::new(),
            seek_rates: BTreeMap::new(),
            relayed: 0,
            yields_name: false,
        }
    }

    /// Changes this peer's contact; its id and name stay.
    pub fn set_contact(&mut self, me: Contact) {
        self.me = me;
    }

    /// Sets whether another peer with the same name receives the messages for it. Returns whether that is a change.
    pub fn yield_name(&mut self, yields_name: bool) -> bool {
        std::mem::replace(&mut self.yields_name, yields_name) != yields_name
    }

    /// Whether another peer with the same name receives the messages for it.
    pub fn yields_name(&self) -> bool {
        self.yields_name
    }

    /// Whether this peer is meant. A peer that yields its name is still meant by its id.
    fn is_mine(&self, to: &Target) -> bool {
        to.is(&self.me) && (to.id.is_some() || !self.yields_name)
    }

    /// Messages relayed for others.
    pub fn relayed(&self) -> u64 {
        self.relayed
    }

    /// Number of seeks and messages remembered.
    pub fn len(&self) -> usize {
        self.routes.len()
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.routes.is_empty()
    }

    /// When [`Routing::tick`] is next due.
    pub fn next_deadline(&self) -> Option<Time> {
        self.expiries.first().map(|(expires, _)| *expires)
    }

    /// Forgets expired seeks and messages.
    pub fn tick(&mut self, now: Time) -> Vec<Action> {
        let mut out = Vec::new();
        while let Some((expires, id)) = self.expiries.first().copied()
            && expires <= now
        {
            let Some(route) = self.forget(id) else { break };
            if let RouteState::Found { next, .. } = route.state
                && !route.is_seek
            {
                // There was no reply.
                self.invalidate(&route.to.name, next);
            }
            match route {
                Route { from: None, state: RouteState::Seeking { busy: true, .. }, .. } => out.push(Action::Busy(id)),
                Route { from: None, state: RouteState::Seeking { .. } | RouteState::Found { .. }, .. } => {
                    out.push(Action::NoRoute(id))
                }
                _ => {}
            }
        }
        out
    }

    /// Seeks a route to `to` through `neighbours`, unless one is cached; ends with [`Action::Found`], [`Action::NoRoute`] or
    /// [`Action::Busy`].
    pub fn seek(&mut self, id: RouteId, to: &Target, neighbours: &[Contact], now: Time) -> Vec<Action> {
        if let Some((contact, next)) = self.cached(to, now) {
            let remembered = self.remember(id, None, to, RouteState::via(next), false, now);
            return vec![if remembered { Action::Found(id, contact) } else { Action::Busy(id) }];
        }
        let mut out = Vec::new();
        self.ask(id, None, to, 1, neighbours, now, &mut out);
        out
    }

    /// Sends `relay` along the route that was found for it; ends with [`Action::Answer`] or [`Action::NoRoute`].
    pub fn send(&mut self, relay: Relay) -> Vec<Action> {
        match self.routes.get(&relay.id) {
            Some(Route { from: None, state: RouteState::Found { next, .. }, .. }) => {
                vec![Action::Send(*next, Message::Relay(Relay { hops: 1, ..relay }))]
            }
            _ => vec![Action::NoRoute(relay.id)],
        }
    }

    /// Sends `relay` to its target, which is linked; ends with [`Action::Answer`], [`Action::NoRoute`] or [`Action::Busy`].
    pub fn send_to(&mut self, peer: PeerId, relay: Relay, now: Time) -> Vec<Action> {
        let id = relay.id;
        if !self.remember(id, None, &relay.to, RouteState::via(peer), false, now) {
            return vec![Action::Busy(id)];
        }
        self.send(relay)
    }

    /// The link of the next hop does not accept a relay now.
    pub fn refuse(&mut self, id: RouteId) -> Vec<Action> {
        match self.forget(id) {
            Some(Route { from: Some(from), .. }) => vec![Action::Send(from, Message::RelayReply(RelayReply::lost(id)))],
            Some(Route { from: None, .. }) => vec![Action::NoRoute(id)],
            None => Vec::new(),
        }
    }

    /// A message arrived.
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

    /// A link ended: all routes over it are broken.
    pub fn link_down(&mut self, peer: PeerId) -> Vec<Action> {
        self.seek_rates.remove(&peer);
        self.cache.retain(|_, cached| cached.next != peer);
        let mut out = Vec::new();
        let mut asked = Vec::new();
        for (id, route) in &mut self.routes {
            match &route.state {
                RouteState::Seeking { pending, .. } if pending.contains(&peer) => asked.push(*id),
                RouteState::Found { next, .. } if *next == peer => {
                    route.state = RouteState::Broken;
                    out.push(match route.from {
                        None => Action::NoRoute(*id),
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

    /// Remembers a seek or a message; `false` if a limit is reached, or it is remembered already.
    fn remember(&mut self, id: RouteId, from: Option<PeerId>, to: &Target, state: RouteState, is_seek: bool, now: Time) -> bool {
        let of_this_link = from.map_or(0, |from| self.per_link.get(&from).copied().unwrap_or_default());
        let most = if from.is_some() { ROUTES_OF_LINKS_MAX } else { ROUTES_MAX };
        if self.routes.len() >= most || of_this_link >= ROUTES_PER_LINK_MAX || self.routes.contains_key(&id) {
            return false;
        }
        if let Some(from) = from {
            self.per_link.insert(from, of_this_link + 1);
        }
        let expires = now + ROUTE_LIFETIME;
        self.routes.insert(id, Route { from, to: to.clone(), state, expires, is_seek });
        self.expiries.insert((expires, id));
        true
    }

    fn forget(&mut self, id: RouteId) -> Option<Route> {
        let route = self.routes.remove(&id)?;
        self.expiries.remove(&(route.expires, id));
        if let Some(from) = route.from
            && let Entry::Occupied(mut count) = self.per_link.entry(from)
        {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
        Some(route)
    }

    /// Caches a route for further messages.
    fn cache_route(&mut self, contact: &Contact, next: PeerId, now: Time) {
        self.cache.retain(|_, cached| cached.expires > now);
        if self.cache.len() < CACHED_ROUTES_MAX || self.cache.contains_key(contact.name()) {
            let cached =
                CachedRoute { contact: contact.clone(), next, expires: now + CACHED_ROUTE_LIFETIME, unanswered_since: None };
            self.cache.insert(contact.name().clone(), cached);
        }
    }

    /// A cached route for one more message: the target and the next hop.
    fn cached(&mut self, to: &Target, now: Time) -> Option<(Contact, PeerId)> {
        let cached = self.cache.get_mut(&to.name).filter(|cached| to.has_id(&cached.contact))?;
        if cached.expires <= now || cached.unanswered_since.is_some_and(|since| since + ANSWER_TIMEOUT <= now) {
            return None;
        }
        cached.unanswered_since.get_or_insert(now);
        Some((cached.contact.clone(), cached.next))
    }

    /// Removes the cached route via `next`, on which a message was not delivered.
    fn invalidate(&mut self, to: &PeerName, next: PeerId) {
        if self.cache.get(to).is_some_and(|cached| cached.next == next) {
            self.cache.remove(to);
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one step of the echo, called from its two expiries")]
    fn ask(
        &mut self,
        id: RouteId,
        from: Option<PeerId>,
        to: &Target,
        hops: u32,
        neighbours: &[Contact],
        now: Time,
        out: &mut Vec<Action>,
    ) {
        let others = || neighbours.iter().filter(|contact| Some(contact.id()) != from);
        // A peer that is linked to the target asks no other.
        let mut asked: BTreeSet<PeerId> = others().filter(|contact| to.is(contact)).map(Contact::id).collect();
        if asked.is_empty() && hops <= HOPS_MAX {
            asked = others().map(Contact::id).collect();
        }
        let none = asked.is_empty();
        if none || !self.remember(id, from, to, RouteState::Seeking { pending: asked.clone(), busy: false }, true, now) {
            out.push(not_found(id, from, !none));
            return;
        }
        out.extend(asked.into_iter().map(|peer| Action::Send(peer, Message::Seek { id, to: to.clone(), hops })));
    }

    #[expect(clippy::too_many_arguments, reason = "a message, its sender and the time")]
    fn on_seek(
        &mut self,
        from: PeerId,
        id: RouteId,
        to: &Target,
        hops: u32,
        neighbours: &[Contact],
        now: Time,
        out: &mut Vec<Action>,
    ) {
        // A seek to a linked target costs one frame; any other floods the network.
        let linked = neighbours.iter().any(|contact| to.is(contact));
        let allowed =
            linked || self.seek_rates.entry(from).or_insert_with(|| TokenBucket::new(SEEKS_PER_SECOND, now)).try_take(now);
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
        // Another peer with that name is not the one that is meant.
        let found = found.filter(|contact| route.to.has_id(contact));
        let (pending, busy) = match &mut route.state {
            RouteState::Seeking { pending, busy } => (pending, busy),
            RouteState::Found { next, peer: Some(first), pending } => {
                if pending.remove(&peer)
                    && let Some(second) = found
                    && second.id() != first.id()
                {
                    // Two peers with one name: their replies meet here.
                    out.push(Action::Send(*next, Message::Namesake { id, peer: second }));
                    out.push(Action::Send(peer, Message::Namesake { id, peer: first.clone() }));
                }
                return;
            }
            _ => return,
        };
        if !pending.remove(&peer) {
            return;
        }
        *busy |= is_busy;
        match found {
            Some(contact) => {
                let pending = std::mem::take(pending);
                route.state = RouteState::Found { next: peer, peer: Some(contact.clone()), pending };
                let (from, name_matches) = (route.from, route.to.is(&contact));
                if name_matches {
                    self.cache_route(&contact, peer, now);
                }
                out.push(match from {
                    None => Action::Found(id, contact),
                    Some(from) => Action::Send(from, Message::SeekReply { id, found: Some(contact), busy: false }),
                });
            }
            None if pending.is_empty() => {
                out.push(not_found(id, route.from, *busy));
                route.state = RouteState::Broken;
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
            Some(Route { from: Some(asker), state: RouteState::Found { next, .. }, is_seek: true, .. }) if *asker == from => {
                Some(*next)
            }
            Some(_) => None,
            None => {
                let next = self.next_hop(&relay.to, from, neighbours, now);
                next.filter(|next| self.remember(relay.id, Some(from), &relay.to, RouteState::via(*next), false, now))
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

    /// The next hop to a peer, as far as is known without a seek; never the sender.
    fn next_hop(&mut self, to: &Target, from: PeerId, neighbours: &[Contact], now: Time) -> Option<PeerId> {
        let linked = neighbours.iter().find(|contact| to.is(contact)).map(Contact::id);
        let next = linked.or_else(|| self.cached(to, now).map(|(_, next)| next));
        next.filter(|next| *next != from)
    }

    fn on_relay_reply(&mut self, peer: PeerId, reply: RelayReply, out: &mut Vec<Action>) {
        let Some(Route { from, to, state: RouteState::Found { next, .. }, is_seek, .. }) = self.routes.get(&reply.id) else {
            return;
        };
        if *next != peer {
            return;
        }
        let (from, to, is_seek) = (*from, to.clone(), *is_seek);
        if !is_seek {
            self.forget(reply.id);
        }
        // A reply of somebody else is none.
        let is_delivered = reply.delivered && reply.delivered_by.eq_ignore_ascii_case(to.name.as_str());
        let reply = if is_delivered { reply } else { RelayReply::lost(reply.id) };
        if !reply.delivered {
            self.invalidate(&to.name, peer);
        } else if let Some(cached) = self.cache.get_mut(&to.name).filter(|cached| cached.next == peer) {
            cached.unanswered_since = None;
        }
        out.push(match from {
            Some(from) => Action::Send(from, Message::RelayReply(reply)),
            None if reply.delivered => Action::Answer(reply),
            None => Action::NoRoute(reply.id),
        });
    }

    /// A report of another peer with the name of the one that was found: relayed to that peer, or meant for this one.
    ///
    /// A second reply that met the first one at another peer was not forwarded, so the report ends there; then a later
    /// seek reports the conflict.
    fn on_namesake(&mut self, from: PeerId, id: RouteId, peer: Contact, out: &mut Vec<Action>) {
        match self.routes.get(&id) {
            Some(Route { from: Some(asker), state: RouteState::Found { next, .. }, .. }) if *asker == from => {
                out.push(Action::Send(*next, Message::Namesake { id, peer }));
            }
            None if peer.name() == self.me.name() && peer.id() != self.me.id() => out.push(Action::NameConflict(peer)),
            _ => {}
        }
    }
}

/// The reply without a route: there is none, or (`busy`) it was not searched everywhere.
fn not_found(id: RouteId, from: Option<PeerId>, busy: bool) -> Action {
    match from {
        Some(from) => Action::Send(from, Message::SeekReply { id, found: None, busy }),
        None if busy => Action::Busy(id),
        None => Action::NoRoute(id),
    }
}
