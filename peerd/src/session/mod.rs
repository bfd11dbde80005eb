//! The session with the registry: register, keep alive, list the other peers, leave.

mod driver;
mod handle;
mod known;

pub use driver::{SessionConfig, SessionDriver};
pub use handle::{Lookups, Session};
pub use known::KnownPeers;
