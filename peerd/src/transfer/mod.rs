//! Documents on their way: served from the share, and fetched verified into a folder.

pub mod fetch;
pub mod pace;
pub mod partial;
pub mod receive;
pub mod serve;
pub mod sources;

pub use fetch::{FetchError, FetchOptions, Fetched, FindHolders, NobodyElse, Progress, STALL_TIMEOUT, Wanted, fetch};
pub use sources::{Source, SourceReport};
