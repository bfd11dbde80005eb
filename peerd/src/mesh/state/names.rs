//! Name conflicts: peers that have this peer's name, and linked peers that have the same name.

use super::State;
use crate::{
    mesh::input::Purpose,
    overlay::{Message, membership},
    session::OwnName,
};
use p2pdi::{contact::Contact, log_limit::Line};

impl State {
    /// Looks for this peer's name among contacts that others mention.
    pub(super) fn check_names<'a>(&mut self, contacts: impl IntoIterator<Item = &'a Contact>) {
        let now = self.now();
        for contact in contacts {
            if contact.name() == self.me.name() && contact.id() != self.me.id() {
                self.name_conflicts.mentioned(contact, now);
            }
        }
    }

    /// Looks for this peer's name among the contacts in a message.
    pub(super) fn check_names_in(&mut self, message: &Message) {
        use membership::Message as M;
        let Message::Membership(message) = message else { return };
        match message {
            M::ForwardJoin { newcomer, .. } => self.check_names([newcomer]),
            M::Reply { peers, .. } | M::Disconnect { peers, .. } | M::Shuffle { peers, .. } | M::ShuffleReply { peers, .. } => {
                self.check_names(peers);
            }
            M::Join | M::Request { .. } => {}
        }
    }

    /// A peer said hello, or a frame arrived on its link: if it has this peer's name, there is a conflict.
    pub(super) fn on_hello(&mut self, contact: &Contact) {
        if contact.name() != self.me.name() || contact.id() == self.me.id() {
            return;
        }
        let now = self.now();
        if self.name_conflicts.confirmed(contact, now) {
            self.publisher.mark_changed();
            // Whoever dials can claim the name with ever new ids.
            if let Some(Line { suppressed }) = self.logs.name_conflict.line() {
                tracing::warn!(name = %contact.name(), id = %contact.id(), endpoint = %contact.endpoint(), suppressed,
                    "another peer has this peer's name; rename one of them with --name. Messages go to {}", self.owner_of_name());
            }
        }
        self.update_name_owner();
    }

    /// Probes the peers of this name that are due, and forgets those that are gone.
    pub(super) fn check_name_conflicts(&mut self) {
        let now = self.now();
        for contact in self.name_conflicts.due(now) {
            if self.links.contains(contact.id()) && self.overlay.is_fresh(contact.id(), now) {
                self.on_hello(&contact);
            } else {
                self.dial_contact(&contact, Purpose::NameConflict(contact.id()));
            }
        }
        for gone in self.name_conflicts.expire(now) {
            self.publisher.mark_changed();
            if let Some(Line { suppressed }) = self.logs.name_conflict_gone.line() {
                tracing::info!(id = %gone.id(), endpoint = %gone.endpoint(), suppressed, "the other peer with this peer's name is gone");
            }
        }
        self.update_name_owner();
    }

    /// Warns when another linked peer has the name of `contact`: the two may not know of each other.
    pub(super) fn warn_of_duplicate_name(&mut self, contact: &Contact) {
        if let Some(other) = self.links.new_duplicate_of(contact)
            && let Some(Line { suppressed }) = self.logs.duplicate_name.line()
        {
            let lower = if contact.id() < other.id() { contact } else { other };
            tracing::warn!(name = %contact.name(), one = %other.endpoint(), other = %contact.endpoint(), suppressed,
                "two peers have the same name; rename one of them with --name. Messages go to the one that is registered with a registry, \
                 else to that at {}, by its lower id", lower.endpoint());
        }
    }

    /// Whether this peer owns its name: by its certificate, by the registry's word, or else because no other peer with the name has a lower
    /// id.
    fn owns_name(&self) -> bool {
        if self.signatures.is_some() {
            return true;
        }
        match self.session.own_name() {
            OwnName::Registered => true,
            OwnName::Refused => false,
            OwnName::Unknown => self.name_conflicts.contacts().next().is_none_or(|lowest| self.me.id() < lowest.id()),
        }
    }

    /// Who gets the messages to this peer's name, for people. What a registry says may come later, or go to other peers only.
    fn owner_of_name(&self) -> &'static str {
        match (self.owns_name(), self.session.own_name()) {
            (true, OwnName::Registered) => "this peer, which is registered",
            (true, _) if self.signatures.is_some() => "this peer, by its certificate",
            (_, OwnName::Refused) => "the peer that the registry gave the name to",
            (true, _) => "this peer, by its lower id, unless a registry gives the name to that one",
            (false, _) => "that peer, by its lower id, unless a registry gives the name to this one",
        }
    }

    fn update_name_owner(&mut self) {
        let yields = !self.owns_name();
        if self.routing.yield_name(yields) {
            self.publisher.mark_changed();
        }
    }
}
