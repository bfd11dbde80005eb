//! Whom to turn to for a place in the mesh: peers that a user named.

mod bootnodes;

pub use bootnodes::Bootnode;
pub(crate) use bootnodes::Bootnodes;
