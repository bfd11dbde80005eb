//! Where records are kept across restarts.

mod backend;
mod codec;
mod embedded;
mod error;
mod file;
mod memory;
mod slots;

#[cfg(test)]
mod conformance;

pub use backend::{Loaded, Skipped, Store, WriteError};
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use codec::check_any_bytes;
pub use embedded::Embedded;
pub use error::StoreError;
pub use file::FILE_NAME;
pub use memory::Memory;
