//! The messages that came, the latest of them, and who listens.

use super::{kind::MessageKind, reply::Reply, seen::Seen};
use bytes::Bytes;
use metrics::Counter;
use p2pdi::{
    field::is_terminal_control,
    metrics::Metrics,
    status::Reason,
    v1::{InboxMessage, InboxStatus},
};
use std::{
    collections::{BTreeMap, BTreeSet, VecDeque, btree_map::Entry},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};
use tokio::sync::{oneshot, watch};
use tonic::Status;

/// Most messages kept; the oldest goes first.
const MESSAGES_MAX: usize = 1_000;
/// Most bytes of bodies kept: a flood of the longest messages stays within it.
const BYTES_MAX: usize = 4 * 1024 * 1024;
/// Subscriptions at once: twice what it is measured with (`benches/mesh`). One that is not read holds some 100 KiB in its stream.
const SUBSCRIPTIONS_MAX: usize = 2_000;
/// Asks whether a peer is there, from peer to peer.
pub const KIND_PING: &str = "PING";
/// Answers [`KIND_PING`].
pub const KIND_PONG: &str = "PONG";
/// Answers a message of a kind that nobody listens for.
pub const KIND_UNCLAIMED: &str = "UNCLAIMED";

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
    /// To all peers, not to this one only.
    pub broadcast: bool,
    /// Of a whisper: how many peers passed it on. Of a broadcast: how many links it travelled.
    pub hops: u32,
}

impl Message {
    /// The body as text that can be shown: what is no UTF-8, and what would steer a terminal, is replaced.
    pub fn text(&self) -> String {
        let steers = |c: char| is_terminal_control(c) && c != '\n';
        String::from_utf8_lossy(&self.body).chars().map(|c| if steers(c) { char::REPLACEMENT_CHARACTER } else { c }).collect()
    }
}

/// What becomes of a message that comes.
pub(super) enum DeliveryOutcome {
    /// It is kept for whoever listens.
    Kept,
    /// It is kept, and the handler of its kind may answer it. Ends when the handler gave it up.
    Handled(oneshot::Receiver<Reply>),
    /// It came before.
    Again,
    /// Nobody listens for messages of its kind: counted and dropped.
    Unclaimed,
}

/// Bounded; drops the oldest and counts it.
pub struct Inbox {
    kept: Mutex<Kept>,
    /// The number of the next message.
    next: watch::Sender<u64>,
    received: Counter,
    dropped: Counter,
    unclaimed: Counter,
}

#[derive(Default)]
struct Kept {
    messages: VecDeque<Message>,
    bytes: usize,
    received: u64,
    /// Messages ever kept.
    next: u64,
    dropped: u64,
    unclaimed: u64,
    seen: Seen,
    subscriptions: usize,
    /// How many of them want each kind, and how many all.
    wanted: BTreeMap<MessageKind, usize>,
    wanted_all: usize,
    /// Kinds that a handler may answer.
    answered: BTreeSet<MessageKind>,
    /// By a message's number: who waits for what the handler says to it. Goes with its message.
    answers: BTreeMap<u64, (MessageKind, oneshot::Sender<Reply>)>,
}

impl Inbox {
    /// An empty inbox.
    pub fn new(metrics: &Metrics) -> Self {
        let counter = |name, help| metrics.counter(name, help, &[]);
        Self {
            kept: Mutex::default(),
            next: watch::Sender::new(0),
            received: counter("p2pdi_messages_received_total", "Messages that came"),
            dropped: counter("p2pdi_messages_dropped_total", "Messages pushed out of the inbox by newer ones"),
            unclaimed: counter("p2pdi_messages_unclaimed_total", "Messages of a kind that nobody listened for"),
        }
    }

    /// Takes a message, unless one with its id came before.
    pub(super) fn deliver(&self, message: Message, message_id: &[u8]) -> DeliveryOutcome {
        let mut kept = self.kept();
        let wanted = kept.is_wanted(&message.kind);
        // One that nobody wanted did not arrive: sent again, it may.
        if wanted && !kept.seen.first(message_id) {
            return DeliveryOutcome::Again;
        }
        kept.received += 1;
        self.received.increment(1);
        if !wanted {
            kept.unclaimed += 1;
            self.unclaimed.increment(1);
            tracing::debug!(kind = %message.kind, "nobody listens for messages of this kind");
            return DeliveryOutcome::Unclaimed;
        }
        let taken = if !message.broadcast && kept.answered.contains(&message.kind) {
            let (answer, answered) = oneshot::channel();
            let number = kept.next;
            kept.answers.insert(number, (message.kind.clone(), answer));
            DeliveryOutcome::Handled(answered)
        } else {
            DeliveryOutcome::Kept
        };
        kept.keep(message, &self.dropped);
        self.next.send_replace(kept.next);
        taken
    }

    /// The messages that come from now on, of these kinds or of all.
    ///
    /// # Errors
    /// When there are as many subscriptions as may be.
    pub fn subscribe(self: &Arc<Self>, kinds: Vec<MessageKind>) -> Result<Subscription, Status> {
        self.listen(kinds, false)
    }

    /// The messages of one kind from now on, for the one who may answer them.
    pub(super) fn subscribe_handler(self: &Arc<Self>, kind: MessageKind) -> Result<Subscription, Status> {
        self.listen(vec![kind], true)
    }

    fn listen(self: &Arc<Self>, kinds: Vec<MessageKind>, answers: bool) -> Result<Subscription, Status> {
        let mut kept = self.kept();
        if kept.subscriptions >= SUBSCRIPTIONS_MAX {
            return Err(Reason::TooManyStreams.status(format!("{SUBSCRIPTIONS_MAX} subscriptions are open; end one of them")));
        }
        kept.want(&kinds);
        if answers {
            kept.answered.extend(kinds.iter().cloned());
        }
        Ok(Subscription { kinds, answers, next: kept.next, changes: self.next.subscribe(), inbox: Arc::clone(self) })
    }

    /// The latest `count` messages, the newest last.
    pub fn latest(&self, count: usize) -> Vec<Message> {
        let kept = self.kept();
        kept.messages.iter().skip(kept.messages.len().saturating_sub(count)).cloned().collect()
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
    fn is_wanted(&self, kind: &MessageKind) -> bool {
        kind.is_default() || self.wanted_all > 0 || self.wanted.contains_key(kind)
    }

    /// Somebody listens, to these kinds or to all.
    fn want(&mut self, kinds: &[MessageKind]) {
        self.subscriptions += 1;
        self.wanted_all += usize::from(kinds.is_empty());
        for kind in kinds {
            *self.wanted.entry(kind.clone()).or_default() += 1;
        }
    }

    /// One who wanted these does not listen any more.
    fn want_no_more(&mut self, kinds: &[MessageKind]) {
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
        self.bytes += message.body.len();
        self.messages.push_back(message);
        self.next += 1;
        while self.messages.len() > MESSAGES_MAX || self.bytes > BYTES_MAX {
            let Some(oldest) = self.messages.pop_front() else { break };
            self.bytes -= oldest.body.len();
            let number = self.next - self.messages.len() as u64 - 1;
            self.answers.remove(&number);
            self.dropped += 1;
            dropped.increment(1);
        }
    }
}

/// One listener. It reads the inbox at its own pace and holds nobody up; what was pushed out before it came by is counted.
pub struct Subscription {
    kinds: Vec<MessageKind>,
    /// It is that of a handler.
    answers: bool,
    next: u64,
    changes: watch::Receiver<u64>,
    inbox: Arc<Inbox>,
}

impl Subscription {
    /// The next message, and how many of any kind were lost before it. Waits for one; `None` when the inbox is gone.
    pub async fn next(&mut self) -> Option<(Message, u64)> {
        let mut lost = 0;
        loop {
            self.changes.borrow_and_update();
            if let Some(found) = self.look(&mut lost) {
                return Some((found, lost));
            }
            self.changes.changed().await.ok()?;
        }
    }

    /// As [`Subscription::next`], with whoever waits for an answer, if the message is for a handler.
    pub(super) async fn next_to_handle(&mut self) -> Option<(Message, u64, Option<oneshot::Sender<Reply>>)> {
        let (message, lost) = self.next().await?;
        let number = self.next - 1;
        let answer = self.inbox.kept().answers.remove(&number);
        Some((message, lost, answer.map(|(_, answer)| answer)))
    }

    fn look(&mut self, lost: &mut u64) -> Option<Message> {
        let kept = self.inbox.kept();
        let first = kept.next - kept.messages.len() as u64;
        if self.next < first {
            *lost += first - self.next;
            self.next = first;
        }
        while self.next < kept.next {
            let message = usize::try_from(self.next - first).ok().and_then(|at| kept.messages.get(at));
            self.next += 1;
            if let Some(message) = message.filter(|message| self.kinds.is_empty() || self.kinds.contains(&message.kind)) {
                return Some(message.clone());
            }
        }
        None
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let mut kept = self.inbox.kept();
        kept.want_no_more(&self.kinds);
        if self.answers {
            kept.answered.retain(|kind| !self.kinds.contains(kind));
            // Those it did not come to: nobody answers them any more.
            kept.answers.retain(|_, (kind, _)| !self.kinds.contains(kind));
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
    fn past_its_bounds_the_oldest_message_is_dropped_and_counted() {
        let inbox = Inbox::new(&Metrics::default());
        for n in 0..MESSAGES_MAX + 5 {
            inbox.deliver(message(n, "", 1), &[]);
        }
        assert_eq!(inbox.status(), InboxStatus { messages: 1000, received: 1005, dropped: 5, unclaimed: 0 });
        for n in 0..20 {
            inbox.deliver(message(n, "", 256 * 1024), &[]);
        }
        assert_eq!(inbox.status().messages, 16);
        assert_eq!(inbox.latest(1)[0].from, "19");
    }

    #[tokio::test]
    async fn a_slow_listener_loses_the_oldest_and_holds_nobody_up() {
        let inbox = Arc::new(Inbox::new(&Metrics::default()));
        let (mut slow, mut quick) = (inbox.subscribe(vec![]).unwrap(), inbox.subscribe(vec![]).unwrap());
        for n in 0..MESSAGES_MAX + 7 {
            inbox.deliver(message(n, "", 1), &[]);
            assert_eq!(quick.next().await.unwrap().0.from, n.to_string());
        }
        let (first, lost) = slow.next().await.unwrap();
        assert_eq!((first.from.as_str(), lost), ("7", 7));
        assert_eq!(slow.next().await.unwrap().1, 0);
    }

    #[tokio::test]
    async fn a_kind_that_nobody_listens_for_is_counted_and_dropped() {
        let inbox = Arc::new(Inbox::new(&Metrics::default()));
        inbox.deliver(message(1, "TEST", 1), &[]);
        assert_eq!((inbox.status().messages, inbox.status().unclaimed), (0, 1));
        let mut listener = inbox.subscribe(vec!["TEST".parse().unwrap()]).unwrap();
        inbox.deliver(message(2, "text", 1), &[]);
        inbox.deliver(message(3, "TEST", 1), &[]);
        assert_eq!(listener.next().await.unwrap().0.from, "3");
        drop(listener);
        inbox.deliver(message(4, "TEST", 1), &[]);
        assert_eq!(inbox.status().unclaimed, 2);
    }

    #[test]
    fn a_message_that_comes_twice_is_shown_once() {
        let inbox = Inbox::new(&Metrics::default());
        assert!(matches!(inbox.deliver(message(1, "", 3), &[7; 16]), DeliveryOutcome::Kept));
        assert!(matches!(inbox.deliver(message(1, "", 3), &[7; 16]), DeliveryOutcome::Again));
        assert_eq!(inbox.status().received, 1);
    }

    #[tokio::test]
    async fn who_waits_for_an_answer_is_told_when_the_message_is_pushed_out_or_the_handler_gone() {
        let inbox = Arc::new(Inbox::new(&Metrics::default()));
        let mut handler = inbox.subscribe_handler("TEST".parse().unwrap()).unwrap();
        let deliver = |from, kind| match inbox.deliver(message(from, kind, 1), &[]) {
            DeliveryOutcome::Handled(answered) => Some(answered),
            _ => None,
        };
        let (first, second) = (deliver(1, "TEST").unwrap(), deliver(2, "TEST").unwrap());
        assert!(deliver(3, "").is_none());
        let (heard, lost, answer) = handler.next_to_handle().await.unwrap();
        assert_eq!((heard.from.as_str(), lost), ("1", 0));
        answer.unwrap().send(Reply::new("ECHO", "x")).unwrap();
        assert_eq!(first.await.unwrap().kind, "ECHO");
        for n in 0..MESSAGES_MAX {
            deliver(n, "");
        }
        assert!(second.await.is_err());
        let third = deliver(4, "TEST").unwrap();
        drop(handler);
        assert!(third.await.is_err());
        assert!(matches!(inbox.deliver(message(5, "TEST", 1), &[]), DeliveryOutcome::Unclaimed));
        assert_eq!(inbox.kept().answers.len(), 0);
    }
}
