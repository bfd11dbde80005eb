//! The announces of one document: this peer announces itself before it asks anybody, searches only if it is told to or there is no tracker,
//! and stays announced for as long as it fetches or serves the document.

mod decisions;
mod driver;

pub use decisions::{Action, Decisions, Event, TrackerFailure};
pub use driver::{Announcer, AnnouncerHandle, Announcing};

/// Documents smaller than this need no announce: a holder sends one in less time than two calls to the registry take over a usual link,
/// and a folder of thousands of them would cost the registry a call for each every minute. They are searched for.
pub const ANNOUNCED_SIZE_MIN: u64 = 1 << 20;

/// Availability streams to other members that a fetch keeps, beside those that others open to it. BitTorrent clients keep 30 to 50 and
/// open more only while they have fewer than 20 to 30 (BEP 3, libtorrent's defaults); random graphs of degree 20 stay connected when half
/// of their members fail, and rarest first needs no more to see what is rare.
pub const CONNECTIONS_WANTED: usize = 20;
/// Availability streams of one document at most, those that others opened included. Twice of [`CONNECTIONS_WANTED`]: every stream is opened
/// by one side, so a member has about as many from others as it opened; further ones are refused.
pub const CONNECTIONS_MAX: usize = 40;
