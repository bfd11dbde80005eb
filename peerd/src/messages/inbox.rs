//! The messages that came, the latest of them.

use super::kind::MessageKind;
use bytes::Bytes;
use metrics::Counter;
use p2pdi::{instruments::Metrics, v1::InboxStatus};
use std::{
    collections::VecDeque,
    sync::{Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

/// Most messages kept; the oldest goes first.
const MESSAGES_MAX: usize = 1_000;
/// Most bytes of bodies kept: a flood of the longest messages stays within it.
const BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message that came.
#[derive(Debug, Clone)]
pub struct Message {
    /// What its sender calls itself.
    pub from: String,
    /// What it is.
    pub kind: MessageKind,
    /// What it says.
    pub body: Bytes,
    /// When it came.
    pub received_at: SystemTime,
}

/// Bounded; drops the oldest and counts it.
pub struct Inbox {
    kept: Mutex<Kept>,
    received: Counter,
    dropped: Counter,
}

#[derive(Default)]
struct Kept {
    messages: VecDeque<Message>,
    bytes: usize,
    received: u64,
    dropped: u64,
}

impl Inbox {
    /// An empty inbox.
    pub fn new(metrics: &Metrics) -> Self {
        Self {
            kept: Mutex::default(),
            received: metrics.counter("p2pdi_messages_received_total", "Messages that came", &[]),
            dropped: metrics.counter("p2pdi_messages_dropped_total", "Messages pushed out of the inbox by newer ones", &[]),
        }
    }

    /// Takes a message.
    pub fn deliver(&self, message: Message) {
        self.received.increment(1);
        let mut kept = self.kept();
        kept.received += 1;
        kept.bytes += message.body.len();
        kept.messages.push_back(message);
        while kept.messages.len() > MESSAGES_MAX || kept.bytes > BYTES_MAX {
            let Some(oldest) = kept.messages.pop_front() else { break };
            kept.bytes -= oldest.body.len();
            kept.dropped += 1;
            self.dropped.increment(1);
        }
    }

    /// The latest `count` messages, the newest last.
    pub fn latest(&self, count: usize) -> Vec<Message> {
        let kept = self.kept();
        kept.messages.iter().skip(kept.messages.len().saturating_sub(count)).cloned().collect()
    }

    /// Counts.
    pub fn status(&self) -> InboxStatus {
        let kept = self.kept();
        InboxStatus { messages: kept.messages.len() as u64, received: kept.received, dropped: kept.dropped }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_its_bounds_the_oldest_message_is_dropped_and_counted() {
        let inbox = Inbox::new(&Metrics::default());
        let message = |n: usize, len: usize| Message {
            from: n.to_string(),
            kind: "".parse().unwrap(),
            body: vec![0; len].into(),
            received_at: SystemTime::now(),
        };
        for n in 0..MESSAGES_MAX + 5 {
            inbox.deliver(message(n, 1));
        }
        assert_eq!(inbox.status(), InboxStatus { messages: 1000, received: 1005, dropped: 5 });
        for n in 0..20 {
            inbox.deliver(message(n, 256 * 1024));
        }
        assert_eq!(inbox.status().messages, 16);
        assert_eq!(inbox.latest(1)[0].from, "19");
    }
}
