//! What this peer fetched into its share, apart from what its user put there: when each document was used last, and which are pinned.
//!
//! A document counts as fetched while its file is the one that was put there. A file that the user changed or replaced is the user's.

use super::{
    eviction::Candidate,
    state_file::{StateFile, Stored},
};
use crate::documents::{
    name_match::name_key,
    share::{Index, SharedDocument},
};
use p2pdi::id::PeerId;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

const FILE_NAME: &str = "fetched";
const FORMAT: &str = "p2pdi fetched 1";
/// How long a document that is not in the share any more is remembered: an unmounted folder can be back after a weekend.
const KEEP_MISSING: Duration = Duration::from_secs(30 * 24 * 3600);

#[derive(Clone, PartialEq, prost::Message)]
struct LedgerRecord {
    #[prost(message, repeated, tag = "1")]
    fetched: Vec<FetchedRecord>,
    #[prost(string, repeated, tag = "2")]
    pinned: Vec<String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct FetchedRecord {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(uint64, tag = "2")]
    size: u64,
    /// Number of the file, its modification time, and below its hash: another file or content of the name is the user's.
    #[prost(uint64, tag = "3")]
    inode: u64,
    #[prost(sint64, tag = "4")]
    modified_ns: i64,
    #[prost(uint64, tag = "5")]
    used_at_s: u64,
    /// The mirror that fetched it; empty: a job.
    #[prost(string, tag = "6")]
    mirror: String,
    /// Hash of the content; empty in records of earlier versions.
    #[prost(bytes = "vec", tag = "7")]
    blake3: Vec<u8>,
    /// Id of the followed peer that listed the name last; empty: none did.
    #[prost(bytes = "vec", tag = "8")]
    listed_by: Vec<u8>,
}

impl FetchedRecord {
    fn is(&self, document: &SharedDocument) -> bool {
        let fingerprint = &document.fingerprint;
        // A program can set the modification time back after it changed the content.
        (self.size, self.inode, self.modified_ns) == (document.size, fingerprint.inode(), fingerprint.modified_ns())
            && (self.blake3.is_empty() || self.blake3 == document.hash.as_bytes())
    }
}

/// The fetched documents. Shared by jobs, mirrors and the code that serves.
#[derive(Debug)]
pub(crate) struct Ledger {
    file: StateFile,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    fetched: BTreeMap<Box<str>, FetchedRecord>,
    pinned: BTreeSet<Box<str>>,
    /// Names being served, with how many streams read them.
    in_use: BTreeMap<Box<str>, usize>,
    /// Bytes of `fetched`.
    bytes: u64,
    /// There is something to write that must not be lost.
    changed: bool,
    /// Times of use changed, which may be lost.
    used: bool,
}

/// A document in use: it is not removed until this is dropped.
#[derive(Debug)]
#[must_use = "the document is in use until this is dropped"]
pub(crate) struct InUse {
    ledger: Arc<Ledger>,
    name: Box<str>,
}

/// Sums over the fetched documents.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Totals {
    pub(super) documents: u64,
    pub(super) bytes: u64,
    pub(super) pinned: u64,
}

impl Ledger {
    /// Reads the ledger of the state folder. Blocking. The text says what was wrong with the file; empty: nothing.
    ///
    /// # Errors
    /// When the file can be neither read nor put aside.
    pub(super) fn open(state: &Path) -> io::Result<(Arc<Self>, String)> {
        let file = StateFile::new(state, FILE_NAME, FORMAT);
        let Stored { message, problem } = file.read::<LedgerRecord>()?;
        let mut state = State::default();
        for record in message.fetched {
            state.insert(record.name.as_str().into(), record);
        }
        state.pinned = message.pinned.into_iter().map(String::into_boxed_str).collect();
        state.changed = false;
        Ok((Arc::new(Self { file, state: Mutex::new(state) }), problem))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records a document that was just fetched; `mirror`: the mirror that did.
    pub(super) fn record(&self, document: &SharedDocument, mirror: Option<&str>) {
        let record = FetchedRecord {
            name: document.name.to_string(),
            size: document.size,
            inode: document.fingerprint.inode(),
            modified_ns: document.fingerprint.modified_ns(),
            used_at_s: now_s(),
            mirror: mirror.unwrap_or_default().to_owned(),
            blake3: document.hash.as_bytes().to_vec(),
            listed_by: Vec::new(),
        };
        let mut state = self.state();
        // A newer version of a document is listed by whoever listed the one before.
        let listed_by = state.fetched.get(document.name.as_str()).filter(|before| before.mirror == record.mirror);
        let listed_by = listed_by.map(|before| before.listed_by.clone()).unwrap_or_default();
        state.insert(document.name.as_str().into(), FetchedRecord { listed_by, ..record });
    }

    /// Whether this peer fetched a document and nobody changed it since.
    pub(crate) fn owns(&self, document: &SharedDocument) -> bool {
        self.state().fetched.get(document.name.as_str()).is_some_and(|record| record.is(document))
    }

    /// Whether a document may be removed: this peer fetched it, nobody changed it, and it is neither pinned nor in use.
    pub(super) fn may_go(&self, document: &SharedDocument) -> bool {
        let (state, name) = (self.state(), document.name.as_str());
        let is_kept = state.pinned.contains(name) || state.in_use.contains_key(name);
        !is_kept && state.fetched.get(name).is_some_and(|record| record.is(document))
    }

    /// The names that a mirror fetched, each with the followed peer that listed it last.
    pub(super) fn of_mirror(&self, mirror: &str) -> Vec<(Box<str>, Option<PeerId>)> {
        let state = self.state();
        let of_mirror = state.fetched.iter().filter(|(_, record)| record.mirror == mirror);
        of_mirror.map(|(name, record)| (name.clone(), PeerId::from_field("listed_by", &record.listed_by).ok())).collect()
    }

    /// Notes that the followed peer `by` lists these names.
    pub(super) fn listed(&self, names: &[Box<str>], by: PeerId) {
        let mut state = self.state();
        for name in names {
            if let Some(record) = state.fetched.get_mut(name) {
                record.listed_by = by.as_bytes().to_vec();
                state.changed = true;
            }
        }
    }

    /// Forgets a document that was removed.
    pub(super) fn forget(&self, name: &str) {
        self.state().remove(name);
    }

    /// Marks a document as used until the result is dropped.
    pub(crate) fn begin_use(self: &Arc<Self>, name: &str) -> InUse {
        let mut state = self.state();
        state.touch(name);
        *state.in_use.entry(name.into()).or_default() += 1;
        InUse { ledger: Arc::clone(self), name: name.into() }
    }

    /// Pins a name, or releases it; returns whether it was so before.
    pub(super) fn pin(&self, name: &str, pin: bool) -> bool {
        let mut state = self.state();
        let unchanged = if pin { !state.pinned.insert(name.into()) } else { !state.pinned.remove(name) };
        state.changed |= !unchanged;
        unchanged
    }

    /// Whether a name is pinned.
    pub(super) fn is_pinned(&self, name: &str) -> bool {
        self.state().pinned.contains(name)
    }

    pub(super) fn totals(&self) -> Totals {
        let state = self.state();
        let pinned = state.pinned.iter().filter(|name| state.fetched.contains_key(*name)).count();
        Totals { documents: state.fetched.len() as u64, bytes: state.bytes, pinned: pinned as u64 }
    }

    /// The fetched documents of an index, to choose from what goes. `wanted`: the names that jobs and mirrors want, as
    /// [`name_key`] has them.
    pub(super) fn candidates(&self, index: &Index, wanted: &BTreeSet<Box<str>>) -> Vec<Candidate> {
        let state = self.state();
        let candidate = |(name, record): (&str, &FetchedRecord)| {
            index.by_name(name).filter(|document| document.name.as_str() == name && record.is(document))?;
            let kept = state.pinned.contains(name) || state.in_use.contains_key(name);
            let wanted = wanted.contains(&*name_key(name));
            Some(Candidate { name: name.into(), bytes: record.size, used_at_s: record.used_at_s, kept, wanted })
        };
        state.fetched.iter().map(|(name, record)| (&**name, record)).filter_map(candidate).collect()
    }

    /// Forgets what is not this peer's any more: files that were changed, and, after [`KEEP_MISSING`], files that are gone.
    pub(super) fn reconcile(&self, index: &Index) {
        let mut state = self.state();
        let oldest = now_s().saturating_sub(KEEP_MISSING.as_secs());
        let is_gone =
            |name: &str, record: &FetchedRecord| match index.by_name(name).filter(|document| document.name.as_str() == name) {
                Some(document) => !record.is(document),
                None => index.is_complete() && record.used_at_s < oldest,
            };
        let gone: Vec<_> =
            state.fetched.iter().filter(|(name, record)| is_gone(name, record)).map(|(name, _)| name.clone()).collect();
        for name in gone {
            state.remove(&name);
        }
    }

    /// Writes what changed; `uses`: also if only times of use changed. Blocking.
    ///
    /// # Errors
    /// When the disk refuses; the next call tries again.
    pub(super) fn save(&self, uses: bool) -> io::Result<()> {
        let record = {
            let mut state = self.state();
            if !(state.changed || uses && state.used) {
                return Ok(());
            }
            (state.changed, state.used) = (false, false);
            LedgerRecord {
                fetched: state.fetched.values().cloned().collect(),
                pinned: state.pinned.iter().map(ToString::to_string).collect(),
            }
        };
        self.file.write(&record).inspect_err(|_| self.state().changed = true)
    }
}

impl State {
    fn insert(&mut self, name: Box<str>, record: FetchedRecord) {
        self.bytes = self.bytes.saturating_add(record.size);
        if let Some(before) = self.fetched.insert(name, record) {
            self.bytes = self.bytes.saturating_sub(before.size);
        }
        self.changed = true;
    }

    fn remove(&mut self, name: &str) {
        if let Some(record) = self.fetched.remove(name) {
            self.bytes = self.bytes.saturating_sub(record.size);
            self.changed = true;
        }
    }

    fn touch(&mut self, name: &str) {
        if let Some(record) = self.fetched.get_mut(name) {
            record.used_at_s = now_s();
            self.used = true;
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        let mut state = self.ledger.state();
        state.touch(&self.name);
        if let Some(count) = state.in_use.get_mut(&self.name) {
            *count -= 1;
            if *count == 0 {
                state.in_use.remove(&self.name);
            }
        }
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
}
