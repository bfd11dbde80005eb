//! Which peers hold a document: the directory of known peers, the poll of their indexes, and the search for holders.

pub(crate) mod peer_directory;
pub(crate) mod poll;
pub mod rfc_query;
pub mod search;
pub mod source;
