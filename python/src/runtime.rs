//! The threads that all peers of this process share, for as long as something uses them.

use crate::failure::Failure;
use std::{
    ops::Deref,
    process,
    sync::{Arc, Mutex, PoisonError, Weak},
};
use tokio::runtime::{Builder, Handle, Runtime};

/// Most threads: a notebook shares the machine with what it computes.
const THREADS_MAX: usize = 4;

/// The runtime, if something uses it.
static RUNTIME: Mutex<Weak<Shared>> = Mutex::new(Weak::new());

/// Keeps the threads, and gives work to them. They end when the last of these is dropped: those of what is open, and of calls under way.
#[derive(Clone)]
pub(crate) struct Threads(Arc<Shared>);

struct Shared {
    handle: Handle,
    /// `None` once it ends.
    runtime: Option<Runtime>,
    process: Process,
}

impl Deref for Threads {
    type Target = Handle;

    fn deref(&self) -> &Handle {
        &self.0.handle
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else { return };
        if self.process.is_current() {
            // Waits for nothing: the last one may be dropped by one of its own threads, or by one that holds the GIL.
            runtime.shutdown_background();
        } else {
            // The one of the parent process cannot be ended here: its threads are not in this process.
            std::mem::forget(runtime);
        }
    }
}

/// The threads of this process. Blocks for the time that starting them takes, if nothing uses them.
pub(crate) fn threads() -> Result<Threads, Failure> {
    let mut kept = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    // After a fork the child has none of the threads, and makes its own.
    if let Some(shared) = kept.upgrade()
        && shared.process.is_current()
    {
        return Ok(Threads(shared));
    }
    let threads = std::thread::available_parallelism().map_or(1, usize::from).min(THREADS_MAX);
    let built = Builder::new_multi_thread().worker_threads(threads).thread_name("p2pdi").enable_all().build();
    let runtime = built.map_err(|error| Failure::os(format!("cannot start threads: {error}"), &error))?;
    let (handle, process) = (runtime.handle().clone(), Process::current());
    let shared = Arc::new(Shared { handle, runtime: Some(runtime), process });
    *kept = Arc::downgrade(&shared);
    Ok(Threads(shared))
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
