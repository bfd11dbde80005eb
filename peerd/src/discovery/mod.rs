//! Whom to turn to for a place in the mesh: peers that a user named, and those that announce themselves on the LAN.
//!
//! - [`Bootnode`]s are dialled until they answer, for ever.
//! - [`Lan`] announces this peer by multicast DNS and hears others; `nearby` remembers them and says whom to try next.
//!
//! The registry's part in it is the session's. Whoever was found is the mesh's to dial.

#[cfg(feature = "mdns")]
mod announcement;
mod bootnodes;
mod events;
#[cfg(feature = "mdns")]
mod lan;
mod lan_peers;

pub use bootnodes::Bootnode;
pub(crate) use bootnodes::Bootnodes;
pub(crate) use events::LanEvents;
#[cfg(feature = "mdns")]
pub(crate) use lan::Lan;
#[cfg(feature = "mdns")]
pub(crate) use lan::address_on_the_lan;
#[cfg(feature = "mdns")]
pub(crate) use lan_peers::Load;
pub(crate) use lan_peers::{LanEvent, LanPeers};
