//! The planner of one fetch: which piece is requested from which holder, and when.
//!
//! The driver reports events and executes the actions; it calls [`Planner::next_actions`] after every event and at
//! [`Planner::next_timer`].
//!
//! - `planner`: the books, and how events change them.
//! - `schedule`: when which holder is asked for more. `choice`: for which pieces. `wanted`: the rarest first.
//! - `endgame`: what is requested a second time or moved: of silent and slow holders, and at the end.
//! - `offer`: what a holder would like to be asked for.
//! - `meter`, `patience`: the rate of a holder, and how long one that fails is asked again.
//!
//! Pure: no I/O, no clock, no randomness of its own.

mod choice;
mod config;
mod endgame;
mod event;
mod holder;
mod meter;
mod offer;
mod patience;
mod planner;
mod request;
mod schedule;
mod status;
mod wanted;

#[cfg(test)]
mod tests;

pub use crate::transfer::piece_set::PieceSet;

pub use config::{LONG_DELAY, PROBE_WINDOWS, PlanConfig, first_bytes};
pub use event::{Action, EndedBy, Event, Has, HolderId, RequestId};
pub use offer::{MemberId, Offers};
pub use planner::Planner;
pub use status::{HolderStatus, Waiting};
