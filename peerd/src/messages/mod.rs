//! Messages to a named peer, along whichever way reaches it.

mod router;

pub(crate) use router::MessageRouter;
