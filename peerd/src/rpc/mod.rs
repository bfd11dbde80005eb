//! The RPCs of `Peer` and `Control`. They check the raw values of a request first; the other parts do the work.

mod access;
mod asking;
mod control;
mod drain;
mod jobs;
mod peer;
mod services;
mod status;
mod whispers;

#[cfg(feature = "http")]
pub(crate) use access::audience;
pub(crate) use access::unread;
pub(crate) use control::ControlRpc;
pub(crate) use peer::PeerRpc;
pub(crate) use services::Services;
