//! The lock around the state of the mesh, and the task that looks at it when time has passed.
//!
//! Whoever brings something (a link's reader, a call) takes the lock and sees it through at once: a message that would be handed to a task of
//! its own instead would wait for that task at each peer it passes, which is much of what a whisper costs. Nothing is awaited inside the lock.

use super::state::{Input, State};
use crate::{discovery::LanEvents, identity::StateFolder};
use std::{
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::panicking,
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::{JoinHandle, spawn_blocking},
    time::{Instant, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long goodbyes may take to get out.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);
/// Pause between two writes of this life's number, however often others make it go up.
const KEEP_LIFE_EVERY: Duration = Duration::from_secs(1);

/// The state, behind its lock.
pub(super) struct Core {
    state: Mutex<State>,
    /// Something is due sooner than the driver knows.
    sooner: Notify,
}

impl Core {
    pub(super) fn new(state: impl FnOnce(Weak<Self>) -> State) -> Arc<Self> {
        Arc::new_cyclic(|core| Self { state: Mutex::new(state(core.clone())), sooner: Notify::new() })
    }

    /// Does something with the state, unless this peer has left the mesh. What a panic left half done is not worked with either: the
    /// driver hears of it and ends the peer.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        let _alarm = Alarm(&self.sooner);
        let mut state = self.state.lock().ok()?;
        if state.has_left() {
            return None;
        }
        let done = act(&mut state);
        let sooner = state.settle();
        drop(state);
        if sooner {
            self.sooner.notify_one();
        }
        Some(done)
    }

    /// Says what a task came to, if anybody still wants to know.
    pub(super) fn tell(core: &Weak<Self>, input: Input) {
        if let Some(core) = core.upgrade() {
            core.with(|state| state.on_input(input));
        }
    }
}

/// Wakes the driver when whoever has the lock panics.
struct Alarm<'a>(&'a Notify);

impl Drop for Alarm<'_> {
    fn drop(&mut self) {
        if panicking() {
            self.0.notify_one();
        }
    }
}

/// Runs one peer's part of the mesh. Dropped, the peer is gone without a goodbye.
pub struct MeshDriver {
    core: Arc<Core>,
    sights: LanEvents,
    life: IncarnationKeeper,
}

impl MeshDriver {
    pub(super) fn new(core: Arc<Core>, sights: LanEvents, folder: Arc<StateFolder>, kept: u64) -> Self {
        Self { core, sights, life: IncarnationKeeper { folder, kept, writing: None, not_before: None } }
    }

    /// Takes part in the mesh until `stop`, then says goodbye.
    pub async fn run(mut self, stop: CancellationToken) {
        let begun = self.core.with(|state| state.begun());
        while let (Some(begun), Some((due, life))) = (begun, self.core.with(|state| (state.look(), state.life()))) {
            self.life.keep(life);
            tokio::select! {
                () = stop.cancelled() => break,
                Some(sight) = self.sights.0.recv() => drop(self.core.with(|state| state.on_sight(sight))),
                () = self.core.sooner.notified() => {}
                () = sleep_until(begun + due) => {}
            }
        }
        let Some((life, mut readers)) = self.core.with(|state| (state.life(), state.leave())) else {
            resume_unwind(Box::new("what the mesh was doing panicked"))
        };
        if timeout(LEAVE_TIMEOUT, async { while readers.join_next().await.is_some() {} }).await.is_err() {
            tracing::debug!("some links did not end in time");
        }
        self.life.keep_last(life).await;
    }
}

impl Drop for MeshDriver {
    fn drop(&mut self) {
        // To take all out of it, what a panic left is good enough. From here on everybody is told that the peer has left.
        drop(self.core.state.lock().unwrap_or_else(PoisonError::into_inner).end());
        self.core.state.clear_poison();
    }
}

/// The number of this peer's life, and the folder that keeps it. It goes up when others were told a higher one.
struct IncarnationKeeper {
    folder: Arc<StateFolder>,
    kept: u64,
    writing: Option<JoinHandle<()>>,
    not_before: Option<Instant>,
}

impl IncarnationKeeper {
    /// Sees to it that `life` is kept, soon.
    fn keep(&mut self, life: u64) {
        let busy = self.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        let now = Instant::now();
        // The driver looks again within seconds.
        if life > self.kept && !busy && self.not_before.is_none_or(|at| at <= now) {
            self.kept = life;
            self.not_before = Some(now + KEEP_LIFE_EVERY);
            let folder = Arc::clone(&self.folder);
            self.writing = Some(spawn_blocking(move || {
                if let Err(error) = folder.keep_incarnation(life) {
                    tracing::warn!(%error, "the number of this life is not kept; after a restart its broadcasts may count as old");
                }
            }));
        }
    }

    /// The last word, and waits until it is kept.
    async fn keep_last(&mut self, life: u64) {
        for _ in 0..2 {
            if let Some(writing) = self.writing.take() {
                // A panic in it was reported where it happened.
                let _ = writing.await;
            }
            self.not_before = None;
            self.keep(life);
        }
    }
}
