//! The planner of one fetch: which piece is requested from which holder, and when.
//!
//! The driver reports events and executes the actions; it calls [`Planner::next_actions`] after every event and at
//! [`Planner::next_timer`].
//!
//! Pure: no I/O, no clock, no spawning; randomness comes from the seed.

mod event;

pub(crate) use event::{Action, EndedBy, Event, Has, HolderId, RequestId};
