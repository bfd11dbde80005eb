//! A thread of its own for what is said to etcd: renewals of this replica's lease must not wait for calls of peers.

use crate::store::StoreError;
use std::{future::Future, sync::mpsc};
use tokio::runtime::{Builder, Handle, Runtime};

/// A runtime that may be dropped anywhere.
pub(super) struct IoThread(Option<Runtime>);

impl IoThread {
    pub(super) fn start() -> Result<Self, StoreError> {
        let runtime = Builder::new_multi_thread().worker_threads(1).thread_name("registry-etcd").enable_all().build();
        let failed = |error: std::io::Error| StoreError::Failed { doing: "start a thread", problem: error.to_string() };
        runtime.map(Some).map(Self).map_err(failed)
    }

    /// The way to start tasks on it.
    pub(super) fn handle(&self) -> Option<&Handle> {
        self.0.as_ref().map(Runtime::handle)
    }

    /// Runs `work` there while the calling thread waits, whatever thread that is.
    ///
    /// # Errors
    /// When `work` panicked.
    pub(super) fn wait<T: Send + 'static>(&self, work: impl Future<Output = T> + Send + 'static) -> Result<T, StoreError> {
        let (done, outcome) = mpsc::sync_channel(1);
        if let Some(handle) = self.handle() {
            handle.spawn(async move {
                let _gone = done.send(work.await);
            });
        }
        outcome.recv().map_err(|_| StoreError::Failed { doing: "use etcd", problem: "its task ended".into() })
    }
}

impl Drop for IoThread {
    fn drop(&mut self) {
        if let Some(runtime) = self.0.take() {
            runtime.shutdown_background();
        }
    }
}
