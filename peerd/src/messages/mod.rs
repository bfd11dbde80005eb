//! Messages to this peer, and to peers it can find a way to.

mod inbox;
mod kind;
mod post;
mod seen;
mod whisper;

pub use inbox::{Handler, Inbox, KIND_PING, KIND_PONG, Message, Reply, Subscription};
pub use kind::{KIND_DEFAULT, MessageKind};
pub use post::{Delivered, Post};
pub use whisper::{BODY_MAX_BYTES, Whisper, Whispers};
