//! Messages that this peer receives: the inbox, the handlers of messages, and the replies to senders.

mod answers;
mod batches;
mod delivery;
mod fair_queue;
mod handlers;
mod kind;
mod queue;
mod reply;
mod seen;
mod whisper;

pub use batches::{Batches, ReplySlot, ToHandle};
pub use delivery::{Delivered, LocalDelivery, PendingReply};
pub use handlers::Handlers;
pub use kind::{KIND_DEFAULT, MessageKind};
pub use queue::{Inbox, KIND_PING, KIND_PONG, KIND_UNCLAIMED, Message, Subscription, printable};
pub use reply::{REPLY_TIMEOUT, Reply};
pub use whisper::{BODY_MAX_BYTES, Whisper};
