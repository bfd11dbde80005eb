//! Messages to other peers: one to a named peer, by whichever way reaches it.

mod router;

pub(crate) use router::MessageRouter;
