//! The queue of LAN events between discovery and the mesh.

use super::lan_peers::LanEvent;
use tokio::sync::mpsc;

/// Events that may wait for the mesh; past it no more are read. A guess: all peers of a LAN at once.
#[cfg(feature = "mdns")]
const LAN_EVENTS_MAX: usize = 256;

/// Peers of the LAN that appear and disappear, for the mesh.
pub struct LanEvents(pub(crate) mpsc::Receiver<LanEvent>);

impl LanEvents {
    /// Of a peer without LAN discovery: there are none.
    pub fn none() -> Self {
        Self(mpsc::channel(1).1)
    }

    /// Both ends of the queue.
    #[cfg(feature = "mdns")]
    pub(super) fn channel() -> (mpsc::Sender<LanEvent>, Self) {
        let (sender, receiver) = mpsc::channel(LAN_EVENTS_MAX);
        (sender, Self(receiver))
    }
}
