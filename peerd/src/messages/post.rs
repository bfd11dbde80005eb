//! Where messages for this peer arrive, whichever way they came.

use super::{
    inbox::{Inbox, KIND_PING, KIND_PONG, Message, Reply},
    kind::MessageKind,
    whisper::Whisper,
};
use crate::identity::Identity;
use bytes::Bytes;
use p2pdi::{name::NAME_MAX_BYTES, v1::WhisperResponse};
use std::{sync::Arc, time::SystemTime};

/// Takes messages for this peer.
#[derive(Clone)]
pub struct Post {
    me: Identity,
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

impl Post {
    /// Delivers to `inbox`.
    pub fn new(me: Identity, inbox: Arc<Inbox>) -> Self {
        Self { me, inbox }
    }

    /// Takes a message to this peer. A PING is answered and not shown.
    pub fn whisper(&self, whisper: Whisper) -> Delivered {
        let Whisper { kind, body, from, hops, message_id, .. } = whisper;
        tracing::debug!(from, %kind, bytes = body.len(), "message received");
        let reply = if kind.as_str() == KIND_PING {
            Some(Reply { kind: KIND_PONG.to_owned(), body: Bytes::copy_from_slice(self.me.endpoint.as_str().as_bytes()) })
        } else {
            let message = Message { from, kind, body, received_at: SystemTime::now(), broadcast: false };
            self.inbox.deliver(message, &message_id)
        };
        Delivered { by: self.me.name.to_string(), hops, reply: reply.unwrap_or_default() }
    }

    /// Takes a message to all peers; each comes once.
    pub fn broadcast(&self, from: &str, kind: &str, body: Bytes) {
        let Ok(kind) = kind.parse::<MessageKind>() else {
            tracing::debug!(from, "a broadcast of a kind that cannot be");
            return;
        };
        // To be acknowledged, not shown: how peers are counted.
        if kind.as_str() == KIND_PING {
            return;
        }
        let from = from.chars().filter(|c| !c.is_control()).take(NAME_MAX_BYTES).collect();
        tracing::debug!(from, %kind, bytes = body.len(), "broadcast received");
        self.inbox.deliver(Message { from, kind, body, received_at: SystemTime::now(), broadcast: true }, &[]);
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
