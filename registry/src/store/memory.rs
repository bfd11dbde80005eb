//! The store of `--state memory`.

use super::{
    backend::{Loaded, Skipped, Store, WriteError, first_revision},
    error::StoreError,
};
use crate::table::{Change, Peer};

/// Keeps nothing but the revision: the table itself is the memory, and no other registry changes it.
#[derive(Debug, Clone, Copy)]
pub struct Memory {
    revision: u64,
}

impl Default for Memory {
    fn default() -> Self {
        Self { revision: first_revision() }
    }
}

impl Store for Memory {
    fn load(&mut self, _each: &mut dyn FnMut(Peer, u64)) -> Result<Loaded, StoreError> {
        Ok(Loaded { revision: self.revision, complete_since: self.revision, skipped: Skipped::default() })
    }

    fn commit(&mut self, batch: &[Change]) -> Vec<Result<u64, WriteError>> {
        let accept = |_| {
            self.revision += 1;
            Ok(self.revision)
        };
        batch.iter().map(accept).collect()
    }

    fn latest(&mut self) -> Result<u64, StoreError> {
        Ok(self.revision)
    }

    fn recover(&mut self) -> Result<(), StoreError> {
        Ok(())
    }
}
