//! The messages of one kind, for a handler in Python.

use crate::{call::Call, failure::Failure, results::Message, runtime::Process};
use bytes::Bytes;
use peerd::{
    PeerHandle, Reply,
    inbox::{Batches, ReplySlot, ToHandle},
};
use pyo3::{prelude::*, pybacked::PyBackedBytes};
use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tokio::sync::Mutex as AsyncMutex;

/// Messages of one kind, in order.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct Handler {
    batches: Arc<AsyncMutex<Batches>>,
    /// Messages of the peer that were dropped before the turn of any handler.
    lost: Arc<AtomicU64>,
    process: Process,
}

/// Takes the answer to one whisper.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct Replier {
    slot: Mutex<Option<ReplySlot>>,
    process: Process,
}

impl Handler {
    /// Handles the messages of this kind from now on.
    pub(crate) fn new(peer: &PeerHandle, kind: &str, lost: Arc<AtomicU64>) -> Result<Self, Failure> {
        let batches = peer.batches(kind)?;
        Ok(Self { batches: Arc::new(AsyncMutex::new(batches)), lost, process: Process::current() })
    }
}

#[pymethods]
impl Handler {
    /// The next messages, at least one and at most `most`, each with what takes its answer if its sender waits for one; none once the peer stops.
    fn next(&self, most: usize) -> PyResult<Call> {
        self.process.check()?;
        let (batches, lost) = (Arc::clone(&self.batches), Arc::clone(&self.lost));
        let work = async move {
            let batch = batches.lock().await.next(most).await;
            Ok(batch.map_or_else(Vec::new, |(batch, dropped)| {
                lost.fetch_add(dropped, Ordering::Relaxed);
                batch
            }))
        };
        let process = self.process;
        let pair = move |ToHandle { message, reply }: ToHandle| {
            let replier = reply.map(|slot| Replier { slot: Mutex::new(Some(slot)), process });
            (Message::from(message), replier)
        };
        Ok(Call::new(work, move |py, batch: Vec<ToHandle>| {
            let pairs: Vec<_> = batch.into_iter().map(pair).collect();
            Ok(pairs.into_pyobject(py)?.unbind())
        }))
    }
}

#[pymethods]
impl Replier {
    /// Answers, once. An empty kind: no reply. One that cannot be sent is refused, and another one can be sent.
    fn send(&self, kind: String, body: PyBackedBytes) -> PyResult<()> {
        self.process.check()?;
        let reply = Reply { kind, body: Bytes::from_owner(body) };
        reply.validate().map_err(Failure::from)?;
        let slot = self.slot.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(slot) = slot {
            slot.send(reply);
        }
        Ok(())
    }
}

impl Drop for Replier {
    fn drop(&mut self) {
        if !self.process.is_current() {
            // It would wake a task of the parent process, with locks that may be held there.
            std::mem::forget(self.slot.get_mut().unwrap_or_else(PoisonError::into_inner).take());
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.process.leak_elsewhere(&self.batches);
    }
}
