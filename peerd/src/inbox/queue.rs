//! The inbox: a bounded queue of received messages, and its subscriptions.

use super::{
    fair_queue::{Bounds, FairQueue},
    kind::MessageKind,
    reply::Reply,
    seen::Seen,
};
use bytes::Bytes;
use metrics::Counter;
use p2pdi::{
    field::is_terminal_control,
    metrics::Metrics,
    status::Reason,
    v1::{InboxMessage, InboxStatus},
};
use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};
use tokio::sync::{oneshot, watch};
use tonic::Status;

/// Most messages kept; one more drops the oldest of the sender that has the most. A guess: more than a person reads.
const MESSAGES_MAX: usize = 1_000;
/// Most bytes of bodies kept, so that many of the longest messages do not use much memory.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Subscriptions at once: twice as many as are measured (`benches/mesh`). One that is not read holds some 100 KiB in its stream.
const SUBSCRIPTIONS_MAX: usize = 2_000;
/// Kind of a message that checks whether a peer answers.
pub const KIND_PING: &str = "PING";
/// Kind of the reply to [`KIND_PING`].
pub const KIND_PONG: &str = "PONG";
/// Kind of the reply to a message that no handler or subscription wants.
pub const KIND_UNCLAIMED: &str = "UNCLAIMED";

/// A received message.
#[derive(Debug, Clone)]
pub struct Message {
    /// The sender's name for itself; not verified.
    pub from: String,
    /// Its kind.
    pub kind: MessageKind,
    /// Its content.
    pub body: Bytes,
    /// When it arrived.
    pub received_at: SystemTime,
    /// It was sent to all peers.
    pub broadcast: bool,
    /// Of a whisper: peers that forwarded it. Of a broadcast: links it travelled.
    pub hops: u32,
}

impl Message {
    /// The body as text that is safe to print: invalid UTF-8 and terminal controls other than newlines are replaced.
    pub fn text(&self) -> String {
        let is_control = |c: char| is_terminal_control(c) && c != '\n';
        String::from_utf8_lossy(&self.body).chars().map(|c| if is_control(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
    }
}

/// What the inbox did with a message.
pub(super) enum DeliveryOutcome {
    /// It is kept for subscribers.
    Kept,
    /// It is kept, and the handler of its kind may reply. The channel closes when no reply will come.
    Handled(oneshot::Receiver<Reply>),
    /// A message with its id arrived before.
    Duplicate,
    /// No handler or subscription wants its kind: it is counted and dropped.
    Unclaimed,
}

/// A bounded queue that drops the oldest message of the sender that has the most in it, and counts it.
pub struct Inbox {
    kept: Mutex<Kept>,
    /// The sequence number of the next message.
    next: watch::Sender<u64>,
    received: Counter,
    dropped: Counter,
    unclaimed: Counter,
}

struct Kept {
    messages: FairQueue<Message>,
    received: u64,
    /// Messages ever kept: the sequence number of the next one.
    next: u64,
    dropped: u64,
    unclaimed: u64,
    seen: Seen,
    subscriptions: usize,
    /// How many subscriptions want each kind, and how many want all.
    wanted: BTreeMap<MessageKind, usize>,
    wanted_all: usize,
    /// Kinds that have a handler.
    handled: BTreeSet<MessageKind>,
    /// Senders that wait for a reply, by the sequence number of the message. Removed with the message.
    replies: BTreeMap<u64, (MessageKind, oneshot::Sender<Reply>)>,
}

impl Inbox {
    /// An empty inbox.
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help, &[]);
        Self {
            kept: Mutex::new(Kept::new()),
            next: watch::Sender::new(0),
            received: counter("p2pdi_messages_received_total", "Messages received"),
            dropped: counter("p2pdi_messages_dropped_total", "Messages dropped from the inbox to make room for newer ones"),
            unclaimed: counter("p2pdi_messages_unclaimed_total", "Messages of a kind that no handler or subscription wanted"),
        }
    }

    /// Adds a message, unless one of its sender with its id arrived before. `signed_at_ms`: when the sender signed it, if it did.
    pub(super) fn deliver(&self, message: Message, message_id: &[u8], signed_at_ms: Option<u64>) -> DeliveryOutcome {
        let mut kept = self.kept();
        let wanted = kept.is_wanted(&message.kind);
        // The id of an unwanted message is not remembered: sent again, it may be wanted.
        if wanted && !kept.seen.insert(&message.from, message_id, signed_at_ms) {
            return DeliveryOutcome::Duplicate;
        }
        kept.received += 1;
        self.received.increment(1);
        if !wanted {
            kept.unclaimed += 1;
            self.unclaimed.increment(1);
            tracing::debug!(kind = %message.kind, "no handler or subscription wants this kind of message");
            return DeliveryOutcome::Unclaimed;
        }
        let outcome = if !message.broadcast && kept.handled.contains(&message.kind) {
            let (sender, receiver) = oneshot::channel();
            let number = kept.next;
            kept.replies.insert(number, (message.kind.clone(), sender));
            DeliveryOutcome::Handled(receiver)
        } else {
            DeliveryOutcome::Kept
        };
        kept.keep(message, &self.dropped);
        self.next.send_replace(kept.next);
        outcome
    }

    /// Subscribes to messages from now on: of these kinds, or of all but those that peers exchange among themselves if `kinds` is empty.
    ///
    /// # Errors
    /// When there are too many subscriptions.
    pub fn subscribe(self: &Arc<Self>, kinds: Vec<MessageKind>) -> Result<Subscription, Status> {
        self.add_subscription(kinds, false)
    }

    /// Subscribes a handler to messages of one kind from now on.
    pub(super) fn subscribe_handler(self: &Arc<Self>, kind: MessageKind) -> Result<Subscription, Status> {
        self.add_subscription(vec![kind], true)
    }

    fn add_subscription(self: &Arc<Self>, kinds: Vec<MessageKind>, is_handler: bool) -> Result<Subscription, Status> {
        let mut kept = self.kept();
        if kept.subscriptions >= SUBSCRIPTIONS_MAX {
            return Err(Reason::TooManyStreams
                .status(format!("{SUBSCRIPTIONS_MAX} subscriptions are open, which is the limit; close one and try again")));
        }
        kept.subscribed(&kinds);
        if is_handler {
            kept.handled.extend(kinds.iter().cloned());
        }
        Ok(Subscription { kinds, is_handler, next: kept.next, changes: self.next.subscribe(), inbox: Arc::clone(self) })
    }

    /// The latest `count` messages, the newest last, without those that peers exchange among themselves.
    pub fn latest(&self, count: usize) -> Vec<Message> {
        let kept = self.kept();
        let shown = kept.messages.newest_first().filter(|message| !message.kind.is_internal());
        let mut latest: Vec<_> = shown.take(count).cloned().collect();
        latest.reverse();
        latest
    }

    /// Counts.
    pub fn status(&self) -> InboxStatus {
        let kept = self.kept();
        InboxStatus {
            messages: kept.messages.len() as u64,
            received: kept.received,
            dropped: kept.dropped,
            unclaimed: kept.unclaimed,
        }
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Kept {
    fn new() -> Self {
        Self {
            messages: FairQueue::new(Bounds { messages: MESSAGES_MAX, bytes: BYTES_MAX }),
            received: 0,
            next: 0,
            dropped: 0,
            unclaimed: 0,
            seen: Seen::default(),
            subscriptions: 0,
            wanted: BTreeMap::new(),
            wanted_all: 0,
            handled: BTreeSet::new(),
            replies: BTreeMap::new(),
        }
    }

    fn is_wanted(&self, kind: &MessageKind) -> bool {
        kind.is_default() || (self.wanted_all > 0 && !kind.is_internal()) || self.wanted.contains_key(kind)
    }

    /// Counts a subscription.
    fn subscribed(&mut self, kinds: &[MessageKind]) {
        self.subscriptions += 1;
        self.wanted_all += usize::from(kinds.is_empty());
        for kind in kinds {
            *self.wanted.entry(kind.clone()).or_default() += 1;
        }
    }

    /// Counts the end of a subscription.
    fn unsubscribed(&mut self, kinds: &[MessageKind]) {
        self.subscriptions -= 1;
        self.wanted_all -= usize::from(kinds.is_empty());
        for kind in kinds {
            if let Entry::Occupied(mut count) = self.wanted.entry(kind.clone()) {
                *count.get_mut() -= 1;
                if *count.get() == 0 {
                    count.remove();
                }
            }
        }
    }

    fn keep(&mut self, message: Message, dropped: &Counter) {
        // Names compare without case.
        let (sender, bytes) = (message.from.to_ascii_lowercase(), message.body.len());
        let number = self.next;
        self.next += 1;
        for number in self.messages.push(number, &sender, bytes, message) {
            self.replies.remove(&number);
            self.dropped += 1;
            dropped.increment(1);
        }
    }
}

/// A subscription reads the inbox at its own pace and delays no other. Messages dropped before it read them are counted.
pub struct Subscription {
    kinds: Vec<MessageKind>,
    /// It belongs to a handler.
    is_handler: bool,
    next: u64,
    changes: watch::Receiver<u64>,
    inbox: Arc<Inbox>,
}

impl Subscription {
    /// Reads messages of all kinds from now on, but those that peers exchange among themselves.
    pub fn widen(&mut self) {
        let mut kept = self.inbox.kept();
        kept.unsubscribed(&self.kinds);
        self.kinds.clear();
        kept.subscribed(&self.kinds);
    }

    /// Waits for the next message. Returns it with the number of messages, of any kind, that were dropped before it; `None` when the inbox
    /// is gone.
    pub async fn next(&mut self) -> Option<(Message, u64)> {
        let mut lost = 0;
        loop {
            self.changes.borrow_and_update();
            if let Some(found) = self.poll(&mut lost) {
                return Some((found, lost));
            }
            self.changes.changed().await.ok()?;
        }
    }

    /// As [`Subscription::next`], with the channel for the reply, if a sender waits for one.
    pub(super) async fn next_to_handle(&mut self) -> Option<(Message, u64, Option<oneshot::Sender<Reply>>)> {
        let (message, lost) = self.next().await?;
        let number = self.next - 1;
        let reply = self.inbox.kept().replies.remove(&number);
        Some((message, lost, reply.map(|(_, sender)| sender)))
    }

    fn poll(&mut self, lost: &mut u64) -> Option<Message> {
        let kept = self.inbox.kept();
        while let Some((number, message)) = kept.messages.first_from(self.next) {
            // Those between were dropped.
            *lost += number - self.next;
            self.next = number + 1;
            if self.wants(&message.kind) {
                return Some(message.clone());
            }
        }
        *lost += kept.next - self.next;
        self.next = kept.next;
        None
    }

    fn wants(&self, kind: &MessageKind) -> bool {
        if self.kinds.is_empty() { !kind.is_internal() } else { self.kinds.contains(kind) }
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut kept = self.inbox.kept();
        kept.unsubscribed(&self.kinds);
        if self.is_handler {
            kept.handled.retain(|kind| !self.kinds.contains(kind));
            // Messages it did not read get no reply any more.
            kept.replies.retain(|_, (kind, _)| !self.kinds.contains(kind));
        }
    }
}

impl From<Message> for InboxMessage {
    fn from(message: Message) -> Self {
        Self {
            from: message.from,
            kind: message.kind.to_string(),
            body: message.body,
            received_at: Some(message.received_at.into()),
            broadcast: message.broadcast,
            hops: message.hops,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(from: usize, kind: &str, len: usize) -> Message {
        Message {
            from: from.to_string(),
            kind: kind.parse().unwrap(),
            body: vec![0; len].into(),
            received_at: SystemTime::now(),
            broadcast: false,
            hops: 0,
        }
    }

    #[test]
    fn a_flood_of_one_sender_leaves_the_messages_of_others() {
        let inbox = Inbox::new(&Metrics::default());
        inbox.deliver(message(1, "", 10), &[], None);
        for _ in 0..3 * MESSAGES_MAX {
            inbox.deliver(message(2, "", 100), &[], None);
        }
        let kept = inbox.latest(MESSAGES_MAX);
        assert_eq!((kept.len(), kept[0].from.as_str()), (MESSAGES_MAX, "1"));
    }

    #[test]
    fn past_its_bounds_the_oldest_message_is_dropped_and_counted() {
        let inbox = Inbox::new(&Metrics::default());
        for n in 0..MESSAGES_MAX + 5 {
            inbox.deliver(message(n, "", 1), &[], None);
        }
        assert_eq!(inbox.status(), InboxStatus { messages: 1000, received: 1005, dropped: 5, unclaimed: 0 });
        let inbox = Inbox::new(&Metrics::default());
        for n in 0..20 {
            inbox.deliver(message(n, "", 256 * 1024), &[], None);
        }
        assert_eq!(inbox.status().messages, 16);
        assert_eq!(inbox.latest(1)[0].from, "19");
    }

    #[tokio::test]
    async fn a_slow_subscription_loses_the_oldest_messages_and_delays_no_other() {
        let inbox = Arc::new(Inbox::new(&Metrics::default()));
        let (mut slow, mut quick) = (inbox.subscribe(vec![]).unwrap(), inbox.subscribe(vec![]).unwrap());
        for n in 0..MESSAGES_MAX + 7 {
            inbox.deliver(message(n, "", 1), &[], None);
            assert_eq!(quick.next().await.unwrap().0.from, n.to_string());
        }
        let (first, lost) = slow.next().await.unwrap();
        assert_eq!((first.from.as_str(), lost), ("7", 7));
        assert_eq!(slow.next().await.unwrap().1, 0);
    }

    #[tokio::test]
    async fn a_message_of_an_unwanted_kind_is_counted_and_dropped() {
        let inbox = Arc::new(Inbox::new(&Metrics::default()));
        inbox.deliver(message(1, "TEST", 1), &[], None);
        assert_eq!((inbox.status().messages, inbox.status().unclaimed), (0, 1));
        let mut subscription = inbox.subscribe(vec!["TEST".parse().unwrap()]).unwrap();
        inbox.deliver(message(2, "text", 1), &[], None);
        inbox.deliver(message(3, "TEST", 1), &[], None);
        assert_eq!(subscription.next().await.unwrap().0.from, "3");
        drop(subscription);
        inbox.deliver(message(4, "TEST", 1), &[], None);
        assert_eq!(inbox.status().unclaimed, 2);
    }

    #[test]
    fn a_message_that_arrives_twice_is_kept_once() {
        let inbox = Inbox::new(&Metrics::default());
        assert!(matches!(inbox.deliver(message(1, "", 3), &[7; 16], None), DeliveryOutcome::Kept));
        assert!(matches!(inbox.deliver(message(1, "", 3), &[7; 16], None), DeliveryOutcome::Duplicate));
        assert_eq!(inbox.status().received, 1);
    }

    #[tokio::test]
    async fn a_sender_stops_waiting_when_its_message_is_dropped_or_the_handler_is_gone() {
        let inbox = Arc::new(Inbox::new(&Metrics::default()));
        let mut handler = inbox.subscribe_handler("TEST".parse().unwrap()).unwrap();
        let deliver = |from, kind| match inbox.deliver(message(from, kind, 1), &[], None) {
            DeliveryOutcome::Handled(reply) => Some(reply),
            _ => None,
        };
        let (first, second) = (deliver(1, "TEST").unwrap(), deliver(2, "TEST").unwrap());
        assert!(deliver(3, "").is_none());
        let (read, lost, reply) = handler.next_to_handle().await.unwrap();
        assert_eq!((read.from.as_str(), lost), ("1", 0));
        reply.unwrap().send(Reply::new("ECHO", "x")).unwrap();
        assert_eq!(first.await.unwrap().kind, "ECHO");
        for n in 0..MESSAGES_MAX {
            deliver(n, "");
        }
        assert!(second.await.is_err());
        let third = deliver(4, "TEST").unwrap();
        drop(handler);
        assert!(third.await.is_err());
        assert!(matches!(inbox.deliver(message(5, "TEST", 1), &[], None), DeliveryOutcome::Unclaimed));
        assert_eq!(inbox.kept().replies.len(), 0);
    }
}
