//! Transfers of documents: serving them, and fetching them, verified, into a folder.
//!
//! - `store`: a document under way: its file, which pieces are verified, what streams write.
//! - `plan`: which piece is requested from whom, and when.
//! - `serve`: the sending side.
//! - `rate_limit`, `throttle`: limits of the rates of both sides.
//! - `fetch`: the receiving side: the search for holders, streams, the fetch of one document.
//! - `jobs`: what a running peer fetches into its share, and keeps there.

mod arriving;
mod chunk;
pub mod fetch;
pub mod jobs;
mod piece_set;
// A state machine that simulations and benchmarks drive.
#[doc(hidden)]
pub mod plan;
mod rate_limit;
mod rate_meter;
pub(crate) mod serve;
mod store;
pub(crate) mod swarm;
pub mod throttle;

pub use arriving::{Arriving, ArrivingMax, SMALL_AT_ONCE, is_small};
pub use fetch::{
    document::{NoMoreHolders, fetch},
    options::{FetchOptions, STALL_TIMEOUT},
    outcome::{FetchError, Fetched},
    progress::{FetchPhase, HolderProgress, Progress, ProgressSnapshot, Waiting},
    reading::{PieceReader, ReadError},
    source_selection::SourceReport,
    source_totals::{SourceTotal, SourceTotals},
};
pub use serve::uploads::{UPLOADS_MAX, UPLOADS_PER_ADDRESS};
pub use store::{error::WriteError, partial_file::partial_name};
pub use swarm::{
    hub::{KEPT_MAX, Swarms},
    me::ZONE_LABEL,
};
pub use throttle::Throttle;
