//! A peer inside a program: build it, start it, use it, stop it. Users of this crate begin here.

mod builder;
mod error;
mod handle;
mod info;
mod lifecycle;
mod phase;

pub use builder::PeerBuilder;
pub use error::PeerError;
pub use handle::PeerHandle;
pub use info::{Delivery, PeerInfo};
pub use lifecycle::Peer;
