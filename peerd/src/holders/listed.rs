//! A document as a peer lists it.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use crate::documents::info::DocumentInfo;
use p2pdi::v1::Holder;

/// A document in an answer.
#[derive(Debug, Clone)]
pub struct Listed {
    /// The document, validated.
    pub document: DocumentInfo,
    /// Its holders, as the peer sent them.
    pub holders: Vec<Holder>,
}
