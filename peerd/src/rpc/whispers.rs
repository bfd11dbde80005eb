//! Messages to named peers: one for a call, or many over one stream.

use super::services::Services;
use crate::messages::Sender;
use futures_util::stream::{FuturesUnordered, StreamExt as _};
use p2pdi::{
    field::InvalidField,
    server::{Admitted, CallClass, Caller, RequestMemory},
    v1::{WhisperRequest, WhisperResponse, WhispersRequest, WhispersResponse, whispers_response},
};
use prost::Message as _;
use std::{pin::pin, sync::Arc};
use tokio_stream::Stream;
use tonic::{Status, Streaming};

/// Unanswered messages of one stream, as the contract says: as many as one stranger may have under way by calls.
const UNANSWERED_MAX: usize = 256;
/// Their bytes together, as the contract says, or one message: four of the longest. What is not read yet waits at its sender, where one that does not fit
/// into this server's memory would fail.
const UNANSWERED_BYTES_MAX: usize = 1024 * 1024;

impl Services {
    /// Delivers a message of `caller`, whose right to send it is checked.
    pub(super) async fn whisper(&self, caller: Option<&Caller>, mut request: WhisperRequest) -> Result<WhisperResponse, Status> {
        if let Some(signatures) = self.mesh.signatures() {
            let identity = caller.and_then(Caller::identity).map(|identity| &**identity);
            let may_control = self.check_control(caller).is_ok();
            Sender { identity, may_control }.check(&mut request, self.me.name(), signatures)?;
        }
        self.router.deliver(request).await
    }
}

/// A stream of messages, and whose it is.
pub(super) struct Whispers {
    services: Arc<Services>,
    caller: Option<Caller>,
    /// `None`: the caller is in this process, as for the next field.
    admitted: Option<Admitted>,
    memory: Option<RequestMemory>,
}

impl Whispers {
    pub(super) fn new(services: Arc<Services>, extensions: &tonic::Extensions) -> Self {
        let caller = Caller::of(extensions).cloned();
        Self { services, caller, admitted: Admitted::of(extensions).cloned(), memory: RequestMemory::of(extensions).cloned() }
    }

    /// The answers to `requests`, each as soon as it is known.
    pub(super) fn answer(self, mut requests: Streaming<WhispersRequest>) -> impl Stream<Item = Result<WhispersResponse, Status>> {
        async_stream::stream! {
            let mut unanswered = FuturesUnordered::new();
            let mut stopped = pin!(self.services.stop.cancelled());
            let (mut reads, mut bytes) = (true, 0);
            loop {
                let has_room = unanswered.len() < UNANSWERED_MAX && bytes < UNANSWERED_BYTES_MAX;
                tokio::select! {
                    biased;
                    Some((answer, length)) = unanswered.next() => {
                        bytes -= length;
                        yield Ok(answer);
                    }
                    request = requests.message(), if reads && has_room => match request {
                        Ok(Some(request)) => {
                            let length = request.encoded_len();
                            bytes += length;
                            let answer = self.answer_one(request, length);
                            unanswered.push(async move { (answer.await, length) });
                        }
                        Ok(None) => reads = false,
                        Err(status) => {
                            yield Err(status);
                            return;
                        }
                    },
                    () = &mut stopped, if reads => reads = false,
                    else => return,
                }
            }
        }
    }

    /// `length`: of the request, in bytes.
    async fn answer_one(&self, request: WhispersRequest, length: usize) -> WhispersResponse {
        use whispers_response::Result::{Delivered, Failure};
        let id = request.id;
        let result = match self.deliver(request, length).await {
            Ok(delivered) => Delivered(delivered),
            Err(status) => Failure((&status).into()),
        };
        WhispersResponse { id, result: Some(result) }
    }

    /// Each message is limited as a call would be.
    async fn deliver(&self, request: WhispersRequest, length: usize) -> Result<WhisperResponse, Status> {
        let whisper = request.whisper.ok_or_else(|| InvalidField::new("whisper", "the message is missing"))?;
        let _counted = self.admitted.as_ref().map(|admitted| admitted.begin(CallClass::Whisper)).transpose()?;
        let _held = self.memory.as_ref().map(|memory| memory.hold(length)).transpose()?;
        self.services.whisper(self.caller.as_ref(), whisper).await
    }
}
