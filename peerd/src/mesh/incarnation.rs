//! Stores this peer's incarnation when it is raised above a forged one.

use crate::identity::StateFolder;
use std::{sync::Arc, time::Duration};
use tokio::{
    task::{JoinHandle, spawn_blocking},
    time::Instant,
};

/// Pause between two writes, however often others make the incarnation go up.
const WRITE_INTERVAL: Duration = Duration::from_secs(1);

/// Writes the incarnation to the state folder.
pub(super) struct IncarnationStore {
    folder: Arc<StateFolder>,
    /// The incarnation last written, or being written.
    stored: u64,
    writing: Option<JoinHandle<()>>,
    not_before: Option<Instant>,
}

impl IncarnationStore {
    /// `stored` is in `folder` already.
    pub(super) fn new(folder: Arc<StateFolder>, stored: u64) -> Self {
        Self { folder, stored, writing: None, not_before: None }
    }

    /// Starts to write `incarnation`, unless it is stored, a write is in progress, or the last one was just now. The driver calls again
    /// within seconds.
    pub(super) fn store(&mut self, incarnation: u64) {
        let is_writing = self.writing.as_ref().is_some_and(|writing| !writing.is_finished());
        let now = Instant::now();
        if incarnation > self.stored && !is_writing && self.not_before.is_none_or(|at| at <= now) {
            self.stored = incarnation;
            self.not_before = Some(now + WRITE_INTERVAL);
            let folder = Arc::clone(&self.folder);
            self.writing = Some(spawn_blocking(move || {
                if let Err(error) = folder.keep_incarnation(incarnation) {
                    tracing::warn!(%error, "cannot store the incarnation; after a restart, other peers may drop this peer's broadcasts as old");
                }
            }));
        }
    }

    /// Writes the last incarnation, and waits until it is stored.
    pub(super) async fn finish(&mut self, incarnation: u64) {
        for _ in 0..2 {
            if let Some(writing) = self.writing.take() {
                // The runtime reports a panic in it.
                let _ = writing.await;
            }
            self.not_before = None;
            self.store(incarnation);
        }
    }
}
