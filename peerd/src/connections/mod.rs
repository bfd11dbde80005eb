//! Connections in both directions: the pool of outgoing channels, admission control, and the guard against slow readers.

pub(crate) mod admission;
pub mod channels;
pub(crate) mod slow_reader;
