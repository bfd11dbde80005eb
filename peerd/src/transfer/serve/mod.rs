//! The sending side.
//!
//! - `source`: what is sent: a document of the share, or the verified pieces of one under way.
//! - `slots`, `line`: who is sent now, and who waits.
//! - `capacity`: the limits and counts of all streams.
//! - `sending`: the messages of one answer.
//! - `uploads`: admits requests.

mod capacity;
mod line;
mod sending;
mod slots;
pub(crate) mod source;
pub(crate) mod uploads;
