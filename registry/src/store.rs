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

pub use backend::{Store, WriteError};
pub use embedded::Embedded;
pub use error::StoreError;
pub use file::FILE_NAME;
pub use memory::Memory;
