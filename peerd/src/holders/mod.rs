//! Who has a document: the directory of known peers, and the search among them.

pub mod peer_directory;
pub mod poll;
pub mod search;
pub mod source;
