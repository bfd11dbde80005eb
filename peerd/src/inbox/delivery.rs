//! Delivers messages to this peer, whichever way they arrived.

use super::{
    answers::Answer,
    kind::MessageKind,
    queue::{DeliveryOutcome, Inbox, KIND_PING, KIND_PONG, KIND_UNCLAIMED, Message},
    reply::{REPLY_TIMEOUT, Reply},
    whisper::Whisper,
};
use crate::identity::OwnContact;
use bytes::Bytes;
use p2pdi::{field::is_terminal_control, name::NAME_MAX_BYTES, v1::WhisperResponse};
use std::{sync::Arc, time::SystemTime};
use tokio::time::timeout;

/// Delivers messages to this peer's inbox and handlers. Cheap to clone.
#[derive(Clone)]
pub struct LocalDelivery {
    me: OwnContact,
    inbox: Arc<Inbox>,
}

/// The confirmation of a receiver that it has a message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Delivered {
    /// Name of the receiver.
    pub by: String,
    /// Peers that forwarded the message.
    pub hops: u32,
    /// The reply of the receiver's handler, if it was ready within [`REPLY_TIMEOUT`].
    pub reply: Reply,
}

/// A delivered message whose handler may still reply.
#[derive(Debug)]
pub struct PendingReply {
    delivered: Delivered,
    /// The reply of a handler; `None` if there will be none.
    reply: Option<Answer>,
}

impl PendingReply {
    /// The confirmation, if no handler will reply.
    ///
    /// # Errors
    /// The pending reply itself, if a handler may still reply: use [`PendingReply::wait`].
    pub fn at_once(self) -> Result<Delivered, Self> {
        if self.reply.is_none() { Ok(self.delivered) } else { Err(self) }
    }

    /// Waits for the handler's reply, for at most [`REPLY_TIMEOUT`].
    pub async fn wait(self) -> Delivered {
        let Self { mut delivered, reply } = self;
        if let Some(reply) = reply
            // If the handler is late or panics, or the inbox dropped the message before its turn, it still counts as delivered.
            && let Ok(Ok(reply)) = timeout(REPLY_TIMEOUT, reply).await
        {
            delivered.reply = reply;
        }
        delivered
    }
}

impl LocalDelivery {
    /// Delivers to `inbox`.
    pub fn new(me: OwnContact, inbox: Arc<Inbox>) -> Self {
        Self { me, inbox }
    }

    /// Delivers a message to this peer. A PING is answered here and does not reach the inbox.
    pub fn whisper(&self, whisper: Whisper) -> PendingReply {
        let Whisper { kind, body, from, hops, message_id, signature, .. } = whisper;
        let signed_at_ms = signature.map(|signature| signature.signed_at_ms);
        tracing::debug!(from, %kind, bytes = body.len(), "message received");
        let (mut reply, mut pending) = (Reply::default(), None);
        if kind.as_str() == KIND_PING {
            reply = Reply::new(KIND_PONG, self.me.get().endpoint().to_string());
        } else {
            let message = Message { from, kind, body, received_at: SystemTime::now(), broadcast: false, hops };
            match self.inbox.deliver(message, &message_id, signed_at_ms) {
                DeliveryOutcome::Kept | DeliveryOutcome::Duplicate => {}
                DeliveryOutcome::Handled(answer) => pending = Some(answer),
                DeliveryOutcome::Unclaimed => reply = Reply::new(KIND_UNCLAIMED, ""),
            }
        }
        PendingReply { delivered: Delivered { by: self.me.get().name().to_string(), hops, reply }, reply: pending }
    }

    /// Delivers a message to all peers. The overlay passes each broadcast once.
    pub fn broadcast(&self, from: &str, kind: &str, body: Bytes, hops: u32) {
        let Ok(kind) = kind.parse::<MessageKind>() else {
            tracing::debug!(from, "dropping a broadcast with an invalid kind");
            return;
        };
        // A broadcast PING only counts peers: it is acknowledged, and does not reach the inbox.
        if kind.as_str() == KIND_PING {
            return;
        }
        let from = from.chars().filter(|c| !is_terminal_control(*c)).take(NAME_MAX_BYTES).collect();
        tracing::debug!(from, %kind, bytes = body.len(), "broadcast received");
        drop(self.inbox.deliver(Message { from, kind, body, received_at: SystemTime::now(), broadcast: true, hops }, &[], None));
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
