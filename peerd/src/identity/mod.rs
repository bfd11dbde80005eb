//! Who this peer is, and the state folder that keeps it: id, incarnation, cookie, certificate, and a lock.

mod cookie;
mod error;
mod folder;
pub mod incarnation;
mod joining;
mod last_incarnation;
mod own_contact;
mod peer_id;

pub use error::StateError;
pub use folder::StateFolder;
pub use joining::{JoinError, join};
pub use own_contact::{DeriveEndpoint, NoAddress, OwnContact};
