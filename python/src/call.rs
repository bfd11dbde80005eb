//! Work that Python waits for.

use crate::{
    failure::Failure,
    runtime::{Process, Threads, threads},
};
use pyo3::{BoundObject as _, prelude::*};
use std::{
    future::Future,
    io::{Read as _, Write as _},
    os::{fd::AsRawFd as _, unix::net::UnixStream},
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::task::AbortHandle;

/// Longest wait of one slice, in seconds: whatever is asked for, signals are seen.
const SLICE_MAX: f64 = 1.0;

/// Makes the object for Python of a result.
type Convert = Box<dyn FnOnce(Python<'_>) -> PyResult<Py<PyAny>> + Send>;
type Outcome = Result<Convert, Failure>;
type Work = Pin<Box<dyn Future<Output = Outcome> + Send>>;

/// Work under way: [`Call::wait`] does it while it waits, or [`Call::start`] has it done. Dropped, it is cancelled.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct Call {
    state: Arc<Mutex<State>>,
    process: Process,
}

enum State {
    /// Nobody waits now. Its threads stay, since it may wait for a task there; `None`: they could not be started, which whoever waits hears.
    Idle(Work, Option<Threads>),
    Started(AbortHandle),
    Done(Outcome),
    /// Its result was taken, or it was cancelled.
    Gone,
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Call {
    /// Work, and how its result becomes an object.
    pub(crate) fn new<T: Send + 'static>(
        work: impl Future<Output = Result<T, Failure>> + Send + 'static,
        convert: impl FnOnce(Python<'_>, T) -> PyResult<Py<PyAny>> + Send + 'static,
    ) -> Self {
        let work: Work = Box::pin(async move {
            let result = work.await?;
            Ok(Box::new(move |py: Python<'_>| convert(py, result)) as Convert)
        });
        Self { state: Arc::new(Mutex::new(State::Idle(work, threads().ok()))), process: Process::current() }
    }

    /// Work whose result is an object as it is.
    pub(crate) fn of<T>(work: impl Future<Output = Result<T, Failure>> + Send + 'static) -> Self
    where
        T: for<'py> IntoPyObject<'py> + Send + 'static,
    {
        Self::new(work, |py, result| Ok(result.into_pyobject(py).map_err(Into::into)?.into_any().unbind()))
    }
}

#[pymethods]
impl Call {
    /// Works at most so many seconds. Returns whether it is done.
    fn wait(&self, py: Python<'_>, seconds: f64) -> PyResult<bool> {
        self.process.check()?;
        let limit = Duration::from_secs_f64(seconds.clamp(0.0, SLICE_MAX));
        let done = py.detach(|| {
            let mut state = lock(&self.state);
            if let State::Idle(work, kept) = &mut *state {
                let threads = kept.clone().map_or_else(threads, Ok)?;
                // Work that takes no time is done also by a wait of 0 seconds.
                let worked = threads.block_on(async {
                    tokio::select! {
                        biased;
                        outcome = work => Some(outcome),
                        () = tokio::time::sleep(limit) => None,
                    }
                });
                if let Some(outcome) = worked {
                    *state = State::Done(outcome);
                }
            }
            Ok::<_, Failure>(!matches!(*state, State::Idle(..) | State::Started(_)))
        });
        Ok(done?)
    }

    /// Has it done in the background. `mailbox` gets `number` when it is done.
    fn start(&self, mailbox: &Mailbox, number: u64) -> PyResult<()> {
        self.process.check()?;
        let mut state = lock(&self.state);
        let (work, threads) = match std::mem::replace(&mut *state, State::Gone) {
            State::Idle(work, kept) => (work, kept.map_or_else(threads, Ok)?),
            other => {
                *state = other;
                mailbox.shared.post(number);
                return Ok(());
            }
        };
        let (kept, mailbox) = (Arc::clone(&self.state), Arc::clone(&mailbox.shared));
        let used = threads.clone();
        let task = threads.spawn(async move {
            // Also of work that panics.
            let told = Told(mailbox, number);
            let outcome = work.await;
            let mut state = lock(&kept);
            if matches!(*state, State::Started(_)) {
                *state = State::Done(outcome);
            }
            drop(state);
            drop(told);
            drop(used);
        });
        // Taken by the task only after this lock is released.
        *state = State::Started(task.abort_handle());
        Ok(())
    }

    /// The result, once.
    fn result(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.process.check()?;
        let state = std::mem::replace(&mut *lock(&self.state), State::Gone);
        match state {
            State::Done(outcome) => outcome?(py),
            State::Started(task) => {
                task.abort();
                Err(Failure::error("the call failed: a bug of this library".to_owned()).into())
            }
            State::Idle(..) | State::Gone => Err(Failure::closed("the call was cancelled".to_owned()).into()),
        }
    }

    /// Ends it. Returns whether it had no result yet.
    fn cancel(&self, py: Python<'_>) -> bool {
        if !self.process.is_current() {
            return false;
        }
        py.detach(|| {
            let state = std::mem::replace(&mut *lock(&self.state), State::Gone);
            match state {
                State::Idle(..) => true,
                State::Started(task) => {
                    task.abort();
                    true
                }
                State::Done(outcome) => {
                    *lock(&self.state) = State::Done(outcome);
                    false
                }
                State::Gone => false,
            }
        })
    }
}

impl Drop for Call {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // Locks that a thread of the parent process held stay locked in this one.
            self.process.leak_elsewhere(&self.state);
        } else if let State::Started(task) = std::mem::replace(&mut *lock(&self.state), State::Gone) {
            task.abort();
        }
    }
}

/// Tells that a call is done, however it ended.
struct Told(Arc<Letters>, u64);

impl Drop for Told {
    fn drop(&mut self) {
        self.0.post(self.1);
    }
}

/// Tells an event loop which calls are done: its file descriptor becomes readable.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct Mailbox {
    shared: Arc<Letters>,
    reader: UnixStream,
}

struct Letters {
    done: Mutex<Vec<u64>>,
    writer: UnixStream,
}

impl Letters {
    fn post(&self, number: u64) {
        let mut done = self.done.lock().unwrap_or_else(PoisonError::into_inner);
        done.push(number);
        if done.len() == 1 {
            // A full socket is readable, too; a closed one has no reader.
            let _ = (&self.writer).write(&[1]);
        }
    }
}

#[pymethods]
impl Mailbox {
    #[new]
    fn new() -> PyResult<Self> {
        let (reader, writer) = UnixStream::pair()?;
        reader.set_nonblocking(true)?;
        writer.set_nonblocking(true)?;
        Ok(Self { shared: Arc::new(Letters { done: Mutex::default(), writer }), reader })
    }

    /// The file descriptor.
    fn fileno(&self) -> i32 {
        self.reader.as_raw_fd()
    }

    /// The calls that are done since the last time.
    fn take(&self) -> Vec<u64> {
        let mut read = [0; 64];
        while (&self.reader).read(&mut read).is_ok_and(|got| got == read.len()) {}
        std::mem::take(&mut *self.shared.done.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
