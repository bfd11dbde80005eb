//! The ledger and the keys in memory, and where the ledger is kept: what is decided on them is stored first and applied then.

use super::{
    certificates::seconds,
    error::CaError,
    generations::{Generation, Generations, OVERLAP},
    ledger::{Change, Ledger},
    ledger_file::LedgerFile,
    shared_ledger::{Learned, SharedLedger, Unwritten, ledger_of},
};
use rustls_pki_types::CertificateDer;
use std::{
    collections::BTreeSet,
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime},
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
                self.published.insert(generation);
                self.generations.learn(generation, &certificates)?;
            }
            other => self.ledger.apply(other),
        }
        Ok(())
    }
}

impl State {
    /// The changes by which everyone learns of the generations of the folder. A shared ledger may know of newer ones.
    pub(super) fn unpublished(&self, is_shared: bool) -> Vec<Change> {
        let newest = self.generations.newest().number;
        if !is_shared {
            return if self.ledger.generation() == newest { Vec::new() } else { vec![self.ledger.publish(newest)] };
        }
        let missing = self.generations.all().filter(|(generation, _)| !self.published.contains(generation));
        let mut changes: Vec<_> =
            missing.map(|(generation, certificates)| Change::Authority { generation, certificates }).collect();
        if self.ledger.generation() < newest {
            changes.push(self.ledger.publish(newest));
        }
        changes
    }

    pub(super) fn trusted(&self, now: SystemTime) -> Vec<&Generation> {
        self.generations.trusted(OVERLAP.as_secs(), seconds(now))
    }

    pub(super) fn authorities(&self, now: SystemTime) -> Vec<CertificateDer<'static>> {
        self.trusted(now).iter().map(|generation| generation.certificate.clone()).collect()
    }

    pub(super) fn chain(&self, certificate: CertificateDer<'static>, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let mut chain = vec![certificate];
        chain.extend(self.generations.chain(OVERLAP.as_secs(), seconds(now)));
        chain
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
    /// Held for writing while a change is made in memory, or keys are read or made. Nobody stores anything under it.
    state: RwLock<State>,
    /// Held while something is decided and stored.
    kept: Mutex<Kept>,
    /// When the shared ledger could not be used last, and why.
    failed: Mutex<Option<(Instant, String)>>,
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
        let stored = Self { state, kept: Mutex::new(kept), failed: Mutex::default(), revision, changes };
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
        self.hear(SharedLedger::news)
    }

    /// Takes over everything that others changed before this call.
    pub(super) fn catch_up(&self) -> Result<(), CaError> {
        self.hear(SharedLedger::catch_up)
    }

    fn hear(&self, ask: impl FnOnce(&mut SharedLedger) -> Result<Learned, CaError>) -> Result<(), CaError> {
        match &mut *self.kept() {
            Kept::File(_) => Ok(()),
            Kept::Shared(ledger) => {
                let learned = ask(ledger)?;
                self.take_over(learned)
            }
        }
    }

    /// Stores what `decide` decides on the latest state, and applies it. With others it may be asked several times.
    ///
    /// # Errors
    /// That of `decide`, or it cannot be stored.
    pub(super) fn change<T>(&self, decide: impl Fn(&State) -> Result<(Vec<Change>, T), CaError>) -> Result<T, CaError> {
        let asked_at = Instant::now();
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
        // Whoever waited while another found that the store is away need not find that out once more.
        if let Some((_, problem)) = self.failed().as_ref().filter(|(at, _)| *at > asked_at) {
            return Err(CaError::Shared(problem.clone()));
        }
        let changed = self.change_shared(ledger, decide);
        if let Err(CaError::Shared(problem)) = &changed {
            *self.failed() = Some((Instant::now(), problem.clone()));
        }
        changed
    }

    fn change_shared<T>(
        &self,
        ledger: &mut SharedLedger,
        decide: impl Fn(&State) -> Result<(Vec<Change>, T), CaError>,
    ) -> Result<T, CaError> {
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
                    let (written, outcome) = ledger.write(&changes);
                    changes.truncate(written);
                    self.apply(changes)?;
                    match outcome {
                        Ok(()) => return Ok(decided),
                        Err(Unwritten::Unknown(error)) => return Err(error),
                        Err(Unwritten::Overtaken) => {}
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
                {
                    let mut state = self.write();
                    state.ledger = ledger;
                    state.published.clear();
                }
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
        // One that cannot be applied must not keep others from it, such as a revocation.
        let mut outcome = Ok(());
        for change in changes {
            outcome = outcome.and(state.apply(change));
        }
        self.revision.store(state.ledger.revision(), Ordering::Release);
        outcome
    }

    fn failed(&self) -> MutexGuard<'_, Option<(Instant, String)>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
