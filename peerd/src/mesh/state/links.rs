//! Opening, replacing and closing links.

use super::{GREETINGS_MAX, Input, Link, Purpose, State};
use crate::{
    mesh::{
        Joined, NotJoined,
        abuse::LINKS_PER_ADDRESS,
        driver::Core,
        link::{self, GREETING_TIMEOUT, Greeted, Heard, Incoming, NotOpened, NotQueued, Outgoing, Reader},
    },
    overlay::{
        Action, Contact, Event, PeerId,
        link::{Keep, keep},
    },
};
use p2pdi::{
    endpoint::Endpoint,
    status::Reason,
    v1::{LinkFrame, link_frame::Body},
};
use std::net::IpAddr;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Whether a frame is about something else than the link it came on, and so as good on another.
fn outlives_its_link(body: &Body) -> bool {
    matches!(
        body,
        Body::Broadcast(_)
            | Body::Acknowledge(_)
            | Body::Relay(_)
            | Body::RelayReply(_)
            | Body::Seek(_)
            | Body::SeekReply(_)
            | Body::Namesake(_)
    )
}

impl State {
    /// Opens a link to the first of `endpoints` that answers.
    pub(super) fn dial(&mut self, endpoints: Vec<Endpoint>, purpose: Purpose) {
        if self.dialling >= GREETINGS_MAX {
            self.not_opened(purpose, &"too many links are being opened".into());
            return;
        }
        self.dialling += 1;
        let (hello, core, from) = (self.hello.clone(), self.core.clone(), self.dial_from);
        let dialling = async move {
            let mut failure = NotOpened::from("there is no address to dial");
            let mut opened = None;
            for endpoint in endpoints {
                match link::dial(&endpoint, from, hello.clone()).await {
                    Ok(greeted) => {
                        opened = Some(greeted);
                        break;
                    }
                    Err(why) => failure = why,
                }
            }
            let input = match opened {
                Some(greeted) => Input::Opened(Box::new(greeted), purpose),
                None => Input::NotOpened(purpose, failure),
            };
            Core::tell(&core, input);
        };
        self.errands.spawn_on(dialling, &self.runtime);
    }

    /// Greets whoever opened a link.
    ///
    /// # Errors
    /// When too many links are being opened.
    pub(in crate::mesh) fn accept(&mut self, frames: Incoming, out: Outgoing, caller: Option<IpAddr>) -> Result<(), Status> {
        if self.accepting >= GREETINGS_MAX {
            return Err(Reason::TooManyStreams.status("too many links are being opened; try again later"));
        }
        if let Some(ip) = caller
            && !self.abuse.may_greet(ip)
        {
            if self.abuse.log_once(ip) {
                tracing::warn!(address = %ip, "one address opens too many links; closing those past its share");
            }
            return Err(Reason::TooManyStreams.status("this address opens too many links at once; try again later"));
        }
        self.accepting += 1;
        let (hello, core) = (self.hello.clone(), self.core.clone());
        let accepting = async move {
            let input = match link::accept(frames, out, hello).await {
                Ok(greeted) => Input::Opened(Box::new(greeted), Purpose::Accepted(caller)),
                Err(why) => Input::NotOpened(Purpose::Accepted(caller), why),
            };
            Core::tell(&core, input);
        };
        self.errands.spawn_on(accepting, &self.runtime);
        Ok(())
    }

    /// What came on the link of this number; says whether anybody wants more of it.
    pub(in crate::mesh) fn heard(&mut self, number: u64, peer: PeerId, heard: Heard) -> bool {
        let Some(link) = self.links.get(&peer) else { return false };
        match heard {
            // The link was replaced. What was under way on it is not lost with it, but what it said of itself is over.
            Heard::Frame(frame) if link.number != number => {
                if frame.body.as_ref().is_some_and(outlives_its_link) {
                    self.on_frame(peer, frame);
                }
            }
            _ if link.number != number => return false,
            Heard::Frame(frame) => self.on_frame(peer, frame),
            Heard::Unreadable(bytes) => self.tell_overlay(Event::Received { from: peer, message: None, bytes }),
            Heard::Ended(why, None) => {
                tracing::debug!(%peer, why, "a link ended");
                self.link_lost(peer);
            }
            Heard::Ended(_, Some(what)) => {
                self.on_misbehaviour(peer, what);
                self.ban(peer, what);
            }
        }
        self.tell_events();
        true
    }

    pub(in crate::mesh) fn on_input(&mut self, input: Input) {
        match input {
            Input::Opened(greeted, purpose) => {
                self.greeted(&purpose);
                self.opened(*greeted, purpose);
            }
            Input::NotOpened(purpose, why) => {
                self.greeted(&purpose);
                self.not_opened(purpose, &why);
            }
            Input::PeersFound(peers) => {
                self.notice(&peers);
                self.tell_overlay(Event::PeersFound(peers));
            }
            Input::Answered(peer, frame) => self.send(peer, frame),
        }
        self.tell_events();
    }

    /// One greeting less is under way.
    fn greeted(&mut self, purpose: &Purpose) {
        match purpose {
            Purpose::Accepted(caller) => {
                self.accepting -= 1;
                if let Some(ip) = caller {
                    self.abuse.greeted(*ip);
                }
            }
            _ => self.dialling -= 1,
        }
    }

    fn not_opened(&mut self, purpose: Purpose, why: &NotOpened) {
        if let NotOpened::Wrong(_) = why {
            self.misbehaviour += 1;
            self.changed = true;
        }
        let wrong = matches!(why, NotOpened::Wrong(_));
        let why = why.why();
        match purpose {
            Purpose::Overlay(peer) => {
                tracing::debug!(%peer, why, "could not open a link");
                self.events.push_back(Event::DialFailed { peer });
            }
            Purpose::Bootnode(index) => {
                let now = self.now();
                self.bootnodes.failed(index, why, now, rand::random());
            }
            // Whoever asked may have gone.
            Purpose::Join(answer) => drop(answer.send(Err(NotJoined::Failed(why.to_owned())))),
            Purpose::NameConflict(peer) => {
                tracing::debug!(%peer, why, "a peer that is said to have this one's name does not answer");
                let now = self.now();
                self.name_conflicts.failed(peer, now);
            }
            Purpose::Accepted(Some(ip)) if wrong && self.abuse.log_once(ip) => {
                tracing::warn!(address = %ip, why, "who opened a link is no peer, or a broken one; there may be more");
            }
            Purpose::Accepted(caller) => tracing::debug!(?caller, why, "a link was not taken"),
        }
    }

    fn opened(&mut self, greeted: Greeted, purpose: Purpose) {
        let (contact, now) = (greeted.contact.clone(), self.now());
        if contact.id() == self.me.id() {
            match purpose {
                Purpose::Bootnode(index) => self.bootnodes.is_me(index),
                other => self.not_opened(other, &"that is this peer itself".into()),
            }
            return;
        }
        self.greeted_by(&contact);
        if self.abuse.is_banned(contact.id(), now) && !matches!(purpose, Purpose::Join(_)) {
            self.not_opened(purpose, &"it was put out for what it sent, and is left alone for a while".into());
            return;
        }
        let (mut caller, mut asker) = (None, None);
        let insist = match purpose {
            Purpose::Accepted(from) => {
                caller = from;
                false
            }
            Purpose::Overlay(peer) if peer == contact.id() => false,
            Purpose::Overlay(gone) => {
                self.not_opened(purpose, &"another peer answers at its address".into());
                // A bootnode, or a neighbour, that begins a new life by a new id: nobody else may know it.
                if self.reconnect.forget(gone) | self.bootnodes.renewed(gone, &contact) {
                    self.events.push_back(Event::Meet(contact));
                }
                return;
            }
            Purpose::NameConflict(peer) => {
                if peer != contact.id() || contact.name() != self.me.name() {
                    self.not_opened(purpose, &"another peer answers at its address".into());
                }
                // It greeted, which was all that was wanted.
                return;
            }
            Purpose::Bootnode(index) => {
                self.bootnodes.reached(index, &contact);
                true
            }
            Purpose::Join(answer) => {
                self.abuse.forgive(contact.id());
                let linked = self.is_neighbour_still(contact.id());
                if linked {
                    // Whoever asked may have gone. Which of the two links stays is for both ends to decide alike.
                    let _ = answer.send(Ok(Joined { contact: contact.clone(), already: true }));
                } else {
                    asker = Some(answer);
                }
                !linked
            }
        };
        if let Some(ip) = caller
            && self.links.values().filter(|link| link.caller == caller).count() >= LINKS_PER_ADDRESS
        {
            if self.abuse.log_once(ip) {
                tracing::warn!(address = %ip, "one address has too many links open; closing those past its share");
            }
            return;
        }
        if insist {
            let mut actions = self.overlay.handle(Event::Join(contact.clone()), now);
            // The link is here already.
            actions.retain(|action| !matches!(action, Action::Dial(dialled) if dialled.id() == contact.id()));
            self.perform(actions);
        }
        self.take(contact.clone(), greeted, caller);
        if let Some(asker) = asker {
            self.tell_events();
            self.await_joined(&contact, asker);
        }
    }

    /// Whether a peer is a neighbour, and was heard lately.
    pub(super) fn is_neighbour_still(&self, peer: PeerId) -> bool {
        self.overlay.membership().is_neighbour(peer) && self.overlay.is_fresh(peer, self.now())
    }

    /// Takes a link, unless the one that is there stays in its place.
    fn take(&mut self, contact: Contact, greeted: Greeted, caller: Option<IpAddr>) {
        let (peer, now) = (contact.id(), self.now());
        if let Some(existing) = self.links.get(&peer) {
            let fresh = self.overlay.is_fresh(peer, now);
            let crossing = existing.dialled != greeted.dialled && existing.since.elapsed() < GREETING_TIMEOUT;
            if fresh && !crossing {
                // Whoever lives is linked already, and whoever claims its id must not get its place.
                if caller.is_some() && existing.contact != contact {
                    self.misbehaviour += 1;
                    self.changed = true;
                    tracing::warn!(peer = %existing.contact.name(), claimed_as = %contact.name(), from = ?caller,
                        "a second link in the name of a peer that is linked, from another address; keeping the link that is there");
                }
                return;
            }
            if fresh && keep(self.me.id(), peer, existing.dialled, greeted.dialled) == Keep::Existing {
                return;
            }
            if !fresh {
                // What went that way may have got nowhere.
                let actions = self.routing.link_down(peer);
                self.route(actions);
            }
            if let Some(replaced) = self.links.remove(&peer) {
                replaced.closing.cancel();
            }
        }
        self.compare_names(&contact);
        let Greeted { incarnation, dialled, out, frames, .. } = greeted;
        self.links_ever += 1;
        let number = self.links_ever;
        let (pause, watched) = watch::channel(Instant::now());
        let closing = CancellationToken::new();
        let core = self.core.clone();
        let reader = Reader { frames, pause: watched, closing: closing.clone() };
        let tell = move |heard| {
            let heard = core.upgrade().and_then(|core| core.with(|state| state.heard(number, peer, heard)));
            heard.unwrap_or(false)
        };
        self.readers.spawn_on(reader.run(tell), &self.runtime);
        let link = Link {
            number,
            contact: contact.clone(),
            since: Instant::now(),
            neighbour: self.overlay.membership().is_neighbour(peer),
            dialled,
            caller,
            out,
            pause,
            paused: false,
            closing,
            misbehaved: 0,
        };
        self.links.insert(peer, link);
        self.reconnect.met(peer);
        self.changed = true;
        self.events.push_back(Event::LinkUp { peer: contact, incarnation, dialled });
    }

    /// Closes a link that the overlay does not want any more. What is queued still goes out, unless nobody reads it.
    pub(super) fn close(&mut self, peer: PeerId, silent: bool) {
        let Some(link) = self.take_link(peer) else { return };
        if silent {
            tracing::info!(peer = %link.contact.name(), "nothing heard from a peer any more");
            self.remember_lost(&link);
        }
    }

    /// A link ended by itself, or its other side does not read.
    pub(super) fn link_lost(&mut self, peer: PeerId) {
        if let Some(link) = self.take_link(peer) {
            self.remember_lost(&link);
            self.events.push_back(Event::LinkDown { peer });
        }
    }

    /// Ends a link, and what waits for it.
    fn take_link(&mut self, peer: PeerId) -> Option<Link> {
        let link = self.links.remove(&peer)?;
        link.closing.cancel();
        self.changed = true;
        let actions = self.routing.link_down(peer);
        self.route(actions);
        self.not_joined(peer);
        Some(link)
    }

    /// Who was no neighbour is nobody to meet again: it was looked at, and left.
    fn remember_lost(&mut self, link: &Link) {
        if link.neighbour {
            let now = self.now();
            self.reconnect.remember(link.contact.clone(), now, rand::random());
        }
    }

    /// Whether so much waits on a link that messages should not be added to it.
    pub(super) fn is_congested(&self, peer: PeerId) -> bool {
        self.links.get(&peer).is_some_and(|link| link.out.is_congested())
    }

    /// Queues a frame. A link whose queue is full is lost: the other side does not read.
    pub(super) fn send(&mut self, peer: PeerId, frame: LinkFrame) {
        let Some(link) = self.links.get(&peer) else { return };
        let Err(why) = link.out.send(frame) else { return };
        match why {
            NotQueued::Full => {
                tracing::info!(peer = %link.contact.name(), "a peer does not read what it is sent; dropping its link");
            }
            // Its reader is about to say why.
            NotQueued::Ended => tracing::debug!(peer = %link.contact.name(), "a link has ended"),
        }
        self.link_lost(peer);
    }
}
