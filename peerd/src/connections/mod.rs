//! Connections in both directions: the pool of outgoing channels, admission of calls, and the guard against slow readers.

pub mod admission;
pub mod channels;
pub(crate) mod unread;
