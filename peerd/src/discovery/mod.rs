//! Peers to join the mesh through: those that a user named, and those that announce themselves on the LAN.
//!
//! - [`Bootnode`]s are dialled until they answer, without a limit of attempts.
//! - `Lan` announces this peer by multicast DNS and receives announcements of others as [`LanEvents`]; `lan_peers` remembers them and
//!   chooses which to try next.
//!
//! `lan`, `announcement` and `interfaces` need the feature `mdns`; the rest is the same without it. The registry's part in discovery is
//! the session's. The mesh dials the peers that are found.

#[cfg(feature = "mdns")]
mod announcement;
mod bootnodes;
mod events;
#[cfg(feature = "mdns")]
mod interfaces;
#[cfg(feature = "mdns")]
mod lan;
mod lan_peers;

pub use bootnodes::Bootnode;
pub(crate) use bootnodes::Bootnodes;
pub(crate) use events::LanEvents;
#[cfg(feature = "mdns")]
pub(crate) use interfaces::address_on_the_lan;
#[cfg(feature = "mdns")]
pub(crate) use lan::Lan;
#[cfg(feature = "mdns")]
pub(crate) use lan_peers::Load;
pub(crate) use lan_peers::{LanEvent, LanPeers};
