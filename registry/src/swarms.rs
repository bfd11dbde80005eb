//! The tracker: which peers fetch or hold which document, and whom of them to name to a member that announces itself.
//!
//! Pure: no I/O, no clock, no randomness of its own.
//!
//! All of it is soft state. A member ends unless it announces itself again, and after a restart of the registry members come back with
//! their next announce. A swarm depends on its own announces only: several registries may share the swarms between them by hash.
//!
//! A member costs some 150 bytes, in each of its swarms; a swarm some 500 bytes, a caller with members some 300, a reported holder some
//! 200. The limits are in `limits`.

mod announce;
mod callers;
mod choose;
mod interval;
mod limits;
mod reports;
mod search;
mod state;
mod swarm;

#[cfg(test)]
mod tests;

pub use announce::{Announce, Caller, DocumentKey, ReportedHolder};
pub use limits::{HOLDERS_MAX, WANT_MAX};
pub use state::{Counts, Swarms, TooManySwarms};
