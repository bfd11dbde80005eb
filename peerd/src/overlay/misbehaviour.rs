//! Violations of the protocol.

/// A violation of the protocol by a linked peer. The text completes "a peer ...".
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Misbehaviour {
    /// A frame that cannot be decoded, or has an invalid field.
    #[error("sent a frame that cannot be read")]
    Unreadable,
    /// A frame over the size limit; the stream cannot be decoded after it.
    #[error("sent a frame past the limit")]
    FrameTooLong,
    /// A hello that is invalid or contradicts what is known.
    #[error("sent an invalid hello")]
    WrongGreeting,
    /// More contacts than a message may carry.
    #[error("sent more contacts than a message may carry")]
    TooManyContacts,
    /// More ids than a message may carry.
    #[error("sent more ids than a message may carry")]
    TooManyIds,
    /// A shuffle whose path does not end with its sender, or a reply whose path does not end here.
    #[error("sent a shuffle with a false path")]
    BadPath,
    /// A broadcast over [`MAX_PAYLOAD`](super::plumtree::MAX_PAYLOAD).
    #[error("sent a broadcast past the limit")]
    PayloadTooLong,
    /// Advertised many broadcasts and did not send them when asked.
    #[error("advertised broadcasts and did not send them")]
    BrokenPromises,
    /// Something that its origin did not sign, or whose signature is wrong. The sender should have checked it.
    #[error("passed on what its origin did not sign")]
    Forged,
    /// Kept sending although its link was paused.
    #[error("sent more than its rate limit allows")]
    Flooding,
}
