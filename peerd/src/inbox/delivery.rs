//! Where messages for this peer arrive, whichever way they came.

use super::{
    kind::MessageKind,
    queue::{DeliveryOutcome, Inbox, KIND_PING, KIND_PONG, KIND_UNCLAIMED, Message},
    reply::{REPLY_TIMEOUT, Reply},
    whisper::Whisper,
};
use bytes::Bytes;
use p2pdi::{contact::Contact, field::is_terminal_control, name::NAME_MAX_BYTES, v1::WhisperResponse};
use std::{sync::Arc, time::SystemTime};
use tokio::{sync::oneshot, time::timeout};

/// Takes messages for this peer.
#[derive(Clone)]
pub struct LocalDelivery {
    me: Contact,
    inbox: Arc<Inbox>,
}

/// What became of a message, as its receiver says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Who has it.
    pub by: String,
    /// Peers that passed it on.
    pub hops: u32,
    /// What the receiver answers at once.
    pub reply: Reply,
}

/// A message that was taken, and may still be answered.
#[derive(Debug)]
pub struct PendingReply {
    delivered: Delivered,
    /// The handler of its kind has the word.
    answered: Option<oneshot::Receiver<Reply>>,
}

impl PendingReply {
    /// What became of the message, where that is known at once; otherwise the receipt again, to wait with.
    ///
    /// # Errors
    /// When a handler has not yet answered.
    pub fn at_once(self) -> Result<Delivered, Self> {
        if self.answered.is_none() { Ok(self.delivered) } else { Err(self) }
    }

    /// Waits for the handler's answer, for at most [`REPLY_TIMEOUT`].
    pub async fn wait(self) -> Delivered {
        let Self { mut delivered, answered } = self;
        if let Some(answered) = answered
            // Too late, panicked, or the message was pushed out before its turn: it is delivered all the same.
            && let Ok(Ok(reply)) = timeout(REPLY_TIMEOUT, answered).await
        {
            delivered.reply = reply;
        }
        delivered
    }
}

impl LocalDelivery {
    /// Delivers to `inbox`.
    pub fn new(me: Contact, inbox: Arc<Inbox>) -> Self {
        Self { me, inbox }
    }

    /// Takes a message to this peer. A PING is answered and not shown.
    pub fn whisper(&self, whisper: Whisper) -> PendingReply {
        let Whisper { kind, body, from, hops, message_id, .. } = whisper;
        tracing::debug!(from, %kind, bytes = body.len(), "message received");
        let (mut reply, mut answered) = (Reply::default(), None);
        if kind.as_str() == KIND_PING {
            reply = Reply::new(KIND_PONG, self.me.endpoint().to_string());
        } else {
            let message = Message { from, kind, body, received_at: SystemTime::now(), broadcast: false, hops };
            match self.inbox.deliver(message, &message_id) {
                DeliveryOutcome::Kept | DeliveryOutcome::Again => {}
                DeliveryOutcome::Handled(receiver) => answered = Some(receiver),
                DeliveryOutcome::Unclaimed => reply = Reply::new(KIND_UNCLAIMED, ""),
            }
        }
        PendingReply { delivered: Delivered { by: self.me.name().to_string(), hops, reply }, answered }
    }

    /// Takes a message to all peers; each comes once.
    pub fn broadcast(&self, from: &str, kind: &str, body: Bytes, hops: u32) {
        let Ok(kind) = kind.parse::<MessageKind>() else {
            tracing::debug!(from, "a broadcast of a kind that cannot be");
            return;
        };
        // To be acknowledged, not shown: how peers are counted.
        if kind.as_str() == KIND_PING {
            return;
        }
        let from = from.chars().filter(|c| !is_terminal_control(*c)).take(NAME_MAX_BYTES).collect();
        tracing::debug!(from, %kind, bytes = body.len(), "broadcast received");
        drop(self.inbox.deliver(Message { from, kind, body, received_at: SystemTime::now(), broadcast: true, hops }, &[]));
    }
}

impl From<Delivered> for WhisperResponse {
    fn from(delivered: Delivered) -> Self {
        Self {
            delivered_by: delivered.by,
            hops: delivered.hops,
            round_trip: Some(prost_types::Duration::default()),
            reply_kind: delivered.reply.kind,
            reply: delivered.reply.body,
        }
    }
}
