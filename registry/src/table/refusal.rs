//! Why the table refuses a call.

/// Why a call is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refusal {
    /// The name is active elsewhere, or reserved for the peer that had it.
    NameTaken {
        /// The name as its holder spells it.
        name: Box<str>,
        /// Whether a lease runs; otherwise the name is only reserved.
        has_lease: bool,
        /// When the name is free if its holder makes no further call, rounded up.
        retry_after_seconds: u64,
    },
    /// No record has this cookie.
    CookieUnknown,
    /// The lease ran out, or the peer left.
    LeaseExpired,
    /// The table holds as many peers with a lease as it may.
    Full {
        /// The limit.
        max: u32,
    },
    /// Callers from this address hold as many leases as they may.
    AddressFull {
        /// The limit.
        max: u32,
    },
    /// A change of this name is being written. Try again when it is settled.
    Busy,
    /// Changes that the watcher was not told of are not kept any more.
    Lagged,
    /// The page token was not given out for this query.
    PageTokenInvalid,
}
