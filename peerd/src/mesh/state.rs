//! What the mesh is at the moment: both state machines, the open links, and who waits for what. Carries out what the machines want.

mod conflicts;
mod frames;
mod joins;
mod lan_peers;
mod links;
mod misbehaviour;
mod shown;

use super::{
    Joined, NoWay, View,
    abuse::Abuse,
    acks::{Acks, Tally},
    driver::Core,
    link::{Greeted, NotOpened, Outgoing},
    name_conflicts::NameConflicts,
    reconnect::Reconnect,
};
use crate::{
    discovery::{Bootnode, Bootnodes, LanPeers},
    inbox::{Delivered, LocalDelivery, Whisper},
    overlay::routing::{Relay, RouteId, Routing},
    overlay::{
        self, CloseReason, Contact, Event, Overlay, PeerId, Time,
        plumtree::{self, Advert, MessageId},
        wire,
    },
    session::Session,
};
use bytes::Bytes;
use p2pdi::{endpoint::Endpoint, status::Reason, v1::LinkFrame};
use rand::{SeedableRng as _, rngs::StdRng};
use std::{
    collections::{BTreeMap, VecDeque},
    net::IpAddr,
    sync::{Arc, Weak},
    time::Duration,
};
use tokio::{
    runtime::Handle,
    sync::{oneshot, watch},
    task::JoinSet,
    time::Instant,
};
use tokio_util::sync::CancellationToken;

/// Links being opened at once by this side, and as many by others. A guess: a large network starting around one bootnode.
const GREETINGS_MAX: usize = 128;
/// Neighbours lost that are given at a time to a peer that looks for others: half of what an island meets (`islands::PROBE_SAMPLE`).
const LOST_SAMPLE: usize = 4;
/// How often a view is made for the sake of its counts alone. A guess: below what people notice.
const COUNTS_SHOWN_EVERY: Duration = Duration::from_millis(100);

/// What came of a task.
pub(super) enum Input {
    Opened(Box<Greeted>, Purpose),
    NotOpened(Purpose, NotOpened),
    PeersFound(Vec<Contact>),
    /// What a handler said to a message that this peer brought.
    Answered(PeerId, LinkFrame),
}

/// What a link is opened for.
pub(super) enum Purpose {
    /// The overlay wants a link to this peer.
    Overlay(PeerId),
    /// It is the bootnode at this place of the list.
    Bootnode(usize),
    /// Somebody asked for it.
    Join(joins::Asker),
    /// To see whether this peer, of this one's name, is there.
    NameConflict(PeerId),
    /// The other side opened it, from that address.
    Accepted(Option<IpAddr>),
}

/// An open link.
struct Link {
    number: u64,
    contact: Contact,
    since: Instant,
    /// The overlay counts it, not only looks at it.
    neighbour: bool,
    dialled: bool,
    /// The address it was opened from, if the other side did.
    caller: Option<IpAddr>,
    out: Outgoing,
    pause: watch::Sender<Instant>,
    paused: bool,
    closing: CancellationToken,
    misbehaved: u32,
}

/// A whisper on its way through the mesh.
struct Underway {
    /// Not yet sent: the way is still sought.
    relay: Option<Relay>,
    answer: oneshot::Sender<Result<Delivered, NoWay>>,
}

/// One peer's part of the mesh. Behind a lock ([`Core`]); nothing here waits.
pub(super) struct State {
    core: Weak<Core>,
    me: Contact,
    hello: LinkFrame,
    begun: Instant,
    overlay: Overlay<StdRng>,
    /// When it was last said to be due.
    overlay_due: Time,
    routing: Routing,
    acks: Acks,
    bootnodes: Bootnodes,
    lan_peers: LanPeers,
    links: BTreeMap<PeerId, Link>,
    links_ever: u64,
    dial_from: Option<IpAddr>,
    dialling: usize,
    accepting: usize,
    abuse: Abuse,
    name_conflicts: NameConflicts,
    reconnect: Reconnect,
    joins: joins::Joins,
    whispers: BTreeMap<RouteId, Underway>,
    broadcasts: BTreeMap<MessageId, oneshot::Sender<Result<Tally, tonic::Status>>>,
    misbehaviour: u64,
    /// Found out while actions are carried out; told to the overlay after them.
    events: VecDeque<Event>,
    post: LocalDelivery,
    session: Session,
    /// That of the peer; calls may come from another.
    runtime: Handle,
    /// Those that read links.
    readers: JoinSet<()>,
    /// All others: nobody waits for them at the end.
    errands: JoinSet<()>,
    shown: watch::Sender<Arc<View>>,
    changed: bool,
    shown_at: Option<Time>,
    /// How many others were known, and when that was counted.
    counted: Option<(Time, u64)>,
    /// When the driver looks by itself.
    wakes_at: Time,
    left: bool,
}

impl State {
    pub(super) fn new(
        core: Weak<Core>,
        (me, (incarnation, clock)): (Contact, (u64, u64)),
        post: LocalDelivery,
        session: Session,
        (bootnodes, dial_from): (Vec<Bootnode>, Option<IpAddr>),
        shown: watch::Sender<Arc<View>>,
    ) -> Self {
        let rng = StdRng::from_rng(&mut rand::rng());
        let mut overlay = Overlay::new(me.clone(), incarnation, overlay::Config::default(), rng, Time::ZERO);
        overlay.set_clock(clock);
        Self {
            core,
            hello: wire::hello(&me, incarnation),
            begun: Instant::now(),
            overlay,
            overlay_due: Time::ZERO,
            runtime: Handle::current(),
            routing: Routing::new(me.clone()),
            acks: Acks::default(),
            bootnodes: Bootnodes::new(bootnodes),
            lan_peers: LanPeers::new(me.id()),
            links: BTreeMap::new(),
            links_ever: 0,
            dial_from,
            dialling: 0,
            accepting: 0,
            abuse: Abuse::default(),
            name_conflicts: NameConflicts::default(),
            reconnect: Reconnect::default(),
            joins: joins::Joins::default(),
            whispers: BTreeMap::new(),
            broadcasts: BTreeMap::new(),
            misbehaviour: 0,
            events: VecDeque::new(),
            post,
            session,
            readers: JoinSet::new(),
            errands: JoinSet::new(),
            shown,
            changed: true,
            shown_at: None,
            counted: None,
            wakes_at: Time::MAX,
            left: false,
            me,
        }
    }

    /// When everything here began, by the driver's clock.
    pub(super) fn begun(&self) -> Instant {
        self.begun
    }

    /// The number of this peer's life, as others have to believe it.
    pub(super) fn life(&self) -> u64 {
        self.overlay.plumtree().incarnation()
    }

    /// Whether this peer has left the mesh: nothing is done any more.
    pub(super) fn has_left(&self) -> bool {
        self.left
    }

    /// Shows what changed. Says whether the driver must look sooner than it is about to.
    pub(super) fn settle(&mut self) -> bool {
        if self.changed {
            self.show();
        }
        while let Some(ended) = self.readers.try_join_next().or_else(|| self.errands.try_join_next()) {
            if let Err(error) = ended
                && error.is_panic()
            {
                tracing::error!(%error, "a link's task failed");
            }
        }
        let now = self.now();
        let due = self.next_deadline(now);
        let sooner = due < self.wakes_at;
        if sooner {
            self.wakes_at = due;
        }
        sooner
    }

    /// Does what is due; says when to look again.
    pub(super) fn look(&mut self) -> Time {
        let now = self.now();
        self.on_time(now);
        // Seen from the same moment, so that nothing falls between the two.
        self.wakes_at = self.next_deadline(now);
        self.wakes_at
    }

    /// Says goodbye. What is queued still goes out; the readers of the links see to it.
    pub(super) fn leave(&mut self) -> JoinSet<()> {
        self.tell_overlay(Event::Leave);
        self.end()
    }

    /// Takes part in nothing any more. Whoever waits is told so. What is left are the tasks that read links.
    pub(super) fn end(&mut self) -> JoinSet<()> {
        self.left = true;
        self.errands.abort_all();
        for (_, link) in std::mem::take(&mut self.links) {
            link.closing.cancel();
        }
        self.whispers.clear();
        self.broadcasts.clear();
        self.joins = joins::Joins::default();
        std::mem::take(&mut self.readers)
    }

    fn now(&self) -> Time {
        self.begun.elapsed()
    }

    fn next_deadline(&mut self, now: Time) -> Time {
        let others = [
            self.routing.next_deadline(),
            self.acks.next_deadline(now),
            self.bootnodes.next_deadline(),
            self.name_conflicts.next_deadline(),
            self.reconnect.next_deadline(),
            self.next_nearby(),
        ];
        // Whatever a machine says, the driver sleeps between two looks.
        let soonest = now + Duration::from_millis(1);
        self.overlay_due = self.overlay.next_deadline(now);
        others.into_iter().flatten().fold(self.overlay_due, Time::min).max(soonest)
    }

    fn on_time(&mut self, now: Time) {
        // Some of its deadlines are named only as long as they are to come.
        if self.overlay_due.min(self.overlay.next_deadline(now)) <= now {
            self.tell_overlay(Event::Tick);
        }
        let actions = self.routing.tick(now);
        self.route(actions);
        for (to, id, peers) in self.acks.flush(now) {
            self.send_acknowledgement(to, &id, &peers);
        }
        if self.acks.is_waiting() {
            let known = self.known();
            for (id, tally) in self.acks.finished(&known, now) {
                if let Some(answer) = self.broadcasts.remove(&id) {
                    // Whoever asked may have gone.
                    let _ = answer.send(Ok(tally));
                }
            }
        }
        for (index, endpoints) in self.bootnodes.due(now) {
            self.dial(endpoints, Purpose::Bootnode(index));
        }
        self.turn_to_nearby();
        self.greet_namesakes();
        if let Some(contact) = self.reconnect.due(now, rand::random()) {
            self.tell_overlay(Event::Meet(contact));
        }
        // Of links that broke, and of dials that failed at once.
        self.tell_events();
        // Counts change with every message; whoever looks at them has a moment's patience.
        self.changed |= self.shown_at.is_none_or(|at| at + COUNTS_SHOWN_EVERY <= now);
    }

    /// Sends `payload` to all peers; `answer` is told who has it, after at most `wait`.
    pub(super) fn broadcast(&mut self, payload: Bytes, wait: Duration, answer: oneshot::Sender<Result<Tally, tonic::Status>>) {
        if !wait.is_zero() && !self.acks.has_room() {
            let busy = Reason::TooManyStreams.status("too many broadcasts wait for acknowledgements; try again later");
            // Whoever asked may have gone, here and below.
            let _ = answer.send(Err(busy));
            return;
        }
        let now = self.now();
        match self.overlay.broadcast(payload, now) {
            Err(error) => drop(answer.send(Err(Reason::MessageTooLarge.status(error.to_string())))),
            Ok((id, actions)) => {
                if wait.is_zero() {
                    let known = self.known_count(now);
                    let _ = answer.send(Ok(Tally { known, ..Tally::default() }));
                } else {
                    self.acks.wait(id, now + wait, now);
                    self.broadcasts.insert(id, answer);
                }
                self.perform(actions);
                self.tell_events();
            }
        }
    }

    /// Links this peer to the one at `endpoint`.
    pub(super) fn join(&mut self, endpoint: Endpoint, answer: joins::Asker) {
        let linked = self.neighbours().into_iter().find(|contact| *contact.endpoint() == endpoint);
        if let Some(contact) = linked.filter(|contact| self.is_neighbour_still(contact.id())) {
            // Whoever asked may have gone.
            let _ = answer.send(Ok(Joined { contact, already: true }));
            return;
        }
        self.dial(vec![endpoint], Purpose::Join(answer));
        self.tell_events();
    }

    /// Sends a whisper along the link to its receiver, or along the way that the mesh knows.
    pub(super) fn whisper(&mut self, whisper: Whisper, linked_only: bool, answer: oneshot::Sender<Result<Delivered, NoWay>>) {
        let id: RouteId = rand::random();
        let now = self.now();
        let Whisper { to, kind, body, from, message_id, .. } = whisper;
        let kind = kind.as_str().to_owned();
        let relay = Relay { id, to, kind, body, from, hops: 1, message_id };
        let actions = if linked_only {
            // In the order of their ids.
            let linked = self.links.values().find(|link| *link.contact.name() == relay.to).map(|link| link.contact.id());
            let Some(peer) = linked else {
                let _ = answer.send(Err(NoWay::Unknown));
                return;
            };
            self.whispers.insert(id, Underway { relay: None, answer });
            self.routing.send_to(peer, relay, now)
        } else {
            let neighbours = self.neighbours();
            let actions = self.routing.seek(id, &relay.to, &neighbours, now);
            self.whispers.insert(id, Underway { relay: Some(relay), answer });
            actions
        };
        self.route(actions);
        self.tell_events();
    }

    fn neighbours(&self) -> Vec<Contact> {
        self.overlay.membership().neighbours().map(|(contact, _)| contact.clone()).collect()
    }

    /// Tells the overlay, does what it wants, and tells it what came of that.
    fn tell_overlay(&mut self, event: Event) {
        self.events.push_back(event);
        self.tell_events();
    }

    fn tell_events(&mut self) {
        while let Some(event) = self.events.pop_front() {
            let now = self.now();
            let actions = self.overlay.handle(event, now);
            self.perform(actions);
        }
    }

    fn perform(&mut self, actions: Vec<overlay::Action>) {
        use overlay::Action;
        for action in actions {
            match action {
                Action::Dial(contact) if self.abuse.is_banned(contact.id(), self.now()) => {
                    self.events.push_back(Event::DialFailed { peer: contact.id() });
                }
                Action::Dial(contact) => self.dial(vec![contact.endpoint().clone()], Purpose::Overlay(contact.id())),
                Action::Close(peer, reason) => self.close(peer, reason == CloseReason::Silent),
                Action::Send(peer, overlay::Message::Plumtree(plumtree::Message::Gossip(gossip))) if self.is_congested(peer) => {
                    let offer = vec![Advert { id: gossip.id, age: gossip.age }];
                    self.send(peer, wire::frame(&overlay::Message::Plumtree(plumtree::Message::Advertise(offer))));
                }
                Action::Send(peer, message) => self.send(peer, wire::frame(&message)),
                Action::Pause(peer, pause) => {
                    if let Some(link) = self.links.get_mut(&peer) {
                        link.pause.send_replace(Instant::now() + pause);
                        if !std::mem::replace(&mut link.paused, true) {
                            tracing::info!(peer = %link.contact.name(), endpoint = %link.contact.endpoint(), "a peer sends more than its share; reading it slowly");
                        }
                    }
                }
                Action::Deliver { from, gossip } => self.on_broadcast(from, gossip),
                Action::NeighbourUp(contact) => {
                    tracing::info!(peer = %contact.name(), endpoint = %contact.endpoint(), "linked");
                    self.lan_peers.linked(contact.id());
                    self.reconnect.forget(contact.id());
                    if let Some(link) = self.links.get_mut(&contact.id()) {
                        link.neighbour = true;
                    }
                    (self.changed, self.counted) = (true, None);
                    self.joined(contact.id());
                }
                Action::NeighbourDown(peer) => {
                    // The link is gone, and with it the name, but for who looked.
                    let known = self.shown.borrow().neighbours.iter().find(|(contact, _)| contact.id() == peer).cloned();
                    let name = known.map_or_else(|| peer.to_string(), |(contact, _)| contact.name().to_string());
                    tracing::info!(peer = name, "no longer linked");
                    let now = self.now();
                    self.lan_peers.unlinked(peer, now);
                    if let Some(link) = self.links.get_mut(&peer) {
                        link.neighbour = false;
                    }
                    (self.changed, self.counted) = (true, None);
                }
                Action::AskForPeers(count) => self.find_peers(count),
                Action::Misbehaved(peer, what) => self.on_misbehaviour(peer, what),
            }
        }
    }

    /// Asks the registry and the bootnodes whom to turn to, and thinks of those that were lost.
    fn find_peers(&mut self, count: usize) {
        if self.links.is_empty() {
            let now = self.now();
            self.bootnodes.needed(now);
            self.lan_peers.needed(now);
        }
        let mut found: Vec<_> = self.bootnodes.contacts().cloned().collect();
        // Where links are wanted, those of the LAN are turned to one by one, without waiting for the registry.
        if self.overlay.membership().wanted() == 0 {
            found.extend(self.offered(count));
        }
        found.extend(self.reconnect.some(LOST_SAMPLE));
        let (session, core, me) = (self.session.clone(), self.core.clone(), self.me.id());
        let ask = async move {
            let listed = session.sample(u32::try_from(count).unwrap_or(u32::MAX)).await;
            found.extend(listed);
            found.retain(|contact| contact.id() != me);
            Core::tell(&core, Input::PeersFound(found));
        };
        self.errands.spawn_on(ask, &self.runtime);
    }
}
