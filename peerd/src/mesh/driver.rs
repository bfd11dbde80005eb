//! The lock around the state of the mesh, and the task that calls the state when time has passed.
//!
//! The task that has an event (a link's reader, a caller) takes the lock and handles it immediately. Passing it to another task would add that
//! task's wait at each hop, which is much of the latency of a whisper. Nothing is awaited while the lock is held.

use super::{
    incarnation::IncarnationStore, input::Input, link::LinkEvent, signatures::Signatures, spawner::InputSink, state::State,
};
use crate::{discovery::LanEvents, identity::StateFolder, overlay::Contact};
use std::{
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::panicking,
    time::{Duration, Instant},
};
use tokio::{
    sync::Notify,
    time::{interval, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long links may take to send what is queued when the peer stops.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// How long others may wait then for what this peer has to send: as long as its handlers may run on.
const AWAITED_TIMEOUT: Duration = Duration::from_secs(2);
/// How often the stop checks whether they do.
const AWAITED_EVERY: Duration = Duration::from_millis(10);

/// The state, behind its lock.
pub(super) struct Core {
    state: Mutex<State>,
    /// Wakes the driver: something is due earlier than it knows.
    wake: Notify,
    /// Checks what arrives on links before the state is locked.
    signatures: Option<Signatures>,
}

impl Core {
    pub(super) fn new(state: impl FnOnce(Weak<dyn InputSink>) -> State, signatures: Option<Signatures>) -> Arc<Self> {
        Arc::new_cyclic(|core: &Weak<Self>| {
            let sink: Weak<dyn InputSink> = core.clone();
            Self { state: Mutex::new(state(sink)), wake: Notify::new(), signatures }
        })
    }

    /// Calls `act` with the state; `None` when this peer has left the mesh. After a panic the state is not used any more: the driver
    /// notices and ends the peer.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        let _wake_on_panic = WakeOnPanic(&self.wake);
        let mut state = self.state.lock().ok()?;
        if state.has_left() {
            return None;
        }
        let output = act(&mut state);
        let is_due_earlier = state.settle();
        drop(state);
        if is_due_earlier {
            self.wake.notify_one();
        }
        Some(output)
    }
}

impl InputSink for Core {
    fn input(&self, input: Input) {
        self.with(|state| state.on_input(input));
    }

    fn link_event(&self, number: u64, from: &Contact, event: LinkEvent) -> bool {
        let (event, checking) = match &self.signatures {
            Some(signatures) => {
                let begun = Instant::now();
                (signatures.screen(from, event), begun.elapsed())
            }
            None => (event, Duration::ZERO),
        };
        self.with(|state| state.on_link_event(number, from.id(), event, checking)).unwrap_or(false)
    }
}

/// Wakes the driver when the holder of the lock panics.
struct WakeOnPanic<'a>(&'a Notify);

impl Drop for WakeOnPanic<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.0.notify_one();
        }
    }
}

/// Runs one peer's part of the mesh. When it is dropped, the peer leaves without a goodbye.
pub struct MeshDriver {
    core: Arc<Core>,
    lan_events: LanEvents,
    incarnation: IncarnationStore,
}

impl MeshDriver {
    pub(super) fn new(core: Arc<Core>, lan_events: LanEvents, folder: Arc<StateFolder>, incarnation: u64) -> Self {
        Self { core, lan_events, incarnation: IncarnationStore::new(folder, incarnation) }
    }

    /// Takes part in the mesh until `stop`, until handlers have replied to what came over links, and until acknowledgements of what came last have
    /// passed; then says goodbye to the neighbours.
    ///
    /// # Panics
    /// When something panicked while it held the state.
    pub async fn run(mut self, stop: CancellationToken) {
        let started_at = self.core.with(|state| state.started_at());
        while let (Some(started_at), Some((due, incarnation))) =
            (started_at, self.core.with(|state| (state.tick(), state.incarnation())))
        {
            self.incarnation.store(incarnation);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(event) = self.lan_events.0.recv() => drop(self.core.with(|state| state.on_lan_event(event))),
                () = self.core.wake.notified() => {}
                () = sleep_until(started_at + due) => {}
            }
        }
        let mut looks = interval(AWAITED_EVERY);
        // Acknowledgements of what came before the stop only: a busy network would hold it up.
        let passing = self.core.with(|state| state.passes_until()).unwrap_or_default();
        let is_awaited = |state: &mut State| {
            state.tick();
            state.is_awaited(passing)
        };
        let finished = async {
            while self.core.with(is_awaited) == Some(true) {
                looks.tick().await;
            }
        };
        if timeout(AWAITED_TIMEOUT, finished).await.is_err() {
            tracing::debug!("some handlers did not reply in time");
        }
        let Some((incarnation, mut readers)) = self.core.with(|state| (state.incarnation(), state.leave())) else {
            resume_unwind(Box::new("the state of the mesh was left inconsistent by a panic"))
        };
        if timeout(LEAVE_TIMEOUT, async { while readers.join_next().await.is_some() {} }).await.is_err() {
            tracing::debug!("some links did not end in time");
        }
        self.incarnation.finish(incarnation).await;
    }
}

impl Drop for MeshDriver {
    fn drop(&mut self) {
        // A state that a panic left inconsistent can still be emptied. From here on every call fails because the peer has left.
        drop(self.core.state.lock().unwrap_or_else(PoisonError::into_inner).end());
        self.core.state.clear_poison();
    }
}
