//! A document under way: its partial file, which pieces are verified, and where it goes. Blocking; called off the runtime.
//!
//! - `destination`: the target folder, and a file that is there already.
//! - `partial_file`: the file that is filled, and its lock.
//! - `states`, `piece_table`: what is known of each piece, and who follows it.
//! - `reservation`: room on the disk before the first byte. `superseded`: what fetches of other versions left.
//! - `sidecar`, `sidecar_file`, `flush`: what is remembered across a crash, and the syncs that precede it.
//! - `check`: hashes in the background what an earlier fetch left.
//! - `piece_store`: all of it, for one document. `piece_writer`: what one stream writes.
//! - `batch`: one sync for many small documents.

pub(crate) mod batch;
pub(crate) mod blocking;
mod check;
pub(crate) mod destination;
pub(crate) mod error;
mod flush;
pub(crate) mod partial_file;
pub(crate) mod piece_store;
pub(crate) mod piece_table;
pub(crate) mod piece_writer;
mod reservation;
mod sidecar;
mod sidecar_file;
mod states;
mod superseded;
#[cfg(test)]
mod tests;
mod zeros_file;
