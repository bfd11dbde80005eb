//! Many messages to named peers over one call, `Peer.Whispers`.
//!
//! A call for each message costs both sides several times what the message itself does. Here messages share a stream, and those that wait at
//! the same time share its frames.

use crate::{
    channel::Channel,
    status::Reason,
    v1::{
        WhisperRequest, WhisperResponse, WhispersRequest, WhispersResponse,
        peer_client::PeerClient,
        whispers_response::Result::{Delivered, Failure},
    },
};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::task::AbortOnDropHandle;
use tonic::{Code, Status, Streaming};

/// Messages that wait to be written; with more, [`WhisperStream::send`] waits. As many as the peer leaves unanswered.
const QUEUED_MAX: usize = 256;

type Answer = Result<WhisperResponse, Status>;

/// A stream of messages to one peer, which passes them on. Shared by any number of tasks; it ends when it is dropped.
#[derive(Debug)]
pub struct WhisperStream {
    requests: mpsc::Sender<WhispersRequest>,
    unanswered: Arc<Mutex<Unanswered>>,
    _reader: AbortOnDropHandle<()>,
}

/// The messages without an answer.
#[derive(Debug, Default)]
struct Unanswered {
    last_id: u64,
    waiting: HashMap<u64, oneshot::Sender<Answer>>,
    /// Why the stream has ended.
    ended: Option<Status>,
}

impl WhisperStream {
    /// Opens a stream.
    ///
    /// # Errors
    /// When the peer cannot be reached, or takes no stream: one of an earlier version answers `UNIMPLEMENTED`.
    pub async fn open(mut peer: PeerClient<Channel>) -> Result<Self, Status> {
        let (requests, queued) = mpsc::channel(QUEUED_MAX);
        let answers = peer.whispers(ReceiverStream::new(queued)).await?.into_inner();
        let unanswered = Arc::<Mutex<Unanswered>>::default();
        let reader = AbortOnDropHandle::new(tokio::spawn(read(answers, Arc::clone(&unanswered))));
        Ok(Self { requests, unanswered, _reader: reader })
    }

    /// Sends a message, and waits for its answer. Dropped before, the message is sent all the same, or was.
    ///
    /// # Errors
    /// Those of `Peer.Whisper` for this message; for all messages without an answer the error that ends the stream.
    pub async fn send(&self, whisper: WhisperRequest) -> Result<WhisperResponse, Status> {
        let (id, answer) = lock(&self.unanswered).add()?;
        let _forget = Forget { unanswered: &self.unanswered, id };
        // Fails if the stream has ended, and then the answer says so, too.
        let _sent = self.requests.send(WhispersRequest { id, whisper: Some(whisper) }).await;
        answer.await.unwrap_or_else(|_| Err(ended()))
    }
}

impl Unanswered {
    fn add(&mut self) -> Result<(u64, oneshot::Receiver<Answer>), Status> {
        if let Some(ended) = &self.ended {
            return Err(ended.clone());
        }
        let (sender, answer) = oneshot::channel();
        self.last_id += 1;
        self.waiting.insert(self.last_id, sender);
        Ok((self.last_id, answer))
    }

    fn end(&mut self, status: &Status) {
        self.ended = Some(status.clone());
        for (_, waiting) in self.waiting.drain() {
            // Nobody waits any more: fine.
            let _nobody = waiting.send(Err(status.clone()));
        }
    }
}

/// A message that nobody waits for any more.
struct Forget<'a> {
    unanswered: &'a Mutex<Unanswered>,
    id: u64,
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        lock(self.unanswered).waiting.remove(&self.id);
    }
}

fn lock(unanswered: &Mutex<Unanswered>) -> MutexGuard<'_, Unanswered> {
    unanswered.lock().unwrap_or_else(PoisonError::into_inner)
}

fn ended() -> Status {
    Reason::ShuttingDown.status("the peer ended the stream of messages before this one was answered; it may have been delivered")
}

/// Hands out the answers until the stream ends.
async fn read(mut answers: Streaming<WhispersResponse>, unanswered: Arc<Mutex<Unanswered>>) {
    let status = loop {
        let WhispersResponse { id, result } = match answers.message().await {
            Ok(Some(answer)) => answer,
            Ok(None) => break ended(),
            Err(status) => break status,
        };
        let answer = match result {
            Some(Delivered(delivered)) => Ok(delivered),
            Some(Failure(failure)) => Err(failure.into()),
            None => Err(Status::new(Code::Internal, "the peer answers with neither a delivery nor a failure")),
        };
        if let Some(waiting) = lock(&unanswered).waiting.remove(&id) {
            let _nobody = waiting.send(answer);
        }
    };
    lock(&unanswered).end(&status);
}
