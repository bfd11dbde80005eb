//! The messages of one kind, for a handler in Python.

use crate::{call::Call, failure::Failure, results::Message, runtime::Process};
use peerd::{PeerHandle, Reply, inbox};
use pyo3::prelude::*;
use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::{Mutex as AsyncMutex, mpsc, oneshot};

/// Most messages to all that wait here for the handler, beside those in the peer's inbox: so many are handed over at once.
const WAITING_MAX: usize = 64;

/// Messages of one kind, in order. Of whispers the next one comes once the one before is answered.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct Handler {
    messages: Arc<AsyncMutex<mpsc::Receiver<Handled>>>,
    process: Process,
}

/// A message to be handled.
#[pyclass(frozen, module = "p2pdi._p2pdi")]
pub(crate) struct Handled {
    message: Message,
    reply: Mutex<Option<oneshot::Sender<Reply>>>,
}

impl Handler {
    /// Handles the messages of this kind from now on.
    pub(crate) fn new(peer: &PeerHandle, kind: &str) -> Result<Self, Failure> {
        let (sender, receiver) = mpsc::channel(WAITING_MAX);
        peer.on(kind, move |message| handle(sender.clone(), message))?;
        Ok(Self { messages: Arc::new(AsyncMutex::new(receiver)), process: Process::current() })
    }
}

/// Hands a message over, and waits for the reply to it.
async fn handle(to: mpsc::Sender<Handled>, message: inbox::Message) -> Option<Reply> {
    // There is no reply to a message to all: the next one need not wait.
    let (sender, reply) = if message.broadcast { (None, None) } else { Some(oneshot::channel()).unzip() };
    let handled = Handled { message: message.into(), reply: Mutex::new(sender) };
    to.send(handled).await.ok()?;
    reply?.await.ok()
}

#[pymethods]
impl Handler {
    /// The next messages, at most `most`; none once the peer has stopped.
    fn next(&self, most: usize) -> PyResult<Call> {
        self.process.check()?;
        let messages = Arc::clone(&self.messages);
        Ok(Call::of(async move {
            let mut handled = Vec::new();
            messages.lock().await.recv_many(&mut handled, most).await;
            Ok(handled)
        }))
    }
}

#[pymethods]
impl Handled {
    #[getter]
    fn message(&self) -> Message {
        self.message.clone()
    }

    /// Whether the sender waits for a reply.
    #[getter]
    fn is_whisper(&self) -> bool {
        !self.message.is_broadcast()
    }

    /// Answers the sender, once. An empty kind: no reply.
    fn answer(&self, kind: String, body: &[u8]) {
        let sender = self.reply.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(sender) = sender {
            // The sender may have stopped waiting.
            let _ = sender.send(Reply::new(kind, body));
        }
    }
}

impl Drop for Handler {
    fn drop(&mut self) {
        self.process.leak_elsewhere(&self.messages);
    }
}
