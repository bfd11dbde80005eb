//! The lock around the state of the mesh, and the task that looks at it when time has passed.
//!
//! Whoever brings something (a link's reader, a call) takes the lock and sees it through at once: a message that would be handed to a task of
//! its own instead would wait for that task at each peer it passes, which is most of what a whisper costs. Nothing waits inside the lock.

use super::state::{Input, State};
use crate::{discovery::Sights, identity::StateFolder};
use std::{
    panic::resume_unwind,
    sync::{Arc, Mutex, MutexGuard, Weak},
    time::Duration,
};
use tokio::{
    sync::Notify,
    task::spawn_blocking,
    time::{sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long goodbyes may take to get out.
const LEAVE_TIMEOUT: Duration = Duration::from_secs(2);

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

    fn lock(&self) -> MutexGuard<'_, State> {
        // What a panic left half done is not to be worked with: it is handed on, to the driver as well, and ends the peer.
        self.state.lock().unwrap_or_else(|_| resume_unwind(Box::new("the state of the mesh was left half changed")))
    }

    /// Does something with the state, unless this peer has left the mesh.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> Option<T> {
        let mut state = self.lock();
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

/// Runs one peer's part of the mesh. Dropped, the peer is gone without a goodbye.
pub struct MeshDriver {
    core: Arc<Core>,
    sights: Sights,
    folder: Arc<StateFolder>,
    /// The number of this life that the folder has.
    kept_life: u64,
}

impl MeshDriver {
    pub(super) fn new(core: Arc<Core>, sights: Sights, folder: Arc<StateFolder>, kept_life: u64) -> Self {
        Self { core, sights, folder, kept_life }
    }

    /// Keeps what number this life has come to: it goes up when others were told a higher one.
    fn keep_life(&mut self) {
        let Some(life) = self.core.with(|state| state.life()).filter(|life| *life > self.kept_life) else { return };
        self.kept_life = life;
        let folder = Arc::clone(&self.folder);
        // Not waited for: it is late anyway, and what it prevents is rare.
        drop(spawn_blocking(move || {
            if let Err(error) = folder.keep_life(life) {
                tracing::warn!(%error, "the number of this life is not kept; after a restart broadcasts may count as old for a while");
            }
        }));
    }

    /// Takes part in the mesh until `stop`, then says goodbye.
    pub async fn run(mut self, stop: CancellationToken) {
        let begun = self.core.lock().begun();
        while let Some(due) = self.core.with(State::look) {
            self.keep_life();
            tokio::select! {
                () = stop.cancelled() => break,
                Some(sight) = self.sights.0.recv() => drop(self.core.with(|state| state.on_sight(sight))),
                () = self.core.sooner.notified() => {}
                () = sleep_until(begun + due) => {}
            }
        }
        let mut tasks = self.core.lock().leave();
        if timeout(LEAVE_TIMEOUT, async { while tasks.join_next().await.is_some() {} }).await.is_err() {
            tracing::debug!("some links did not end in time");
        }
    }
}

impl Drop for MeshDriver {
    fn drop(&mut self) {
        // After a panic there is nothing to tidy.
        if let Ok(mut state) = self.core.state.lock() {
            state.end();
            // Tasks end with it.
            drop(state.take_tasks());
        }
    }
}
