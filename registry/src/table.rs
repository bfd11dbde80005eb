//! The lease table: which peer holds which name until when, and what changed at which revision.
//!
//! Pure: no I/O, no clock, no randomness of its own.
//!
//! A record changes in three steps, so that nothing shows before it is stored. The table decides (`prepare_*`, [`Table::expire`]) and
//! marks the record as in flight. The caller gives the [`Change`] to the store. [`Table::settle`] ends it: accepted, it goes through
//! [`Table::apply`]; refused, all is as before. Until then further changes of that name are refused with [`Refusal::Busy`], while its
//! present lease continues. What another registry wrote to the same store comes in through [`Table::apply`] as well.

mod addresses;
mod administration;
mod apply;
mod brake;
mod change;
mod change_log;
mod cursor;
mod deadlines;
mod expire;
mod labels;
mod lease;
mod listing;
mod moment;
mod observers;
mod peer;
mod query;
mod record;
mod refusal;
mod register;
mod registrations;
mod replica;
mod running_time;
mod settings;
mod shard;
mod state;
mod suspects;
mod view;
mod watch;

#[cfg(test)]
mod model;
#[cfg(test)]
mod tests;

pub use change::Change;
pub use expire::Expired;
pub use labels::Labels;
pub use lease::Lease;
pub use moment::Now;
pub use peer::{PackedStrings, Peer, to_ipv6};
pub use query::{PAGE_MAX, Query};
pub use refusal::Refusal;
pub use register::{Prepared, Registration};
pub use registrations::Registrations;
pub use replica::Extended;
pub use running_time::RunningTime;
pub use settings::{FORGET_AFTER_MS, KEEPALIVES_PER_TTL, PEERS_MAX, Settings, TARGET_KEEPALIVES_PER_SECOND};
pub use shard::{Kept, SHARDS, ShardSet, shard_of, shard_of_name};
pub use state::{Counts, Table};
pub use suspects::{Suspect, ToldSuspects};
pub use view::duration;
pub use watch::{Told, Watch};
