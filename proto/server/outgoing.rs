//! How many bytes a connection's calls have given to HTTP/2 that are not written to the socket yet.
//!
//! HTTP/2 takes up to a buffer's worth from every stream at once and writes the streams' frames in turn. A call that sends much asks for
//! room before each message, so that little waits there: an answer that is sent before another one arrives before it, a short message
//! overtakes long ones, and a cancelled stream costs little. The kernel's part of this is the limit of unsent bytes, see
//! [`crate::platform::limit_unsent`].

use std::{
    sync::{Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};

/// Nothing was written for so long although the socket takes bytes: what is counted is not going to be written. Its stream was reset, or its
/// reader does not read.
const IDLE: Duration = Duration::from_millis(10);
/// Longest wait for room. After that the message is passed on whatever waits, so that a caller that does not read is seen as such.
const ROOM_TIMEOUT: Duration = Duration::from_secs(5);

/// The bytes of one connection. They are an estimate: frames of other calls count as written bytes.
#[derive(Default)]
pub(super) struct Outgoing {
    state: Mutex<State>,
    written: Notify,
    /// Held by the call that waits for room; the others queue for it in order.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    unwritten: usize,
    /// The socket takes no bytes now.
    blocked: bool,
    written_at: Option<Instant>,
}

impl Outgoing {
    /// The socket took these bytes.
    pub(super) fn wrote(&self, bytes: usize) {
        let mut state = self.lock();
        state.unwritten = state.unwritten.saturating_sub(bytes);
        state.blocked = false;
        state.written_at = Some(Instant::now());
        drop(state);
        self.written.notify_one();
    }

    /// The socket takes no bytes for now.
    pub(super) fn blocked(&self) {
        self.lock().blocked = true;
    }

    /// Waits until fewer than `most` bytes are unwritten, and counts `bytes` more. Calls are served in the order in which they ask.
    pub(super) async fn room(&self, bytes: usize, most: usize) {
        // After the timeout it is passed on anyway.
        let _timed_out = timeout(ROOM_TIMEOUT, self.until_below(most)).await;
        self.lock().unwritten += bytes;
    }

    async fn until_below(&self, most: usize) {
        let _turn = self.turn.lock().await;
        while self.lock().unwritten >= most {
            if timeout(IDLE, self.written.notified()).await.is_err() {
                let mut state = self.lock();
                if !state.blocked && state.written_at.is_none_or(|at| at.elapsed() >= IDLE) {
                    state.unwritten = 0;
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    #[tokio::test]
    async fn a_message_waits_until_earlier_ones_are_written() {
        let outgoing = Arc::new(Outgoing::default());
        outgoing.room(100, 50).await;
        outgoing.blocked();
        let waiting = Arc::clone(&outgoing);
        let mut second = tokio::spawn(async move { waiting.room(10, 50).await });
        assert!(timeout(5 * IDLE, &mut second).await.is_err(), "it did not wait");
        outgoing.wrote(40);
        outgoing.blocked();
        assert!(timeout(5 * IDLE, &mut second).await.is_err(), "it did not wait");
        outgoing.wrote(20);
        timeout(Duration::from_secs(10), second).await.expect("room").unwrap();
        assert_eq!(outgoing.lock().unwritten, 50);
    }

    #[tokio::test]
    async fn what_is_never_written_holds_up_nobody() {
        let outgoing = Outgoing::default();
        outgoing.room(1 << 30, 50).await;
        timeout(Duration::from_secs(4), outgoing.room(10, 50)).await.expect("room");
        assert_eq!(outgoing.lock().unwritten, 10);
    }
}
