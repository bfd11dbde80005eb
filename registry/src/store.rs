//! Where records are kept across restarts.

mod backend;
mod codec;
mod embedded;
mod error;
#[cfg(feature = "etcd")]
mod etcd;
mod etcd_address;
mod file;
mod memory;
mod slots;

#[cfg(test)]
mod conformance;

pub use backend::{Loaded, Skipped, Store, WriteError};
#[cfg(any(test, feature = "fuzzing"))]
#[doc(hidden)]
pub use codec::check_any_bytes;
pub(crate) use codec::{read_record, write_record};
pub use embedded::Embedded;
pub use error::StoreError;
#[cfg(feature = "etcd")]
pub(crate) use etcd::{Etcd, Fed, Feed};
pub use etcd_address::{EtcdAddress, EtcdFiles};
pub use file::FILE_NAME;
pub use memory::Memory;
