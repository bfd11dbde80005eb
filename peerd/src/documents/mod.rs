//! What this peer has: its shared folder, and an index of its own documents and of those it learned of from other peers.

pub mod catalog;
pub mod info;
pub mod remote_index;
pub mod rfc_number;
pub mod selector;
pub mod share;
