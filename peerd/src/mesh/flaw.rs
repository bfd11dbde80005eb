//! What is wrong with something that somebody else is said to have signed.
//!
//! Pure: no I/O, no clock, no randomness of its own.

/// Why something is neither delivered nor passed on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Flaw {
    /// It was not signed, or not by who it says, and whoever passed it on could have seen that: why.
    Forged(String),
    /// It is refused for what not every peer knows: CAs, revoked certificates, the time.
    Refused(String),
    /// The signer's certificate is not known here, and did not come with it.
    ChainUnknown,
}

impl Flaw {
    /// Why, as text.
    pub(crate) fn why(&self) -> &str {
        match self {
            Self::Forged(why) | Self::Refused(why) => why,
            Self::ChainUnknown => "the certificate of its signer is not known",
        }
    }
}

/// A flaw that whoever passed it on could have seen.
pub(super) fn forged(why: &str) -> Flaw {
    Flaw::Forged(why.to_owned())
}
