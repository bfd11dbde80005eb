//! No store: `--state memory`.

use super::{Peer, Store, StoreError, Write};

/// Keeps nothing beyond the process; the table itself is the memory.
#[derive(Debug, Clone, Copy, Default)]
pub struct Memory;

impl Store for Memory {
    fn load(&mut self, _each: &mut dyn FnMut(u32, Peer) -> Result<(), StoreError>) -> Result<u64, StoreError> {
        Ok(0)
    }

    fn commit(&mut self, _batch: &[Write<'_>]) -> Result<(), StoreError> {
        Ok(())
    }
}
