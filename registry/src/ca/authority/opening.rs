//! Opens an authority: alone in its folder, or with others that have its key.

use super::{Authority, CaSettings};
use crate::ca::{
    certificates::seconds,
    error::CaError,
    generations::{Generations, check_network},
    ledger::Ledger,
    ledger_file::LedgerFile,
    rows::SharedRows,
    shared_ledger::SharedLedger,
    stored::{Kept, Stored},
};
use std::{path::Path, time::SystemTime};

impl Authority {
    /// Opens the authority in `folder`, or makes one.
    ///
    /// # Errors
    /// When another process has it open, a file is damaged or of another network, or the folder cannot be used.
    pub fn open(folder: &Path, settings: CaSettings, now: SystemTime) -> Result<Self, CaError> {
        let had_ledger = LedgerFile::is_in(folder);
        let (file, network) = LedgerFile::open(folder, &settings.network)?;
        check_network(folder, &network, &settings.network)?;
        let ledger = file.load()?;
        let has_key = Generations::are_in(folder)?;
        if !has_key && !ledger.is_empty() {
            return Err(CaError::KeyMissing(folder.to_owned()));
        }
        if has_key && !had_ledger {
            tracing::warn!(
                folder = %folder.display(),
                "the CA folder has a key and no ledger: tokens are unknown, and whoever was revoked may come back with a certificate that has not ended; if it had \
                 one (ledger.redb), stop this registry and restore the folder from a backup"
            );
        }
        let generations = Generations::open_or_create(folder, &network, seconds(now))?;
        generations.warn_of_readers();
        let authority = Self::new(settings, Stored::new(ledger, generations, Kept::File(file))?);
        authority.maintain(now)?;
        Ok(authority)
    }

    /// Opens the authority whose key is in `folder`, and whose ledger it shares with others that have the same key. None is made, and the folder may
    /// be read-only. What it has of a ledger of its own becomes part of the shared one, and is not used any more.
    ///
    /// # Errors
    /// When the folder has no authority, a file is damaged or of another network, or the ledger cannot be read.
    pub fn open_shared(folder: &Path, rows: Box<dyn SharedRows>, settings: CaSettings, now: SystemTime) -> Result<Self, CaError> {
        let generations = Generations::read(folder)?;
        check_network(folder, generations.network(), &settings.network)?;
        generations.warn_of_readers();
        let stored = Stored::new(Ledger::default(), generations, Kept::Shared(SharedLedger::new(rows)))?;
        if LedgerFile::is_in(folder) {
            let own = LedgerFile::open(folder, &settings.network)?.0.load()?;
            // Also if others began before: what they do not know would be lost, revocations among it.
            stored.change(|state| Ok((state.ledger.missing(&own), ())))?;
            LedgerFile::retire(folder);
        }
        let authority = Self::new(settings, stored);
        authority.maintain(now)?;
        Ok(authority)
    }

    /// Opens the authority in `folder`, whatever its network. None is made, and nothing that is due is done.
    ///
    /// # Errors
    /// When there is none, another process has it open, a file is damaged, or the folder cannot be used.
    pub fn open_existing(folder: &Path) -> Result<Self, CaError> {
        let generations = Generations::open(folder)?;
        let settings = CaSettings { network: generations.network().clone(), ..CaSettings::default() };
        let (file, _) = LedgerFile::open(folder, &settings.network)?;
        let ledger = file.load()?;
        Ok(Self::new(settings, Stored::new(ledger, generations, Kept::File(file))?))
    }

    /// Whether `folder` has a ledger of its own. One that only has the key is of registries that share theirs.
    pub fn has_ledger(folder: &Path) -> bool {
        LedgerFile::is_in(folder)
    }
}
