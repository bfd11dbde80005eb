//! A message to one named peer, with its fields checked.

use super::kind::MessageKind;
use bytes::Bytes;
use p2pdi::{
    field::{InvalidField, Quoted, is_terminal_control},
    name::{NAME_MAX_BYTES, PeerName},
    status::Reason,
    v1::WhisperRequest,
};
use tonic::Status;

/// Longest body, in bytes: larger things are documents.
pub const BODY_MAX_BYTES: usize = 256 * 1024;

/// A whisper, checked.
#[derive(Debug, Clone)]
pub struct Whisper {
    /// Who it is for.
    pub to: PeerName,
    /// What it is.
    pub kind: MessageKind,
    /// What it says.
    pub body: Bytes,
    /// The sender, as it calls itself.
    pub from: String,
    /// Peers that passed it on.
    pub hops: u32,
    /// 16 bytes, or none.
    pub message_id: Bytes,
}

impl TryFrom<WhisperRequest> for Whisper {
    type Error = Status;

    fn try_from(request: WhisperRequest) -> Result<Self, Status> {
        let to = request.to.parse::<PeerName>().map_err(|error| error.in_field("to"))?;
        let kind = request.kind.parse()?;
        if request.from.len() > NAME_MAX_BYTES || request.from.chars().any(is_terminal_control) {
            return Err(InvalidField::new("from", format!("{} is no name a sender can have", Quoted(&request.from))).into());
        }
        if request.body.len() > BODY_MAX_BYTES {
            return Err(Reason::MessageTooLarge.status(format!(
                "the body has {} bytes; at most {BODY_MAX_BYTES} fit. Share larger things as documents",
                request.body.len()
            )));
        }
        if !matches!(request.message_id.len(), 0 | 16) {
            return Err(InvalidField::new("message_id", "has 16 bytes, or none").into());
        }
        let WhisperRequest { body, from, hops, message_id, .. } = request;
        Ok(Self { to, kind, body, from, hops, message_id })
    }
}
