//! Swarms: for each document that this peer fetches, or that others fetch from it, the peers that exchange availability about it.

mod claims;
mod company;
pub(crate) mod dial;
pub(crate) mod early;
pub(crate) mod exchange;
mod expected;
pub(crate) mod get;
pub(crate) mod hub;
pub(crate) mod me;
mod named;
pub(crate) mod news;
mod outgoing;
mod partial;
pub(crate) mod state;
pub(crate) mod traffic;
pub(crate) mod update;
mod view;
