//! Messages to other peers: one to a named peer, by whichever way reaches it.

mod router;

pub use router::MessageRouter;
