//! Whispers of this peer that wait for a route or for a reply.

use crate::{
    inbox::Delivered,
    overlay::routing::{Relay, RouteId},
};
use std::collections::BTreeMap;
use tokio::sync::oneshot;

/// Why a whisper was not delivered along links.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WhisperError {
    /// There is no route to its receiver, or the route broke.
    NoRoute,
    /// The queue of the link is too full: the whisper would wait too long.
    Congested,
    /// The peers on the way search for as many routes as they may; whether there is one is unknown.
    TooManySeeks,
    /// This peer is stopping.
    Stopping,
}

/// Where the result of a whisper goes. Its caller may have given up, so a failed send is no error.
pub(super) type WhisperSender = oneshot::Sender<Result<Delivered, WhisperError>>;

/// Whispers that are under way, by the id of their route.
#[derive(Default)]
pub(super) struct PendingWhispers(BTreeMap<RouteId, PendingWhisper>);

struct PendingWhisper {
    /// The message, until a route is found for it.
    relay: Option<Relay>,
    caller: WhisperSender,
}

impl PendingWhispers {
    /// Adds a whisper; `relay` is the message if a route must be found first.
    pub(super) fn insert(&mut self, id: RouteId, relay: Option<Relay>, caller: WhisperSender) {
        self.0.insert(id, PendingWhisper { relay, caller });
    }

    /// A route was found: the message that waits for it.
    pub(super) fn take_relay(&mut self, id: RouteId) -> Option<Relay> {
        self.0.get_mut(&id).and_then(|whisper| whisper.relay.take())
    }

    /// Tells the caller the result, if the whisper is one of this peer's.
    pub(super) fn finish(&mut self, id: RouteId, result: Result<Delivered, WhisperError>) {
        if let Some(whisper) = self.0.remove(&id) {
            let _ = whisper.caller.send(result);
        }
    }

    /// Drops all callers.
    pub(super) fn clear(&mut self) {
        self.0.clear();
    }
}
