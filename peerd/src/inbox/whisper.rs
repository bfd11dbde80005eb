//! A message to one named peer, with its fields checked.

use super::kind::MessageKind;
use bytes::Bytes;
use p2pdi::{
    field::{InvalidField, Quoted, is_terminal_control},
    name::{NAME_MAX_BYTES, PeerName},
    status::Reason,
    v1::{Signature, WhisperRequest},
};
use tonic::Status;

/// Longest body, in bytes: larger content is shared as a document.
pub const BODY_MAX_BYTES: usize = 256 * 1024;

/// A valid whisper.
#[derive(Debug, Clone)]
pub struct Whisper {
    /// The receiver.
    pub to: PeerName,
    /// Its kind.
    pub kind: MessageKind,
    /// Its content.
    pub body: Bytes,
    /// The name of the sender: with TLS the one in its certificate, or none; otherwise what it says.
    pub from: String,
    /// Peers that forwarded it.
    pub hops: u32,
    /// 16 bytes, or empty.
    pub message_id: Bytes,
    /// The sender's signature, if it is to be passed on for it.
    pub signature: Option<Signature>,
}

impl TryFrom<WhisperRequest> for Whisper {
    type Error = Status;

    fn try_from(request: WhisperRequest) -> Result<Self, Status> {
        let to = request.to.parse::<PeerName>().map_err(|error| error.in_field("to"))?;
        let kind = request.kind.parse()?;
        if request.from.len() > NAME_MAX_BYTES || request.from.chars().any(is_terminal_control) {
            return Err(InvalidField::new(
                "from",
                format!(
                    "{} is not a valid sender; give a name of at most {NAME_MAX_BYTES} bytes without control characters",
                    Quoted(&request.from)
                ),
            )
            .into());
        }
        if request.body.len() > BODY_MAX_BYTES {
            return Err(Reason::MessageTooLarge.status(format!(
                "the body has {} bytes; at most {BODY_MAX_BYTES} fit. Share larger things as documents",
                request.body.len()
            )));
        }
        if !matches!(request.message_id.len(), 0 | 16) {
            return Err(InvalidField::new("message_id", "has the wrong length; give 16 bytes, or none").into());
        }
        let WhisperRequest { body, from, hops, message_id, signature, .. } = request;
        Ok(Self { to, kind, body, from, hops, message_id, signature })
    }
}
