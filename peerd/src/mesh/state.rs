//! The state of the mesh: the machines of the overlay and of routing, and the parts that carry out their actions.
//!
//! The parts know nothing of each other; what concerns several of them is in the folder of this file, by subject.

mod frames;
mod joining;
mod lan;
mod links;
mod misbehaviour;
mod names;
mod publishing;
mod signing;

use super::{
    abuse::Abuse,
    acks::Tally,
    broadcasts::{BroadcastSender, Broadcasts},
    candidates::Candidates,
    config::MeshConfig,
    handshakes::Handshakes,
    input::{Input, Purpose},
    joins::{JoinSender, Joined, PendingJoins},
    link::EstablishedLink,
    links::LinkTable,
    logs::Logs,
    name_conflicts::NameConflicts,
    publisher::Publisher,
    reconnect::Reconnect,
    root_signatures::RootSignatures,
    send_queue::Origin,
    signatures::Signatures,
    spares::Spares,
    spawner::{InputSink, Spawner},
    whispers::{PendingWhispers, WhisperError, WhisperSender},
};
use crate::{
    discovery::{Bootnodes, LanPeers},
    inbox::{LocalDelivery, Whisper},
    overlay::routing::{Relay, RouteId, Routing, Target},
    overlay::{
        self, CloseReason, Contact, Event, Overlay, Time,
        plumtree::{self, Advert},
        wire,
    },
    session::Session,
};
use bytes::Bytes;
use p2pdi::{endpoint::Endpoint, log_limit::Line, status::Reason};
use rand::{SeedableRng as _, rngs::StdRng};
use std::{collections::VecDeque, sync::Weak, time::Duration};
use tokio::{task::JoinSet, time::Instant};

/// Lost neighbours given to the overlay each time it asks for peers: half of what a partition meets (`partitions::PROBE_SAMPLE`).
const LOST_SAMPLE: usize = 4;

/// One peer's part of the mesh. It is used behind a lock, so nothing here waits.
pub(super) struct State {
    me: Contact,
    started_at: Instant,
    overlay: Overlay<StdRng>,
    /// The overlay's deadline when it was last asked for.
    overlay_due: Time,
    /// Events found while actions were carried out, for the overlay to handle next.
    overlay_events: VecDeque<Event>,
    routing: Routing,
    links: LinkTable,
    spares: Spares<EstablishedLink>,
    handshakes: Handshakes,
    candidates: Candidates,
    abuse: Abuse,
    logs: Logs,
    name_conflicts: NameConflicts,
    joins: PendingJoins,
    whispers: PendingWhispers,
    broadcasts: Broadcasts,
    delivery: LocalDelivery,
    /// `None` without TLS.
    signatures: Option<Signatures>,
    /// Empty without TLS.
    roots: RootSignatures,
    session: Session,
    spawner: Spawner,
    publisher: Publisher,
    /// When the driver calls [`State::tick`] next.
    wakes_at: Time,
    left: bool,
}

impl State {
    pub(super) fn new(config: MeshConfig, sink: Weak<dyn InputSink>, publisher: Publisher) -> Self {
        let MeshConfig { me, network, incarnation, clock, delivery, session, bootnodes, channels, signatures } = config;
        let rng = StdRng::from_rng(&mut rand::rng());
        // With certificates nobody links who shows none.
        let links = if signatures.is_some() { overlay::link::Config::certified() } else { overlay::link::Config::default() };
        let config = overlay::Config { links, ..overlay::Config::default() };
        let mut overlay = Overlay::new(me.clone(), incarnation, config, rng, Time::ZERO);
        overlay.set_clock(clock);
        Self {
            started_at: Instant::now(),
            overlay,
            overlay_due: Time::ZERO,
            overlay_events: VecDeque::new(),
            routing: Routing::new(me.clone()),
            links: LinkTable::default(),
            spares: Spares::default(),
            handshakes: Handshakes::new(wire::hello(&me, incarnation, &network), channels, network, signatures.is_some()),
            candidates: Candidates {
                bootnodes: Bootnodes::new(bootnodes),
                lan_peers: LanPeers::new(me.id()),
                reconnect: Reconnect::default(),
            },
            abuse: Abuse::default(),
            logs: Logs::default(),
            name_conflicts: NameConflicts::default(),
            joins: PendingJoins::default(),
            whispers: PendingWhispers::default(),
            broadcasts: Broadcasts::default(),
            delivery,
            signatures,
            roots: RootSignatures::default(),
            session,
            spawner: Spawner::new(sink),
            publisher,
            wakes_at: Time::MAX,
            left: false,
            me,
        }
    }

    /// Changes this peer's endpoint.
    pub(super) fn set_contact(&mut self, me: Contact) {
        self.handshakes.set_hello(wire::hello(&me, self.incarnation(), self.handshakes.network()));
        self.routing.set_contact(me.clone());
        self.me = me;
        self.publish();
    }

    /// Time zero of every [`Time`] here.
    pub(super) fn started_at(&self) -> Instant {
        self.started_at
    }

    /// This peer's incarnation, as other peers must believe it.
    pub(super) fn incarnation(&self) -> u64 {
        self.overlay.plumtree().incarnation()
    }

    /// Whether this peer has left the mesh: no call changes anything any more.
    pub(super) fn has_left(&self) -> bool {
        self.left
    }

    /// Ends each use of the state: publishes what changed. Returns whether the driver must wake earlier than planned.
    pub(super) fn settle(&mut self) -> bool {
        if self.publisher.has_changed() {
            self.publish();
        }
        self.spawner.reap();
        let now = self.now();
        let due = self.next_deadline(now);
        let is_earlier = due < self.wakes_at;
        if is_earlier {
            self.wakes_at = due;
        }
        is_earlier
    }

    /// Does what is due; returns when to call again.
    pub(super) fn tick(&mut self) -> Time {
        let now = self.now();
        self.on_time(now);
        // By the same `now`, so that no deadline is lost between the two calls.
        self.wakes_at = self.next_deadline(now);
        self.wakes_at
    }

    /// Until when this peer should go on if it is to stop, so that what others wait for passes through it.
    pub(super) fn passes_until(&self) -> Time {
        self.broadcasts.passes_until().unwrap_or_default()
    }

    /// Whether others wait for what this peer has to send before it leaves: replies of handlers, and acknowledgements: until `passing` those of
    /// others, too.
    pub(super) fn is_awaited(&self, passing: Time) -> bool {
        let now = self.now();
        self.is_replying() || now < passing || self.broadcasts.has_unsent(now)
    }

    /// Says goodbye to the neighbours. The returned readers end when the queues of their links are sent, with the acknowledgements of what has
    /// just arrived: a program may stop right after the one message that it waited for.
    pub(super) fn leave(&mut self) -> JoinSet<()> {
        for (to, id, peers) in self.broadcasts.flush_all() {
            self.send_acknowledgement(to, &id, peers);
        }
        self.handle_event(Event::Leave);
        self.end()
    }

    /// Stops taking part: closes all links and fails all waiting calls. Returns the tasks that read links.
    pub(super) fn end(&mut self) -> JoinSet<()> {
        self.left = true;
        self.links.close_all();
        self.spares.clear();
        self.whispers.clear();
        self.broadcasts.clear();
        self.joins.clear();
        self.spawner.end()
    }

    fn now(&self) -> Time {
        self.started_at.elapsed()
    }

    fn next_deadline(&mut self, now: Time) -> Time {
        let others = [
            self.routing.next_deadline(),
            self.broadcasts.next_deadline(now),
            self.candidates.bootnodes.next_deadline(),
            self.name_conflicts.next_deadline(),
            self.candidates.reconnect.next_deadline(),
            self.spares.next_deadline(),
            self.next_lan_deadline(),
        ];
        // Keeps the driver from spinning, whatever the deadlines are.
        let soonest = now + Duration::from_millis(1);
        self.overlay_due = self.overlay.next_deadline(now);
        others.into_iter().flatten().fold(self.overlay_due, Time::min).max(soonest)
    }

    fn on_time(&mut self, now: Time) {
        // The overlay reports some deadlines only until they are reached; `overlay_due` remembers them.
        if self.overlay_due.min(self.overlay.next_deadline(now)) <= now {
            self.handle_event(Event::Tick);
        }
        let actions = self.routing.tick(now);
        self.perform_routing(actions);
        for (to, id, peers) in self.broadcasts.flush(now) {
            self.send_acknowledgement(to, &id, peers);
        }
        if self.broadcasts.is_waiting() {
            let known = self.known();
            self.broadcasts.finish(&known, now);
        }
        for (index, targets) in self.candidates.bootnodes.due(now) {
            self.dial(targets, Purpose::Bootnode(index));
        }
        self.spares.expire(now);
        self.offer_lan_peers();
        self.check_name_conflicts();
        if let Some(contact) = self.candidates.reconnect.due(now, rand::random()) {
            self.handle_event(Event::Probe(contact));
        }
        // Events of links that broke, and of dials that failed at once.
        self.handle_events();
        self.publisher.tick(now);
    }

    /// Sends `payload` to all peers. `caller` gets the count of those that have it, after at most `wait`.
    pub(super) fn broadcast(&mut self, payload: Bytes, wait: Duration, caller: BroadcastSender) {
        if !wait.is_zero() && self.broadcasts.is_full() {
            let busy = Reason::TooManyStreams.status("too many broadcasts wait for acknowledgements; try again later");
            let _ = caller.send(Err(busy));
            return;
        }
        let now = self.now();
        let (signatures, me) = (&self.signatures, &self.me);
        let sign = |id: &_, payload: &Bytes| signatures.as_ref().and_then(|signatures| signatures.of_broadcast(me, id, payload));
        match self.overlay.broadcast_signed(payload, sign, now) {
            Err(error) => drop(caller.send(Err(Reason::MessageTooLarge.status(error.to_string())))),
            Ok((id, actions)) => {
                if wait.is_zero() {
                    let known = self.known_count(now);
                    let _ = caller.send(Ok(Tally { known, ..Tally::default() }));
                } else {
                    let known = self.known();
                    self.broadcasts.wait(id, known, caller, now + wait, now);
                }
                self.perform(actions);
                self.handle_events();
            }
        }
    }

    /// Links this peer to the one at `endpoint`.
    pub(super) fn join(&mut self, endpoint: Endpoint, caller: JoinSender) {
        let linked = self.neighbours().into_iter().find(|contact| *contact.endpoint() == endpoint);
        if let Some(contact) = linked.filter(|contact| self.is_live_neighbour(contact.id())) {
            let _ = caller.send(Ok(Joined { contact, already: true }));
            return;
        }
        if self.joins.begin(&endpoint, caller) {
            self.dial(vec![(endpoint.clone(), None)], Purpose::Join(endpoint));
        }
        self.handle_events();
    }

    /// Sends a whisper on the link to its receiver, or along a route that is searched first. `record`: what the registry says of the
    /// receiver.
    pub(super) fn whisper(&mut self, whisper: Whisper, record: Option<&Contact>, linked_only: bool, caller: WhisperSender) {
        let id: RouteId = rand::random();
        let now = self.now();
        let Whisper { to, kind, body, from, message_id, signature, .. } = whisper;
        let kind = kind.as_str().to_owned();
        let signature = match &self.signatures {
            // What goes over this peer's own link is from this peer.
            Some(signatures) if signature.is_none() && !linked_only => signatures.of_whisper(&to, &message_id, &kind, &body),
            _ => signature,
        };
        let to = Target { name: to, id: record.map(Contact::id) };
        let relay = Relay { id, to, kind, body, from, hops: 1, message_id, signature };
        let actions = if linked_only {
            let linked = match record {
                Some(record) => self.links.is_registered(record).then(|| record.id()),
                // Of several peers with that name, the one with the lowest id.
                None => self.links.contacts().find(|contact| relay.to.is(contact)).map(Contact::id),
            };
            let Some(peer) = linked else {
                let _ = caller.send(Err(WhisperError::NoRoute));
                return;
            };
            self.whispers.insert(id, None, caller);
            self.routing.send_to(peer, relay, now)
        } else {
            let neighbours = self.neighbours();
            let actions = self.routing.seek(id, &relay.to, &neighbours, now);
            self.whispers.insert(id, Some(relay), caller);
            actions
        };
        self.perform_routing(actions);
        self.handle_events();
    }

    fn neighbours(&self) -> Vec<Contact> {
        self.overlay.membership().neighbours().map(|(contact, _)| contact.clone()).collect()
    }

    /// Passes an event to the overlay and carries out its actions, then the same for each event that these cause.
    fn handle_event(&mut self, event: Event) {
        self.overlay_events.push_back(event);
        self.handle_events();
    }

    fn handle_events(&mut self) {
        while let Some(event) = self.overlay_events.pop_front() {
            let now = self.now();
            let actions = self.overlay.handle(event, now);
            self.perform(actions);
        }
    }

    /// Carries out actions of the overlay.
    fn perform(&mut self, actions: Vec<overlay::Action>) {
        use overlay::Action;
        for action in actions {
            match action {
                Action::Dial(contact) if self.abuse.is_banned(contact.id(), self.now()) => {
                    self.overlay_events.push_back(Event::DialFailed { peer: contact.id() });
                }
                Action::Dial(contact) => self.dial_contact(&contact, Purpose::Overlay(contact.id())),
                Action::Close(peer, reason) => self.close(peer, reason == CloseReason::Silent),
                Action::Send(peer, overlay::Message::Plumtree(plumtree::Message::Gossip(gossip)))
                    if self.links.is_congested(peer, &Origin::peer(&gossip.id.origin)) =>
                {
                    let advert = vec![Advert { id: gossip.id, age: gossip.age }];
                    self.send_message(peer, &overlay::Message::Plumtree(plumtree::Message::Advertise(advert)));
                }
                Action::Send(peer, message) => self.send_message(peer, &message),
                Action::Pause(peer, pause) => {
                    if let Some(contact) = self.links.pause(peer, pause)
                        && let Some(Line { suppressed }) = self.logs.throttled.line()
                    {
                        tracing::info!(peer = %contact.name(), endpoint = %contact.endpoint(), suppressed, "a peer sends more than its share; reading its link slowly");
                    }
                }
                Action::Deliver { from, gossip } => self.on_broadcast(from, gossip),
                Action::NeighbourUp(contact) => {
                    if let Some(Line { suppressed }) = self.logs.linked.line() {
                        tracing::info!(peer = %contact.name(), endpoint = %contact.endpoint(), suppressed, "linked");
                    }
                    self.candidates.on_neighbour_up(contact.id());
                    if let Some(link) = self.links.get_mut(contact.id()) {
                        link.neighbour = true;
                    }
                    self.publisher.mark_peers_changed();
                    self.joined(contact.id());
                }
                Action::NeighbourDown(peer) => {
                    if let Some(Line { suppressed }) = self.logs.unlinked.line() {
                        // The link is closed already; the latest view still has the peer's name.
                        let view = self.publisher.latest();
                        let known = view.neighbours.iter().find(|(contact, _)| contact.id() == peer);
                        let name = known.map_or_else(|| peer.to_string(), |(contact, _)| contact.name().to_string());
                        tracing::info!(peer = name, suppressed, "no longer linked");
                    }
                    let now = self.now();
                    self.candidates.on_neighbour_down(peer, now);
                    if let Some(link) = self.links.get_mut(peer) {
                        link.neighbour = false;
                    }
                    self.publisher.mark_peers_changed();
                }
                Action::AskForPeers(count) => self.find_peers(count),
                Action::Misbehaved(peer, what) => self.on_misbehaviour(peer, what),
            }
        }
    }

    /// Collects peers for the overlay: from the bootnodes, the LAN, the lost neighbours and the registry.
    fn find_peers(&mut self, count: usize) {
        if self.links.is_empty() {
            let now = self.now();
            self.candidates.need_links(now);
        }
        let mut found: Vec<_> = self.candidates.bootnodes.contacts().cloned().collect();
        // While links are missing, `offer_lan_peers` offers the LAN's peers one by one, without waiting for the registry.
        if self.overlay.membership().wanted() == 0 {
            found.extend(self.lan_candidates(count));
        }
        found.extend(self.candidates.reconnect.sample(LOST_SAMPLE));
        let (session, me) = (self.session.clone(), self.me.id());
        let find = async move {
            let listed = session.sample(u32::try_from(count).unwrap_or(u32::MAX)).await;
            found.extend(listed);
            found.retain(|contact| contact.id() != me);
            Input::PeersFound(found)
        };
        self.spawner.spawn("peer search", find);
    }
}
