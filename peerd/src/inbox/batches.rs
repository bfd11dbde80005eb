//! Messages for a handler that takes them in batches: one that is not Rust, and pays for each time that it looks.
//!
//! As other handlers it reads the inbox at its own pace. What it took is not dropped any more, so batches are small.

use super::{
    kind::MessageKind,
    queue::{Message, Subscription},
    reply::Reply,
};
use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

/// A message to be handled, and where its reply goes.
#[derive(Debug)]
pub struct ToHandle {
    /// The message.
    pub message: Message,
    /// Where the reply goes; `None`: nobody waits for one.
    pub reply: Option<ReplySlot>,
}

/// Takes the reply to one whisper. Dropped, there is none.
#[derive(Debug)]
pub struct ReplySlot {
    kind: MessageKind,
    sender: oneshot::Sender<Reply>,
}

impl ReplySlot {
    /// Replies. A reply that is not valid is logged and not sent.
    pub fn send(self, reply: Reply) {
        if let Some(reply) = reply.check(&self.kind) {
            // The sender of the message may have stopped waiting.
            let _ = self.sender.send(reply);
        }
    }
}

/// The messages of one kind, from now on, for one handler. Dropped, the kind has no handler any more.
pub struct Batches {
    subscription: Subscription,
    stop: CancellationToken,
}

impl Batches {
    /// They end at `stop`.
    pub(super) fn new(subscription: Subscription, stop: CancellationToken) -> Self {
        Self { subscription, stop }
    }

    /// Waits for messages. Returns those that are there, at least one, and at most `most` if that is more, with the number of messages of the kind that
    /// the inbox dropped before their turn; `None` when the peer stops.
    pub async fn next(&mut self, most: usize) -> Option<(Vec<ToHandle>, u64)> {
        let Self { subscription, stop } = self;
        let (messages, lost) = tokio::select! {
            biased;
            () = stop.cancelled() => return None,
            next = subscription.next_batch(most) => next?,
        };
        let mut batch = Vec::with_capacity(messages.len());
        for (message, sender) in messages {
            let reply = sender.map(|sender| ReplySlot { kind: message.kind.clone(), sender });
            batch.push(ToHandle { message, reply });
        }
        Some((batch, lost))
    }
}
