//! The threads that all peers of this process share.

use crate::failure::Failure;
use std::{
    process,
    sync::{Mutex, PoisonError},
};
use tokio::runtime::{Builder, Handle, Runtime};

/// Most threads: a notebook shares the machine with what it computes.
const THREADS_MAX: usize = 4;

/// The runtime, and the process that it was made in. After a fork the child has none of its threads, and makes its own.
static RUNTIME: Mutex<Option<(u32, Runtime)>> = Mutex::new(None);

/// The runtime of this process. Blocks for the time that starting its threads takes, the first time.
pub(crate) fn runtime() -> Result<Handle, Failure> {
    let mut kept = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let process = process::id();
    if let Some((of, runtime)) = &*kept
        && *of == process
    {
        return Ok(runtime.handle().clone());
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let built = Builder::new_multi_thread().worker_threads(threads).thread_name("p2pdi").enable_all().build();
    let runtime = built.map_err(|error| Failure::os(format!("cannot start threads: {error}"), &error))?;
    let handle = runtime.handle().clone();
    // The one of the parent process cannot be ended here: its threads are not in this process.
    if let Some((_, inherited)) = kept.replace((process, runtime)) {
        std::mem::forget(inherited);
    }
    Ok(handle)
}

/// Something that works in the process that it was made in only.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Process(u32);

impl Process {
    pub(crate) fn current() -> Self {
        Self(process::id())
    }

    pub(crate) fn is_current(self) -> bool {
        self.0 == process::id()
    }

    /// In a process that was forked, never destroys what `shared` is a clone of: threads that are not there may hold its locks.
    pub(crate) fn leak_elsewhere<T: Clone>(self, shared: &T) {
        if !self.is_current() {
            std::mem::forget(shared.clone());
        }
    }

    /// # Errors
    /// In a process that was forked from the one it was made in.
    pub(crate) fn check(self) -> Result<(), Failure> {
        if self.is_current() {
            return Ok(());
        }
        Err(Failure::closed(format!(
            "this was made in process {}, and this one was forked from it: the threads of the network are not here; make a new one after the fork, or \
             start processes with multiprocessing's \"spawn\"",
            self.0
        )))
    }
}
