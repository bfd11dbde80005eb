//! The inbox: a bounded queue of received messages, and its subscriptions.

use super::{
    answers::{Answer, Answers},
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
use tokio::sync::{Notify, oneshot, watch};
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
        printable(&self.body)
    }
}

/// See [`Message::text`].
pub fn printable(body: &[u8]) -> String {
    let is_control = |c: char| is_terminal_control(c) && c != '\n';
    String::from_utf8_lossy(body).chars().map(|c| if is_control(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
}

/// What the inbox did with a message.
pub(super) enum DeliveryOutcome {
    /// It is kept for subscribers.
    Kept,
    /// It is kept, or was when it arrived before, and the handler of its kind may reply.
    Handled(Answer),
    /// A message with its id arrived before, and no reply to it is kept.
    Duplicate,
    /// No handler or subscription wants its kind: it is counted and dropped.
    Unclaimed,
}

/// A bounded queue that drops the oldest message of the sender that has the most in it, and counts it.
pub struct Inbox {
    kept: Mutex<Kept>,
    /// The sequence number of the next message, for subscriptions to all kinds.
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
    /// Subscriptions to some kinds, by their numbers, and which of them want each kind; and how many others want all.
    selective: BTreeMap<u64, Selective>,
    wanted: BTreeMap<MessageKind, BTreeSet<u64>>,
    wanted_all: usize,
    /// The number of the next subscription to some kinds.
    next_selective: u64,
    /// Senders that wait for a reply, by the sequence number of the message. Removed with the message.
    replies: BTreeMap<u64, (MessageKind, oneshot::Sender<Reply>)>,
    /// Replies to the latest messages.
    answers: Answers,
}

/// A subscription to some kinds. It is woken by messages of those only: the peer's own handlers want few of all that arrive.
struct Selective {
    /// The sequence number of the first message that it has not looked at.
    next: u64,
    /// Messages of its kinds that were dropped before it read them.
    lost: u64,
    /// It belongs to a handler, which may reply.
    is_handler: bool,
    changed: Arc<Notify>,
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
            let kept = kept.answers.find(&message.from, message_id);
            return kept.map_or(DeliveryOutcome::Duplicate, DeliveryOutcome::Handled);
        }
        kept.received += 1;
        self.received.increment(1);
        if !wanted {
            kept.unclaimed += 1;
            self.unclaimed.increment(1);
            tracing::debug!(kind = %message.kind, "no handler or subscription wants this kind of message");
            return DeliveryOutcome::Unclaimed;
        }
        let outcome = if !message.broadcast && kept.is_handled(&message.kind, kept.next) {
            let (sender, receiver) = oneshot::channel();
            let number = kept.next;
            kept.replies.insert(number, (message.kind.clone(), sender));
            DeliveryOutcome::Handled(kept.answers.keep(&message.from, message_id, receiver))
        } else {
            DeliveryOutcome::Kept
        };
        let is_for_all = !message.kind.is_internal();
        kept.notify_selective(&message.kind);
        kept.keep(message, &self.dropped);
        if is_for_all && kept.wanted_all > 0 {
            self.next.send_replace(kept.next);
        }
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
        kept.subscriptions += 1;
        let reading = if kinds.is_empty() { self.read_all(&mut kept) } else { kept.read_some(&kinds, is_handler) };
        Ok(Subscription { kinds, reading, inbox: Arc::clone(self) })
    }

    fn read_all(&self, kept: &mut Kept) -> Reading {
        kept.wanted_all += 1;
        Reading::All { next: kept.next, changes: self.next.subscribe() }
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
            answers: Answers::default(),
            subscriptions: 0,
            selective: BTreeMap::new(),
            wanted: BTreeMap::new(),
            wanted_all: 0,
            next_selective: 0,
            replies: BTreeMap::new(),
        }
    }

    fn is_wanted(&self, kind: &MessageKind) -> bool {
        kind.is_default() || (self.wanted_all > 0 && !kind.is_internal()) || self.wanted.contains_key(kind)
    }

    /// Whether a handler is to read the message of this kind with this sequence number. There may be two handlers: a new one may begin before
    /// the one that it replaces ends.
    fn is_handled(&self, kind: &MessageKind, number: u64) -> bool {
        let mut wanting = self.wanted.get(kind).into_iter().flatten().filter_map(|subscription| self.selective.get(subscription));
        wanting.any(|selective| selective.is_handler && selective.next <= number)
    }

    /// Adds a subscription to some kinds, from now on.
    fn read_some(&mut self, kinds: &[MessageKind], is_handler: bool) -> Reading {
        let (number, changed) = (self.next_selective, Arc::new(Notify::new()));
        self.next_selective += 1;
        for kind in kinds {
            self.wanted.entry(kind.clone()).or_default().insert(number);
        }
        self.selective.insert(number, Selective { next: self.next, lost: 0, is_handler, changed: Arc::clone(&changed) });
        Reading::Some { number, changed }
    }

    /// Removes a subscription to these kinds; returns where it was.
    fn forget(&mut self, reading: &Reading, kinds: &[MessageKind]) -> Option<Selective> {
        let Reading::Some { number, .. } = reading else {
            self.wanted_all -= 1;
            return None;
        };
        for kind in kinds {
            if let Entry::Occupied(mut numbers) = self.wanted.entry(kind.clone()) {
                numbers.get_mut().remove(number);
                if numbers.get().is_empty() {
                    numbers.remove();
                }
            }
        }
        self.selective.remove(number)
    }

    fn notify_selective(&self, kind: &MessageKind) {
        let numbers = self.wanted.get(kind).into_iter().flatten();
        numbers.filter_map(|number| self.selective.get(number)).for_each(|selective| selective.changed.notify_one());
    }

    fn keep(&mut self, message: Message, dropped: &Counter) {
        // Names compare without case.
        let (sender, bytes) = (message.from.to_ascii_lowercase(), message.body.len());
        let number = self.next;
        self.next += 1;
        for (number, message) in self.messages.push(number, &sender, bytes, message) {
            self.replies.remove(&number);
            self.dropped += 1;
            dropped.increment(1);
            for subscription in self.wanted.get(&message.kind).into_iter().flatten() {
                if let Some(selective) = self.selective.get_mut(subscription).filter(|selective| selective.next <= number) {
                    selective.lost += 1;
                }
            }
        }
    }
}

/// A message to be handled, and the channel for its reply, if the sender waits for one.
pub(super) type Pending = (Message, Option<oneshot::Sender<Reply>>);

/// A subscription reads the inbox at its own pace and delays no other. Messages dropped before it read them are counted.
pub struct Subscription {
    kinds: Vec<MessageKind>,
    reading: Reading,
    inbox: Arc<Inbox>,
}

/// How far a subscription has read, and what tells it that there is more.
enum Reading {
    /// All kinds, but those that peers exchange among themselves.
    All { next: u64, changes: watch::Receiver<u64> },
    /// Some kinds; see [`Selective`].
    Some { number: u64, changed: Arc<Notify> },
}

impl Subscription {
    /// Reads messages of all kinds from now on, but those that peers exchange among themselves.
    pub fn widen(&mut self) {
        if self.kinds.is_empty() {
            return;
        }
        let mut kept = self.inbox.kept();
        let before = kept.forget(&self.reading, &self.kinds);
        let mut reading = self.inbox.read_all(&mut kept);
        // What it wanted before and has not read is read first.
        if let (Some(before), Reading::All { next, .. }) = (before, &mut reading) {
            let unread = kept.messages.from(before.next).find(|(_, message)| self.kinds.contains(&message.kind));
            *next = unread.map_or(*next, |(number, _)| number);
        }
        self.reading = reading;
        self.kinds.clear();
    }

    /// Waits for the next message. Returns it with the number of messages that were dropped before it, of its kinds, or of any if it reads
    /// all; `None` when the inbox is gone.
    pub async fn next(&mut self) -> Option<(Message, u64)> {
        let (_, message, lost) = self.next_numbered().await?;
        Some((message, lost))
    }

    /// As [`Subscription::next`], with the channel for the reply, if a sender waits for one.
    pub(super) async fn next_to_handle(&mut self) -> Option<(Message, u64, Option<oneshot::Sender<Reply>>)> {
        let (number, message, lost) = self.next_numbered().await?;
        let reply = self.inbox.kept().replies.remove(&number);
        Some((message, lost, reply.map(|(_, sender)| sender)))
    }

    /// Waits for messages to handle. Returns those that are there, at least one and at most `most`, with the number of those of its kinds that
    /// were dropped before them; `None` when the inbox is gone.
    pub(super) async fn next_batch(&mut self, most: usize) -> Option<(Vec<Pending>, u64)> {
        let (number, message, mut lost) = self.next_numbered().await?;
        let mut numbered = vec![(number, message)];
        while numbered.len() < most
            && let Some(found) = self.poll(&mut lost)
        {
            numbered.push(found);
        }
        let mut kept = self.inbox.kept();
        let batch =
            numbered.into_iter().map(|(number, message)| (message, kept.replies.remove(&number).map(|(_, sender)| sender)));
        Some((batch.collect(), lost))
    }

    async fn next_numbered(&mut self) -> Option<(u64, Message, u64)> {
        let mut lost = 0;
        loop {
            if let Reading::All { changes, .. } = &mut self.reading {
                changes.borrow_and_update();
            }
            if let Some((number, message)) = self.poll(&mut lost) {
                return Some((number, message, lost));
            }
            match &mut self.reading {
                Reading::All { changes, .. } => changes.changed().await.ok()?,
                // What was notified before is not missed.
                Reading::Some { changed, .. } => changed.notified().await,
            }
        }
    }

    fn poll(&mut self, lost: &mut u64) -> Option<(u64, Message)> {
        let mut kept = self.inbox.kept();
        let Kept { messages, selective, next: end, .. } = &mut *kept;
        match &mut self.reading {
            Reading::All { next, .. } => {
                for (number, message) in messages.from(*next) {
                    // Those between were dropped.
                    *lost += number - *next;
                    *next = number + 1;
                    if !message.kind.is_internal() {
                        return Some((number, message.clone()));
                    }
                }
                *lost += *end - *next;
                *next = *end;
            }
            Reading::Some { number, .. } => {
                let own = selective.get_mut(&*number)?;
                *lost += std::mem::take(&mut own.lost);
                let found = messages.from(own.next).find(|(_, message)| self.kinds.contains(&message.kind));
                own.next = found.map_or(*end, |(number, _)| number + 1);
                return found.map(|(number, message)| (number, message.clone()));
            }
        }
        None
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut kept = self.inbox.kept();
        kept.subscriptions -= 1;
        if kept.forget(&self.reading, &self.kinds).is_some_and(|ended| ended.is_handler) {
            // Messages that no handler reads get no reply any more: one that began later does not read those from before.
            let mut replies = std::mem::take(&mut kept.replies);
            replies.retain(|number, (kind, _)| kept.is_handled(kind, *number));
            kept.replies = replies;
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
mod tests;
