//! Which peers hold a document: the directory of known peers, the poll of their indexes, and the search for holders.

pub mod peer_directory;
pub mod poll;
pub mod rfc_query;
pub mod search;
pub mod source;
