//! The messages of a peer, for Python to read.

use crate::{call::Call, failure::Failure, results::Message, runtime::Process};
use peerd::Messages;
use pyo3::prelude::*;
use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync;
use tokio_util::sync::CancellationToken;

/// Messages received from its making on, in order. What the peer's own queue drops before they are read is counted.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct Inbox {
    shared: Arc<Shared>,
    process: Process,
}

struct Shared {
    messages: sync::Mutex<Messages>,
    /// Ends whoever waits for one.
    closed: CancellationToken,
    /// Read for somebody who did not wait for it.
    returned: Mutex<VecDeque<(Message, u64)>>,
}

impl Shared {
    fn returned(&self) -> std::sync::MutexGuard<'_, VecDeque<(Message, u64)>> {
        self.returned.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A message on its way to Python. It is read again by the next reader if nobody takes it.
struct OnItsWay {
    message: Option<(Message, u64)>,
    from: Arc<Shared>,
}

impl Drop for OnItsWay {
    fn drop(&mut self) {
        if let Some(message) = self.message.take() {
            self.from.returned().push_front(message);
        }
    }
}

impl Inbox {
    pub(crate) fn new(messages: Messages) -> Self {
        let shared =
            Shared { messages: sync::Mutex::new(messages), closed: CancellationToken::new(), returned: Mutex::default() };
        Self { shared: Arc::new(shared), process: Process::current() }
    }
}

#[pymethods]
impl Inbox {
    /// The next message, with the number of messages that were dropped before it.
    fn next(&self) -> PyResult<Call> {
        self.process.check()?;
        let from = Arc::clone(&self.shared);
        let closed = from.closed.clone();
        let next = async move {
            let mut messages = from.messages.lock().await;
            let returned = from.returned().pop_front();
            let message = match returned {
                Some(message) => message,
                None => match messages.next().await {
                    Some((message, lost)) => (message.into(), lost),
                    None => return Err(Failure::closed("the peer has stopped; build another one".to_owned())),
                },
            };
            drop(messages);
            Ok(OnItsWay { message: Some(message), from })
        };
        let work = async move {
            tokio::select! {
                biased;
                () = closed.cancelled() => Err(Failure::closed("these messages were closed".to_owned())),
                next = next => next,
            }
        };
        Ok(Call::new(work, |py, mut on_its_way| {
            let message = on_its_way.message.take();
            Ok(message.into_pyobject(py)?.into_any().unbind())
        }))
    }

    /// Ends it, and whoever waits for a message.
    fn close(&self) {
        if self.process.is_current() {
            self.shared.closed.cancel();
        }
    }

    /// Reads all kinds of messages from now on.
    fn widen(&self) -> PyResult<Call> {
        self.process.check()?;
        let shared = Arc::clone(&self.shared);
        Ok(Call::of(async move {
            shared.messages.lock().await.widen();
            Ok(())
        }))
    }
}

impl Drop for Inbox {
    fn drop(&mut self) {
        self.process.leak_elsewhere(&self.shared);
    }
}
