//! Messages to this peer, and to peers it can reach directly.

mod inbox;
mod kind;
mod whisper;

pub use inbox::{Inbox, Message};
pub use kind::{KIND_DEFAULT, MessageKind};
pub use whisper::{BODY_MAX_BYTES, Whispers};
