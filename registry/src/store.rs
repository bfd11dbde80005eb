//! Where records are kept across restarts.

mod backend;
mod codec;
mod embedded;
mod error;
mod memory;

#[cfg(test)]
mod conformance;

pub use backend::{Store, WriteError};
pub use embedded::{Embedded, FILE_NAME};
pub use error::StoreError;
pub use memory::Memory;
