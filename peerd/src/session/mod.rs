//! The session with the registry: register, keep alive, list the other peers, leave.

mod announces;
mod client;
mod driver;
mod handle;
mod known;
mod lookups;
mod peer_list;

pub use announces::AnnounceError;
pub use driver::{SessionConfig, SessionDriver};
pub use handle::{OwnName, Session};
pub use known::KnownPeers;
pub use lookups::RegistryUnavailable;
