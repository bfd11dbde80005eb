//! Messages to this peer, and to peers it can find a way to.

mod handlers;
mod inbox;
mod kind;
mod post;
mod seen;
mod whisper;

pub use handlers::{Handlers, REPLY_TIMEOUT, Reply};
pub use inbox::{Inbox, KIND_PING, KIND_PONG, KIND_UNCLAIMED, Message, Subscription};
pub use kind::{KIND_DEFAULT, MessageKind};
pub use post::{Delivered, Post, Receipt};
pub use whisper::{BODY_MAX_BYTES, Whisper, Whispers};
