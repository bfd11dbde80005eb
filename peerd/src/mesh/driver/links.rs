//! Opening, replacing and closing links.

use super::{GREETINGS_MAX, Input, Link, MeshDriver, Purpose};
use crate::{
    mesh::link::{self, Greeted, Heard, Outgoing, Reader},
    overlay::{
        Action, Contact, Event, PeerId,
        link::{Keep, keep},
    },
};
use p2pdi::{
    endpoint::Endpoint,
    v1::{LinkFrame, LinkRequest},
};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;
use tonic::Streaming;

impl MeshDriver {
    /// Opens a link to the first of `endpoints` that answers.
    pub(super) fn dial(&mut self, endpoints: Vec<Endpoint>, purpose: Purpose) {
        if self.greetings >= GREETINGS_MAX {
            self.not_opened(purpose, "too many links are being opened");
            return;
        }
        self.greetings += 1;
        let (hello, tell) = (self.hello.clone(), self.tell.clone());
        self.tasks.spawn(async move {
            let mut failure = "there is no address to dial".to_owned();
            let mut opened = None;
            for endpoint in endpoints {
                match link::dial(&endpoint, hello.clone()).await {
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
            // Fails only when the peer stops.
            let _ = tell.send(input).await;
        });
    }

    /// Greets whoever opened a link.
    pub(super) fn accept(&mut self, frames: Box<Streaming<LinkRequest>>, out: Outgoing) {
        if self.greetings >= GREETINGS_MAX {
            tracing::debug!("too many links are being opened; one more is closed");
            return;
        }
        self.greetings += 1;
        let (hello, tell) = (self.hello.clone(), self.tell.clone());
        self.tasks.spawn(async move {
            let input = match link::accept(frames, out, hello).await {
                Ok(greeted) => Input::Opened(Box::new(greeted), Purpose::Accepted),
                Err(why) => Input::NotOpened(Purpose::Accepted, why),
            };
            let _ = tell.send(input).await;
        });
    }

    pub(super) fn on_input(&mut self, input: Input) {
        match input {
            Input::Heard(number, peer, heard) => {
                if self.links.get(&peer).is_some_and(|link| link.number == number) {
                    match heard {
                        Heard::Frame(frame) => self.on_frame(peer, frame),
                        Heard::Ended(why) => {
                            tracing::debug!(%peer, why, "a link ended");
                            self.lost(peer);
                        }
                    }
                }
            }
            Input::Opened(greeted, purpose) => {
                self.greetings -= 1;
                self.opened(*greeted, purpose);
            }
            Input::NotOpened(purpose, why) => {
                self.greetings -= 1;
                self.not_opened(purpose, &why);
            }
            Input::PeersFound(peers) => self.tell_overlay(Event::PeersFound(peers)),
            Input::Answered(peer, frame) => self.send(peer, frame),
        }
        self.tell_events();
    }

    fn not_opened(&mut self, purpose: Purpose, why: &str) {
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
            Purpose::Join(answer) => drop(answer.send(Err(why.to_owned()))),
            Purpose::Accepted => tracing::debug!(why, "a link was not taken"),
        }
    }

    fn opened(&mut self, greeted: Greeted, purpose: Purpose) {
        let contact = greeted.contact.clone();
        if contact.id() == self.me.id() {
            match purpose {
                Purpose::Bootnode(index) => self.bootnodes.is_me(index),
                other => self.not_opened(other, "that is this peer itself"),
            }
            return;
        }
        if contact.name() == self.me.name() {
            tracing::warn!(name = %contact.name(), id = %contact.id(), endpoint = %contact.endpoint(), "another peer goes by this peer's name");
        }
        let insist = match purpose {
            Purpose::Accepted => false,
            Purpose::Overlay(peer) if peer == contact.id() => false,
            Purpose::Overlay(_) => {
                self.not_opened(purpose, "another peer answers at its address");
                return;
            }
            Purpose::Bootnode(index) => {
                self.bootnodes.reached(index, &contact);
                true
            }
            Purpose::Join(answer) => {
                let _ = answer.send(Ok(contact.clone()));
                true
            }
        };
        if insist {
            let now = self.now();
            let mut actions = self.overlay.handle(Event::Join(contact.clone()), now);
            // The link is here already.
            actions.retain(|action| !matches!(action, Action::Dial(dialled) if dialled.id() == contact.id()));
            self.perform(actions);
        }
        self.take(contact, greeted);
    }

    /// Takes a link, unless the one that is there stays in its place.
    fn take(&mut self, contact: Contact, greeted: Greeted) {
        let peer = contact.id();
        if let Some(existing) = self.links.get(&peer) {
            match keep(self.me.id(), peer, existing.dialled, greeted.dialled) {
                Keep::Existing => return,
                Keep::New => {
                    let actions = self.routing.link_down(peer);
                    self.route(actions);
                    if let Some(replaced) = self.links.remove(&peer) {
                        replaced.closing.cancel();
                    }
                }
            }
        }
        let Greeted { incarnation, dialled, out, frames, .. } = greeted;
        self.links_ever += 1;
        let number = self.links_ever;
        let (pause, paused) = watch::channel(Instant::now());
        let closing = CancellationToken::new();
        let tell = self.tell.clone();
        let reader = Reader { number, peer, frames, pause: paused, closing: closing.clone() };
        self.tasks.spawn(reader.run(move |number, peer, heard| {
            let tell = tell.clone();
            async move { tell.send(Input::Heard(number, peer, heard)).await.is_ok() }
        }));
        self.links.insert(peer, Link { number, contact: contact.clone(), dialled, out, pause, closing, misbehaved: 0 });
        self.changed = true;
        self.events.push_back(Event::LinkUp { peer: contact, incarnation, dialled });
    }

    /// Closes a link that the overlay does not want any more. What is queued still goes out, unless nobody reads it.
    pub(super) fn close(&mut self, peer: PeerId, silent: bool) {
        let Some(link) = self.links.remove(&peer) else { return };
        if silent {
            tracing::info!(peer = %link.contact.name(), "nothing heard from a peer any more");
        }
        link.closing.cancel();
        self.changed = true;
        let actions = self.routing.link_down(peer);
        self.route(actions);
    }

    /// A link ended by itself, or its other side does not read.
    pub(super) fn lost(&mut self, peer: PeerId) {
        if self.links.contains_key(&peer) {
            self.close(peer, false);
            self.events.push_back(Event::LinkDown { peer });
        }
    }

    /// Queues a frame. A link whose queue is full is lost: the other side does not read.
    pub(super) fn send(&mut self, peer: PeerId, frame: LinkFrame) {
        let Some(link) = self.links.get(&peer) else { return };
        if link.out.send(frame).is_err() {
            tracing::info!(peer = %link.contact.name(), "a peer does not read what it is sent; dropping its link");
            self.lost(peer);
        }
    }
}
