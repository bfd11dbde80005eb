//! Joins that somebody asked for, from the greeting until the overlay has decided whether the link stays.

use super::State;
use crate::{
    mesh::{Joined, NotJoined},
    overlay::{PeerId, Time},
};
use p2pdi::contact::Contact;
use std::{collections::BTreeMap, time::Duration};
use tokio::sync::oneshot;

/// Joins that wait at once, those that are being dialled left out; past it one is refused. A guess: far more than a person or a program
/// asks for within the seconds that each may take.
const JOINS_MAX: usize = 128;

/// The request was sent a little before its join waits.
const TIMEOUT_SLACK: Duration = Duration::from_millis(200);

/// Whoever asked for a join.
pub(super) type Asker = oneshot::Sender<Result<Joined, NotJoined>>;

/// Peers that greeted, and who waits for them to become neighbours.
#[derive(Default)]
pub(super) struct Joins(BTreeMap<PeerId, Waiting>);

struct Waiting {
    contact: Contact,
    since: Time,
    askers: Vec<Asker>,
}

impl Joins {
    fn insert(&mut self, contact: &Contact, asker: Asker, now: Time) {
        if self.0.values().map(|waiting| waiting.askers.len()).sum::<usize>() >= JOINS_MAX {
            // Whoever asked may have gone, here and below.
            let _ = asker.send(Err(NotJoined::Full("too many joins are under way; try again later".to_owned())));
            return;
        }
        let new = || Waiting { contact: contact.clone(), since: now, askers: Vec::new() };
        self.0.entry(contact.id()).or_insert_with(new).askers.push(asker);
    }
}

impl State {
    /// A peer that somebody wants to join has greeted, and the overlay knows of its link.
    pub(super) fn await_joined(&mut self, contact: &Contact, asker: Asker) {
        let now = self.now();
        let (peer, membership) = (contact.id(), self.overlay.membership());
        let (neighbour, asked) = (membership.is_neighbour(peer), membership.is_pending(peer));
        self.joins.insert(contact, asker, now);
        if neighbour {
            self.joined(peer);
        } else if !asked {
            self.not_joined(peer);
        }
    }

    /// A peer has become a neighbour.
    pub(super) fn joined(&mut self, peer: PeerId) {
        let Some(Waiting { contact, askers, .. }) = self.joins.0.remove(&peer) else { return };
        // Whoever is told so, and looks, sees it.
        self.show();
        for asker in askers {
            let _ = asker.send(Ok(Joined { contact: contact.clone(), already: false }));
        }
    }

    /// A peer's link is gone, or was never asked about.
    pub(super) fn not_joined(&mut self, peer: PeerId) {
        let Some(Waiting { since, askers, .. }) = self.joins.0.remove(&peer) else { return };
        let membership = self.overlay.membership();
        let config = membership.config();
        let why = if membership.neighbours().count() >= config.max_active() {
            NotJoined::Full("this peer has as many neighbours as it keeps; it is in a mesh already".to_owned())
        } else if self.now() + TIMEOUT_SLACK >= since + config.request_timeout {
            NotJoined::Failed("it greeted, but did not say in time whether it takes this peer as a neighbour".to_owned())
        } else if self.links.contains_key(&peer) {
            NotJoined::Full("too many links are being opened; try again later".to_owned())
        } else {
            NotJoined::Full(
                "it has as many neighbours as it keeps, or closed the link; this peer turns to others that it named, \
                 or try again later, or join another peer of that mesh"
                    .to_owned(),
            )
        };
        for asker in askers {
            let _ = asker.send(Err(why.clone()));
        }
    }
}
