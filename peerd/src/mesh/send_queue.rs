//! The queue of frames that a link is to send, shared fairly by those who wrote them.

use super::lanes::Lanes;
use p2pdi::{
    id::PeerId,
    v1::{Beacon, Broadcast, LinkFrame, Relay, RelayReply, link_frame::Body},
};
use prost::Message as _;
use std::{
    hash::{BuildHasher as _, RandomState},
    pin::{Pin, pin},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, Waker},
};
use tokio::task::yield_now;
use tokio_stream::Stream;

/// Frames in the queue of one link. A guess: a burst of broadcasts; small ones are a few hundred bytes.
const QUEUE_MAX: usize = 4_096;
/// Bytes in the queue of one link. A pull is answered with a quarter at most. When the queue is full, the link is closed: the other side
/// does not read.
const QUEUE_MAX_BYTES: usize = 4 << 20;

/// The writing end of a link's queue. When it is dropped, queued frames still go out, then the link ends.
pub(super) struct LinkSender {
    shared: Arc<Mutex<Shared>>,
    /// Lanes are chosen by it, so that nobody can choose a name that shares the lane of another.
    hasher: RandomState,
}

/// The reading end of a link's queue.
pub(super) struct SendQueue {
    shared: Arc<Mutex<Shared>>,
    /// It was empty when it was last read.
    was_empty: bool,
}

#[derive(Default)]
struct Shared {
    lanes: Lanes<LinkFrame>,
    /// A goodbye, after which the other side reads nothing: it goes when the lanes are empty.
    goodbye: Option<LinkFrame>,
    /// Of whoever waits for a frame.
    reader: Option<Waker>,
    /// One of the ends was dropped.
    is_closed: bool,
}

/// Who has a lane of a queue.
#[derive(Hash)]
pub(super) enum Origin<'a> {
    /// The two ends of the link.
    Link,
    /// A peer, for its broadcasts.
    Peer(&'a [u8]),
    /// A name, for whispers and their answers.
    Name(&'a str),
}

impl<'a> Origin<'a> {
    /// Of broadcasts.
    pub(super) fn peer(id: &'a PeerId) -> Self {
        Self::Peer(id.as_bytes())
    }

    fn of(frame: &'a LinkFrame) -> Self {
        match &frame.body {
            Some(Body::Broadcast(Broadcast { id: Some(id), .. })) => Self::Peer(&id.origin),
            // Behind the broadcasts of the root, one of which may have the certificates by which its signature is checked.
            Some(Body::Beacon(Beacon { root, signature: Some(_), .. })) => Self::Peer(root),
            Some(Body::Relay(Relay { from, .. })) => Self::Name(from),
            Some(Body::RelayReply(RelayReply { delivered_by, .. })) => Self::Name(delivered_by),
            _ => Self::Link,
        }
    }
}

/// The queue of a new link.
pub(super) fn queue() -> (LinkSender, SendQueue) {
    let shared = Arc::new(Mutex::default());
    (LinkSender { shared: Arc::clone(&shared), hasher: RandomState::new() }, SendQueue { shared, was_empty: true })
}

/// Why a frame was not queued.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum SendError {
    /// The queue is full: the other side does not read.
    Full,
    /// The link has ended.
    Closed,
}

impl LinkSender {
    /// Whether no more of this origin should be pushed: the other side reads slowly, and half of the queue is full, of which this origin has more
    /// than its part, or three quarters are. Broadcasts are advertised then, and pulled by the other side at its own pace; whispers are
    /// refused.
    pub(super) fn is_congested(&self, origin: &Origin<'_>) -> bool {
        let shared = lock(&self.shared);
        let lanes = &shared.lanes;
        let is_past = |quarters| lanes.bytes() > QUEUE_MAX_BYTES / 4 * quarters || lanes.len() > QUEUE_MAX / 4 * quarters;
        is_past(3) || (is_past(2) && lanes.is_over_share(self.hasher.hash_one(origin), QUEUE_MAX / 2, QUEUE_MAX_BYTES / 2))
    }

    /// Queues a frame.
    pub(super) fn send(&self, frame: LinkFrame) -> Result<(), SendError> {
        let (length, lane) = (frame.encoded_len(), self.hasher.hash_one(Origin::of(&frame)));
        let mut shared = lock(&self.shared);
        if shared.is_closed {
            return Err(SendError::Closed);
        }
        if shared.lanes.bytes() + length > QUEUE_MAX_BYTES || shared.lanes.len() >= QUEUE_MAX {
            return Err(SendError::Full);
        }
        if matches!(frame.body, Some(Body::Disconnect(_))) {
            shared.goodbye = Some(frame);
        } else {
            shared.lanes.push(lane, length, frame);
        }
        wake(shared);
        Ok(())
    }
}

impl Drop for LinkSender {
    fn drop(&mut self) {
        close(&self.shared);
    }
}

impl Drop for SendQueue {
    fn drop(&mut self) {
        let unsent = std::mem::take(&mut lock(&self.shared).lanes);
        close(&self.shared);
        drop(unsent);
    }
}

fn close(shared: &Mutex<Shared>) {
    let mut shared = lock(shared);
    shared.is_closed = true;
    wake(shared);
}

/// After the lock is free: whoever is woken wants it.
fn wake(mut shared: MutexGuard<'_, Shared>) {
    let reader = shared.reader.take();
    drop(shared);
    if let Some(reader) = reader {
        reader.wake();
    }
}

fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Stream for SendQueue {
    type Item = LinkFrame;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<LinkFrame>> {
        let this = &mut *self;
        let mut shared = lock(&this.shared);
        // The first frame of several is often queued by the first of several tasks that are ready: the others run before it is written, so
        // that their frames are in the same HTTP/2 frame, the same system call and the same wake-up of the other side.
        if this.was_empty && (shared.lanes.len() > 0 || shared.goodbye.is_some()) {
            this.was_empty = false;
            drop(shared);
            // The runtime wakes this task when the others have run.
            let _pending = pin!(yield_now()).poll(cx);
            return Poll::Pending;
        }
        let frame = shared.lanes.pop().or_else(|| shared.goodbye.take());
        this.was_empty = frame.is_none();
        if frame.is_none() && !shared.is_closed {
            shared.reader = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(frame)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::{Broadcast, LinkPing};
    use std::{future::poll_fn, time::Duration};
    use tokio::time::timeout;

    /// One worker, which runs a task that is woken at once and before the others that are ready.
    #[tokio::test(flavor = "multi_thread", worker_threads = 1)]
    async fn frames_of_all_tasks_that_are_ready_are_read_together() {
        const FRAMES: usize = 8;
        let (sender, mut queue) = queue();
        let sender = Arc::new(sender);
        let reading = tokio::spawn(async move {
            let mut reads = Vec::new();
            poll_fn(|cx| {
                let mut read = 0;
                while let Poll::Ready(Some(_)) = Pin::new(&mut queue).poll_next(cx) {
                    read += 1;
                }
                reads.push(read);
                if reads.iter().sum::<usize>() == FRAMES { Poll::Ready(()) } else { Poll::Pending }
            })
            .await;
            reads
        });
        tokio::spawn(async move {
            // The reader waits already.
            yield_now().await;
            for _ in 0..FRAMES {
                let sender = Arc::clone(&sender);
                tokio::spawn(async move { sender.send(LinkFrame::default()) });
            }
        });
        let reads = timeout(Duration::from_secs(60), reading).await.expect("all are read").unwrap();
        assert_eq!(reads.last(), Some(&FRAMES), "{reads:?}");
    }

    fn broadcast(origin: u8, bytes: usize) -> LinkFrame {
        let id = p2pdi::v1::BroadcastId { origin: vec![origin; 16].into(), incarnation: 1, sequence: 1 };
        let broadcast = Broadcast { id: Some(id), payload: vec![0; bytes].into(), ..Broadcast::default() };
        LinkFrame { body: Some(Body::Broadcast(broadcast)) }
    }

    #[tokio::test]
    async fn an_origin_that_floods_a_slow_link_is_congested_and_others_are_not() {
        let (sender, mut queue) = queue();
        let [flooder, other] = [1, 2].map(|origin| PeerId::from_bytes([origin; 16]));
        while !sender.is_congested(&Origin::peer(&flooder)) {
            sender.send(broadcast(1, 1_000)).unwrap();
        }
        for _ in 0..100 {
            assert!(!sender.is_congested(&Origin::peer(&other)));
            sender.send(broadcast(2, 1_000)).unwrap();
        }
        assert!(!sender.is_congested(&Origin::Name("whispers of somebody")));
        sender.send(LinkFrame { body: Some(Body::Ping(LinkPing { nonce: 1 })) }).unwrap();
        let (mut before, mut others, mut pings) = (0, 0, 0);
        while others < 100 {
            let frame = poll_fn(|cx| Pin::new(&mut queue).poll_next(cx)).await.unwrap();
            match Origin::of(&frame) {
                Origin::Peer([1, ..]) => before += 1,
                Origin::Peer(_) => others += 1,
                _ => pings += 1,
            }
        }
        assert_eq!(pings, 1);
        assert!(before < 200, "of {QUEUE_MAX_BYTES} bytes that wait, as much as the others'");
    }

    #[tokio::test]
    async fn a_goodbye_goes_after_all_that_was_queued_before_it() {
        let (sender, mut queue) = queue();
        for origin in [1, 1, 2] {
            sender.send(broadcast(origin, 200_000)).unwrap();
        }
        sender.send(LinkFrame { body: Some(Body::Disconnect(p2pdi::v1::Disconnect::default())) }).unwrap();
        sender.send(broadcast(3, 10)).unwrap();
        drop(sender);
        let mut read = Vec::new();
        while let Some(frame) = poll_fn(|cx| Pin::new(&mut queue).poll_next(cx)).await {
            read.push(matches!(frame.body, Some(Body::Disconnect(_))));
        }
        assert_eq!(read, [false, false, false, false, true]);
    }

    #[test]
    fn a_queue_that_nobody_reads_is_full_and_one_without_a_reader_is_closed() {
        let (sender, queue) = queue();
        let outcome = std::iter::repeat_with(|| sender.send(broadcast(1, 100_000))).find(Result::is_err);
        assert_eq!(outcome, Some(Err(SendError::Full)));
        drop(queue);
        assert_eq!(sender.send(broadcast(1, 1)), Err(SendError::Closed));
    }

    #[tokio::test]
    async fn what_was_queued_is_still_read_after_the_sender_is_gone() {
        let (sender, mut queue) = queue();
        sender.send(broadcast(1, 1)).unwrap();
        let reading = tokio::spawn(async move {
            let mut read = 0;
            while poll_fn(|cx| Pin::new(&mut queue).poll_next(cx)).await.is_some() {
                read += 1;
            }
            read
        });
        yield_now().await;
        drop(sender);
        assert_eq!(timeout(Duration::from_secs(60), reading).await.expect("it ends").unwrap(), 1);
    }
}
