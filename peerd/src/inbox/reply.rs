//! What the receiver of a whisper answers, and how long its sender waits for it.

use super::{
    kind::{KIND_MAX_BYTES, MessageKind},
    whisper::BODY_MAX_BYTES,
};
use bytes::Bytes;
use p2pdi::{
    field::InvalidField,
    log_limit::{Line, LogLimit},
};
use std::time::Duration;

/// How long the sender of a whisper waits for the handler's reply. After that its result only confirms that the message arrived.
pub const REPLY_TIMEOUT: Duration = Duration::from_secs(1);

/// The reply of a handler to one whisper.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Reply {
    /// A message kind; empty when there is no reply.
    pub kind: String,
    /// The content, at most [`BODY_MAX_BYTES`].
    pub body: Bytes,
}

impl Reply {
    /// A reply of this kind.
    pub fn new(kind: impl Into<String>, body: impl AsRef<[u8]>) -> Self {
        Self { kind: kind.into(), body: Bytes::copy_from_slice(body.as_ref()) }
    }

    /// Whether it can be sent, or says that there is none.
    ///
    /// # Errors
    /// When the kind is not one token, or the body is longer than [`BODY_MAX_BYTES`].
    pub fn validate(&self) -> Result<(), InvalidField> {
        if self.kind.is_empty() {
            return Ok(());
        }
        self.kind.parse::<MessageKind>()?;
        if self.body.len() > BODY_MAX_BYTES {
            let length = self.body.len();
            return Err(InvalidField::new("body", format!("has {length} bytes; a reply has at most {BODY_MAX_BYTES}")));
        }
        Ok(())
    }

    /// The reply, if there is one and its fields are valid. An invalid one is logged; `message` is the kind of the message it answers.
    pub(super) fn check(self, message: &MessageKind) -> Option<Self> {
        if self.kind.is_empty() {
            return None;
        }
        if self.validate().is_err() {
            static LOG: LogLimit = LogLimit::new(1);
            if let Some(Line { suppressed }) = LOG.line() {
                tracing::warn!(
                    kind = %message,
                    suppressed,
                    "dropping an invalid reply of a handler: the kind must be one token of at most {KIND_MAX_BYTES} bytes, the body at most {BODY_MAX_BYTES} bytes"
                );
            }
            return None;
        }
        Some(self)
    }
}

/// A handler that never replies.
impl From<()> for Reply {
    fn from((): ()) -> Self {
        Self::default()
    }
}

/// A handler that may reply.
impl From<Option<Self>> for Reply {
    fn from(reply: Option<Self>) -> Self {
        reply.unwrap_or_default()
    }
}
