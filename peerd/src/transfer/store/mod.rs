//! A document under way: its partial file, which pieces are verified, and where it goes. Blocking; called off the runtime.

pub(crate) mod blocking;
pub(crate) mod destination;
pub(crate) mod piece_store;
pub(crate) mod piece_writer;
