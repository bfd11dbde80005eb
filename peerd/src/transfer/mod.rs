//! Transfers of documents: serving them from the share, and fetching them, verified, into a folder.

pub mod chunk;
pub mod destination;
pub mod download;
pub mod downloads;
pub mod fetch;
pub mod job;
pub mod piece_store;
pub mod piece_writer;
pub mod progress;
pub mod rate_limit;
pub mod serve;
pub mod source_selection;

pub use fetch::{FetchError, FetchOptions, Fetched, FindHolders, NoMoreHolders, STALL_TIMEOUT, fetch};
pub use progress::Progress;
pub use source_selection::SourceReport;
