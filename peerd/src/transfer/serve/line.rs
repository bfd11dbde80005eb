//! Waiting for an upload slot.

use super::slots::{Limits, Slots, Turn};
use p2pdi::content::ContentHash;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};
use tokio::{sync::Notify, time::timeout};

/// How often a stream that waits looks for slots of streams that are not read. Nothing else wakes it for those.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// The slots of a peer.
#[derive(Debug)]
pub(super) struct Line(Mutex<State>);

#[derive(Debug)]
struct State {
    slots: Slots,
    /// Notified when the stream gets a slot.
    changed: BTreeMap<u64, Arc<Notify>>,
}

/// A stream's place among the slots, until it is dropped.
#[derive(Debug)]
pub(super) struct Place {
    line: Arc<Line>,
    stream: u64,
    changed: Arc<Notify>,
}

impl Line {
    pub(super) fn new(limits: Limits) -> Self {
        Self(Mutex::new(State { slots: Slots::new(limits), changed: BTreeMap::new() }))
    }

    /// A place for a stream of `document`, which may have a slot at once. `None` if too many are in its turn.
    pub(super) fn enter(self: &Arc<Self>, document: ContentHash, turn: Option<Turn>) -> Option<Place> {
        let mut state = self.lock();
        let stream = state.slots.enter(document, turn)?;
        let changed = Arc::new(Notify::new());
        state.changed.insert(stream, Arc::clone(&changed));
        state.assign();
        Some(Place { line: Arc::clone(self), stream, changed })
    }

    /// Other limits from now on.
    pub(super) fn set_limits(&self, limits: Limits) {
        let mut state = self.lock();
        state.slots.set_limits(limits);
        state.assign();
    }

    /// How many streams have a slot, and how many wait for one.
    pub(super) fn counts(&self) -> (usize, usize) {
        let state = self.lock();
        (state.slots.sending(), state.slots.waiting())
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn assign(&mut self) {
        for stream in self.slots.assign(Instant::now()) {
            if let Some(changed) = self.changed.get(&stream) {
                changed.notify_one();
            }
        }
    }
}

impl Place {
    /// Whether it has a slot.
    pub(super) fn has_slot(&self) -> bool {
        self.line.lock().slots.has_slot(self.stream)
    }

    /// Waits for a slot, for at most `most`; returns whether it has one.
    pub(super) async fn wait(&self, most: Duration) -> bool {
        let deadline = Instant::now() + most;
        loop {
            {
                let mut state = self.line.lock();
                state.assign();
                if state.slots.has_slot(self.stream) {
                    return true;
                }
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            // After the timeout it looks again.
            let _timed_out = timeout(left.min(LOOK_EVERY), self.changed.notified()).await;
        }
    }

    /// How many streams are before it.
    pub(super) fn ahead(&self) -> usize {
        self.line.lock().slots.ahead(self.stream)
    }

    /// A message was handed over to the transport.
    pub(super) fn handed_over(&self) {
        self.line.lock().slots.handed_over(self.stream, Instant::now());
    }

    /// The message was read. Whether it still has its slot; if not, it waits in line.
    pub(super) fn resume(&self) -> bool {
        let mut state = self.line.lock();
        let kept = state.slots.resume(self.stream, Instant::now());
        if !kept {
            state.assign();
        }
        kept
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut state = self.line.lock();
        state.slots.leave(self.stream);
        state.changed.remove(&self.stream);
        state.assign();
    }
}
