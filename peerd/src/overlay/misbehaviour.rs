//! What a peer does that no correct peer does.

/// Why a frame was dropped and its sender named.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Misbehaviour {
    /// Not a frame, or with a field that cannot be.
    #[error("sent a frame that cannot be read")]
    Unreadable,
    /// A message longer than is taken; what follows it cannot be found.
    #[error("sent a frame past the limit")]
    FrameTooLong,
    /// A greeting that cannot be true.
    #[error("greeted with what cannot be")]
    WrongGreeting,
    /// More contacts than a message may carry.
    #[error("sent more contacts than a message may carry")]
    TooManyContacts,
    /// More ids than a message may carry.
    #[error("sent more ids than a message may carry")]
    TooManyIds,
    /// A shuffle that did not come the way it says.
    #[error("sent a shuffle that did not come the way it says")]
    BadPath,
    /// A broadcast past [`MAX_PAYLOAD`](super::plumtree::MAX_PAYLOAD).
    #[error("sent a broadcast past the limit")]
    PayloadTooLong,
    /// Advertised many broadcasts and did not give them.
    #[error("advertised broadcasts and did not give them")]
    BrokenPromises,
    /// Kept sending although it was throttled.
    #[error("sent more than its share")]
    Flooding,
}
