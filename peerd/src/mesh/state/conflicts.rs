//! Two peers of one name: this one and another.

use super::{Purpose, State};
use crate::overlay::{Message, membership};
use p2pdi::contact::Contact;

impl State {
    /// Looks at contacts in passing.
    pub(super) fn notice<'a>(&mut self, contacts: impl IntoIterator<Item = &'a Contact>) {
        let now = self.now();
        for contact in contacts {
            if contact.name() == self.me.name() && contact.id() != self.me.id() {
                self.name_conflicts.heard_of(contact, now);
            }
        }
    }

    /// Looks at the contacts that a message carries.
    pub(super) fn notice_in(&mut self, message: &Message) {
        use membership::Message as M;
        let Message::Membership(message) = message else { return };
        match message {
            M::ForwardJoin { newcomer, .. } => self.notice([newcomer]),
            M::Reply { peers, .. } | M::Disconnect { peers, .. } | M::Shuffle { peers, .. } | M::ShuffleReply { peers, .. } => {
                self.notice(peers);
            }
            M::Join | M::Request { .. } => {}
        }
    }

    /// A peer said who it is.
    pub(super) fn greeted_by(&mut self, contact: &Contact) {
        if contact.name() != self.me.name() || contact.id() == self.me.id() {
            return;
        }
        let now = self.now();
        if self.name_conflicts.greeted(contact, now) {
            self.changed = true;
            let mine = self.name_conflicts.contacts().next().is_none_or(|lowest| self.me.id() < lowest.id());
            let goes_to = if mine { "this peer" } else { "that peer" };
            tracing::warn!(name = %contact.name(), id = %contact.id(), endpoint = %contact.endpoint(), messages_go_to = goes_to,
                "another peer goes by this peer's name; give one of them another with --name");
        }
        self.settle_name();
    }

    /// Greets those that are due, and forgets those that are gone.
    pub(super) fn greet_namesakes(&mut self) {
        let now = self.now();
        for namesake in self.name_conflicts.due(now) {
            if self.links.contains_key(&namesake.id()) && self.overlay.is_fresh(namesake.id(), now) {
                self.greeted_by(&namesake);
            } else {
                self.dial(vec![namesake.endpoint().clone()], Purpose::NameConflict(namesake.id()));
            }
        }
        for gone in self.name_conflicts.expire(now) {
            self.changed = true;
            tracing::info!(id = %gone.id(), endpoint = %gone.endpoint(), "the other peer of this peer's name is gone");
        }
        self.settle_name();
    }

    /// Two of those that are linked to this peer have one name, which they may not know of each other.
    pub(super) fn compare_names(&mut self, contact: &Contact) {
        let twin = self
            .links
            .values()
            .map(|link| &link.contact)
            .find(|other| other.name() == contact.name() && other.id() != contact.id());
        if let Some(twin) = twin
            && self.abuse.is_news_of(contact.name())
        {
            let lowest = contact.id().min(twin.id());
            tracing::warn!(name = %contact.name(), one = %twin.endpoint(), other = %contact.endpoint(), messages_go_to = %lowest,
                "two peers go by one name; give one of them another with --name");
        }
    }

    /// The lowest id has the name.
    fn settle_name(&mut self) {
        let yields = self.name_conflicts.contacts().next().is_some_and(|lowest| lowest.id() < self.me.id());
        self.changed |= self.routing.yield_name(yields);
    }
}
