//! The ledger and the keys in memory, and where the ledger is kept: what is decided on them is stored first and applied then.

use super::{
    error::CaError,
    generations::Generations,
    ledger::{Change, Ledger},
    ledger_file::LedgerFile,
    shared_ledger::{Learned, SharedLedger, ledger_of},
};
use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
};
use tokio::sync::watch;

/// How often something is decided anew because others changed something meanwhile. A guess: each time, one of the others got on.
const ATTEMPTS: usize = 32;

/// What is decided on.
pub(super) struct State {
    pub(super) ledger: Ledger,
    pub(super) generations: Generations,
    /// Generations whose certificates are in the shared ledger.
    pub(super) published: BTreeSet<u32>,
}

impl State {
    fn apply(&mut self, change: Change) -> Result<(), CaError> {
        match change {
            Change::Authority { generation, certificates } => {
                self.generations.learn(generation, &certificates)?;
                self.published.insert(generation);
            }
            other => self.ledger.apply(other),
        }
        Ok(())
    }
}

/// Where a ledger is kept.
pub(super) enum Kept {
    /// In a file of this authority's own.
    File(LedgerFile),
    /// Where others keep it, too.
    Shared(SharedLedger),
}

/// See the module.
pub(super) struct Stored {
    /// Held for writing only as long as a change takes in memory.
    state: RwLock<State>,
    /// Held while something is decided and stored.
    kept: Mutex<Kept>,
    /// Of the ledger, for calls that must not wait.
    revision: AtomicU64,
    changes: Option<watch::Receiver<()>>,
}

impl Stored {
    /// Reads the ledger. A file's has been.
    pub(super) fn new(ledger: Ledger, generations: Generations, kept: Kept) -> Result<Self, CaError> {
        let changes = match &kept {
            Kept::File(_) => None,
            Kept::Shared(ledger) => Some(ledger.changes()),
        };
        let revision = AtomicU64::new(ledger.revision());
        let state = RwLock::new(State { ledger, generations, published: BTreeSet::new() });
        let stored = Self { state, kept: Mutex::new(kept), revision, changes };
        stored.learn()?;
        Ok(stored)
    }

    /// The revision of the ledger. Waits for nothing.
    pub(super) fn revision(&self) -> u64 {
        self.revision.load(Ordering::Acquire)
    }

    /// The present state. Hold it only as long as something is computed.
    pub(super) fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether others keep the same ledger.
    pub(super) fn is_shared(&self) -> bool {
        self.changes.is_some()
    }

    /// Changes whenever others changed a ledger that is shared.
    pub(super) fn changes(&self) -> Option<watch::Receiver<()>> {
        self.changes.clone()
    }

    /// Takes over what others changed and is known here.
    pub(super) fn learn(&self) -> Result<(), CaError> {
        let mut kept = self.kept();
        match &mut *kept {
            Kept::File(_) => Ok(()),
            Kept::Shared(ledger) => {
                let learned = ledger.news()?;
                self.take_over(learned)
            }
        }
    }

    /// Stores what `decide` decides on the latest state, and applies it. With others it may be asked several times.
    ///
    /// # Errors
    /// That of `decide`, or it cannot be stored.
    pub(super) fn change<T>(&self, decide: impl Fn(&State) -> Result<(Vec<Change>, T), CaError>) -> Result<T, CaError> {
        let mut kept = self.kept();
        let ledger = match &mut *kept {
            Kept::File(file) => {
                let (changes, decided) = decide(&self.read())?;
                if !changes.is_empty() {
                    file.write(&changes)?;
                    self.apply(changes)?;
                }
                return Ok(decided);
            }
            Kept::Shared(ledger) => ledger,
        };
        let learned = ledger.news()?;
        self.take_over(learned)?;
        // What is refused here may be allowed by what another has just stored.
        let mut is_latest = false;
        for _ in 0..ATTEMPTS {
            let decided = decide(&self.read());
            match decided {
                Err(CaError::Refused(_)) if !is_latest => is_latest = true,
                Err(error) => return Err(error),
                Ok((mut changes, decided)) => {
                    let written = ledger.write(&changes)?;
                    let is_all = written == changes.len();
                    changes.truncate(written);
                    self.apply(changes)?;
                    if is_all {
                        return Ok(decided);
                    }
                }
            }
            let learned = ledger.catch_up()?;
            self.take_over(learned)?;
        }
        Err(CaError::Shared("other registries change it all the time".to_owned()))
    }

    /// Changes the keys, while nothing else is decided.
    pub(super) fn with_generations<T>(&self, change: impl FnOnce(&mut Generations) -> Result<T, CaError>) -> Result<T, CaError> {
        let _nothing_is_decided = self.kept();
        change(&mut self.write().generations)
    }

    fn take_over(&self, learned: Learned) -> Result<(), CaError> {
        match learned {
            Learned::Changes(changes) => self.apply(changes),
            Learned::All(changes) => {
                let (authorities, rows) = changes.into_iter().partition(|change| matches!(change, Change::Authority { .. }));
                let ledger = ledger_of(rows);
                self.write().ledger = ledger;
                self.apply(authorities)
            }
        }
    }

    fn apply(&self, changes: Vec<Change>) -> Result<(), CaError> {
        if changes.is_empty() {
            self.revision.store(self.read().ledger.revision(), Ordering::Release);
            return Ok(());
        }
        let mut state = self.write();
        let applied = changes.into_iter().try_for_each(|change| state.apply(change));
        self.revision.store(state.ledger.revision(), Ordering::Release);
        applied
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
