//! From LAN discovery to the mesh.

use super::lan_peers::LanEvent;
use tokio::sync::mpsc;

/// Peers that come and go on the LAN.
pub struct LanEvents(pub(crate) mpsc::Receiver<LanEvent>);

impl LanEvents {
    /// No events, for a peer without LAN discovery.
    pub fn none() -> Self {
        Self(mpsc::channel(1).1)
    }
}
