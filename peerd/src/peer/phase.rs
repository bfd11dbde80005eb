//! How far a peer is.

/// How far a peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Phase {
    /// Not started yet.
    Built,
    Running,
    Ended,
}
