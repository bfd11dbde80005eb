//! The documents this peer knows: those of its shared folder, and those that other peers list.

pub mod catalog;
pub(crate) mod confidential;
pub mod info;
pub mod name_match;
pub mod pattern;
pub mod remote_index;
pub mod remote_listing;
pub mod restrictions;
pub mod rfc_number;
pub mod search_words;
pub mod selector;
pub mod share;
pub mod wanted;
