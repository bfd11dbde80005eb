//! Reading the messages that a peer receives, one after the other.

use super::{error::PeerError, handle::PeerHandle, phase::Phase};
use crate::inbox::{Message, MessageKind, Subscription};
use tokio::sync::watch;

/// The messages that a peer receives from the subscription on. It reads at its own pace and delays no other; what the inbox drops before its
/// turn is counted.
pub struct Messages {
    subscription: Subscription,
    phase: watch::Receiver<Phase>,
}

impl PeerHandle {
    /// Subscribes to messages of these kinds; to all, if there are none.
    ///
    /// # Errors
    /// When a kind is not valid, too many subscriptions exist, or the peer has stopped.
    pub fn messages(&self, kinds: &[&str]) -> Result<Messages, PeerError> {
        if self.has_ended() {
            return Err(PeerError::Stopped);
        }
        let kinds = kinds.iter().map(|kind| kind.parse()).collect::<Result<Vec<MessageKind>, _>>()?;
        let subscription = self.node().inbox().subscribe(kinds).map_err(|status| self.refused(&status))?;
        Ok(Messages { subscription, phase: self.phase() })
    }
}

impl Messages {
    /// Reads messages of all kinds from now on.
    pub fn widen(&mut self) {
        self.subscription.widen();
    }

    /// Waits for the next message. Returns it with the number of messages, of any kind, that were dropped before it; `None` once the peer has
    /// stopped.
    pub async fn next(&mut self) -> Option<(Message, u64)> {
        let Self { subscription, phase } = self;
        tokio::select! {
            biased;
            next = subscription.next() => next,
            // Fails only when the peer is gone: then it has stopped as well.
            _ = phase.wait_for(|phase| *phase == Phase::Ended) => None,
        }
    }
}
