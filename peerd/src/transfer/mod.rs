//! Transfers of documents: serving them from the share, and fetching them, verified, into a folder.

mod blocking;
mod chunk;
mod destination;
mod download;
pub mod downloads;
mod fetch;
pub mod job;
mod piece_store;
mod piece_writer;
mod progress;
mod rate_limit;
pub(crate) mod serve;
mod source_selection;

pub use destination::WriteError;
pub use fetch::{FetchError, FetchOptions, Fetched, FindHolders, NoMoreHolders, STALL_TIMEOUT, fetch};
pub use progress::Progress;
pub use serve::{UPLOADS_MAX, UPLOADS_PER_ADDRESS};
pub use source_selection::SourceReport;
