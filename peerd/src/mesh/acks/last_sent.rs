//! Acknowledgements that were sent lately, or that found no link: those that a closing link may have lost are sent again.

use crate::overlay::{PeerId, Time, plumtree::MessageId};
use std::{collections::VecDeque, time::Duration};

/// How long a link may take to show that it is closing, and a peer without links to get one: as long as a peer that stops waits for both.
const KEPT_FOR: Duration = Duration::from_secs(2);
/// Acknowledgements kept, some 300 bytes each with a signature.
const KEPT_MAX: usize = 4_096;

struct Sent<T> {
    at: Time,
    /// The neighbour that they were sent to; none if there was none.
    to: Option<PeerId>,
    id: MessageId,
    peers: Vec<T>,
}

/// Acknowledgements, each a `T`, that were sent in the last [`KEPT_FOR`], oldest first.
pub(super) struct LastSent<T> {
    frames: VecDeque<Sent<T>>,
    /// Acknowledgements in `frames`.
    count: usize,
}

impl<T> Default for LastSent<T> {
    fn default() -> Self {
        Self { frames: VecDeque::new(), count: 0 }
    }
}

impl<T> LastSent<T> {
    pub(super) fn add(&mut self, to: Option<PeerId>, id: MessageId, peers: Vec<T>, now: Time) {
        self.count += peers.len();
        self.frames.push_back(Sent { at: now, to, id, peers });
        while self.frames.front().is_some_and(|oldest| self.count > KEPT_MAX || oldest.at + KEPT_FOR < now) {
            self.count -= self.frames.pop_front().map_or(0, |oldest| oldest.peers.len());
        }
    }

    /// Whether some found no link, and one may still come.
    pub(super) fn has_unsent(&self, now: Time) -> bool {
        self.frames.iter().any(|sent| sent.to.is_none() && now <= sent.at + KEPT_FOR)
    }

    /// Takes out what was sent `to` a neighbour, or to none, in the last [`KEPT_FOR`].
    pub(super) fn take(&mut self, to: Option<PeerId>, now: Time) -> Vec<(MessageId, Vec<T>)> {
        let (taken, kept) = std::mem::take(&mut self.frames).into_iter().partition(|sent| sent.to == to);
        self.frames = kept;
        let taken: VecDeque<Sent<T>> = taken;
        self.count -= taken.iter().map(|sent| sent.peers.len()).sum::<usize>();
        taken.into_iter().filter(|sent| now <= sent.at + KEPT_FOR).map(|sent| (sent.id, sent.peers)).collect()
    }
}
