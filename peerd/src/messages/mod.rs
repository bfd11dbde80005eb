//! Messages to a named peer, along whichever way reaches it.

mod router;
mod senders;

pub(crate) use router::MessageRouter;
pub(crate) use senders::{SENDER_UNKNOWN, Sender};
