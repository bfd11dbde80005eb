//! One message to one named peer: this one, or one that can be dialled directly.

use super::{
    inbox::{Inbox, Message},
    kind::MessageKind,
};
use crate::{dial::Dialer, identity::Identity, session::Session};
use bytes::Bytes;
use p2pdi::{
    field::{InvalidField, Shown},
    name::{NAME_MAX_BYTES, PeerName},
    status::Reason,
    v1::{WhisperRequest, WhisperResponse},
};
use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};
use tokio::time::timeout;
use tonic::Status;

/// Longest body, in bytes: larger things are documents.
pub const BODY_MAX_BYTES: usize = 256 * 1024;
/// How long a directly dialled receiver may take.
const DELIVERY_TIMEOUT: Duration = Duration::from_secs(5);
/// How many peers may pass a message on: without links, the one that was asked.
const HOPS_MAX: u32 = 1;

/// Takes messages for this peer and passes on those for its neighbours.
pub struct Whispers {
    me: Identity,
    inbox: Arc<Inbox>,
    session: Session,
    dialer: Dialer,
}

/// A whisper, checked.
struct Whisper {
    to: PeerName,
    kind: MessageKind,
    body: Bytes,
    from: String,
    hops: u32,
}

impl TryFrom<WhisperRequest> for Whisper {
    type Error = Status;

    fn try_from(request: WhisperRequest) -> Result<Self, Status> {
        let to = request.to.parse::<PeerName>().map_err(|error| error.in_field("to"))?;
        let kind = request.kind.parse()?;
        if request.from.len() > NAME_MAX_BYTES || request.from.chars().any(char::is_control) {
            return Err(InvalidField::new("from", format!("{} is no name a sender can have", Shown(&request.from))).into());
        }
        if request.body.len() > BODY_MAX_BYTES {
            return Err(Reason::MessageTooLarge.status(format!(
                "the body has {} bytes; at most {BODY_MAX_BYTES} fit. Share larger things as documents",
                request.body.len()
            )));
        }
        Ok(Self { to, kind, body: request.body, from: request.from, hops: request.hops })
    }
}

impl Whispers {
    /// Delivers to `inbox`, and finds others through `session`.
    pub fn new(me: Identity, inbox: Arc<Inbox>, session: Session, dialer: Dialer) -> Self {
        Self { me, inbox, session, dialer }
    }

    /// Delivers a message, here or one dial away.
    ///
    /// # Errors
    /// When a field is wrong, or there is no way to the receiver.
    pub async fn deliver(&self, request: WhisperRequest) -> Result<WhisperResponse, Status> {
        let whisper = Whisper::try_from(request)?;
        if whisper.to == self.me.name {
            tracing::info!(from = whisper.from, kind = %whisper.kind, bytes = whisper.body.len(), "message received");
            let Whisper { kind, body, from, hops, .. } = whisper;
            self.inbox.deliver(Message { from, kind, body, received_at: SystemTime::now() });
            return Ok(WhisperResponse {
                delivered_by: self.me.name.to_string(),
                hops,
                round_trip: Some(prost_types::Duration::default()),
            });
        }
        let no_route =
            |why: &str| Reason::NoRoute.status(format!("request cannot be fulfilled: no route to {}{why}", whisper.to));
        if whisper.hops >= HOPS_MAX {
            return Err(no_route(": passed on often enough"));
        }
        let Some(receiver) = self.session.find(&whisper.to).await else {
            return Err(no_route(""));
        };
        let passed_on = WhisperRequest {
            to: whisper.to.to_string(),
            kind: whisper.kind.as_str().to_owned(),
            body: whisper.body.clone(),
            from: whisper.from.clone(),
            hops: whisper.hops + 1,
        };
        let begun = Instant::now();
        match timeout(DELIVERY_TIMEOUT, self.dialer.peer(&receiver.endpoint).whisper(passed_on)).await {
            Ok(Ok(answer)) => {
                let answer = answer.into_inner();
                if !answer.delivered_by.parse::<PeerName>().is_ok_and(|by| by == whisper.to) {
                    return Err(no_route(": somebody else answers at its address"));
                }
                Ok(WhisperResponse { round_trip: prost_types::Duration::try_from(begun.elapsed()).ok(), ..answer })
            }
            Ok(Err(error)) if Reason::of(&error).is_some_and(|reason| reason != Reason::NoRoute) => Err(error),
            Ok(Err(_)) => Err(no_route(": it is known but does not answer")),
            Err(_) => Err(no_route(": it is known but does not answer in time")),
        }
    }
}
