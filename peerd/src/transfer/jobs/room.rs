//! Room for what is fetched: the quota, the space that stays free, and the removal of what was used least recently.

use super::{
    eviction::{Chosen, Usage, choose},
    ledger::Ledger,
};
use crate::{config::MinFree, documents::share::Share, transfer::fetch::progress::Progress};
use metrics::{Counter, Gauge};
use p2pdi::{
    log_limit::{Line, LogLimit},
    metrics::Metrics,
    platform::{disk_bytes, free_bytes},
    v1::FetchedStatus,
};
use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// Mirrored peers can offer any number of documents, for which others go.
static EVICTED_LOG: LogLimit = LogLimit::new(10);
static NOT_EVICTED_LOG: LogLimit = LogLimit::new(1);

/// The limits of what is fetched.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct RoomLimits {
    /// Most bytes that fetched documents may take.
    pub(crate) quota: Option<u64>,
    /// Bytes of the disk that stay free.
    pub(crate) min_free: Option<MinFree>,
}

/// Makes room and keeps the limits.
pub(super) struct Room {
    limits: Mutex<RoomLimits>,
    /// Since [`Self::limits_changed`] was asked.
    changed: AtomicBool,
    share: Share,
    ledger: Arc<Ledger>,
    under_way: Mutex<UnderWay>,
    /// Held while room is made, so that two fetches do not count the same room.
    making: Mutex<()>,
    evicted: AtomicU64,
    evictions: Counter,
    evicted_bytes: Counter,
    fetched_bytes: Gauge,
}

/// The documents for which room was made, and that the ledger does not have yet.
#[derive(Default)]
struct UnderWay {
    last: u64,
    documents: BTreeMap<u64, Document>,
}

struct Document {
    bytes: u64,
    /// Those that the disk had before.
    there: u64,
    progress: Arc<Progress>,
}

impl UnderWay {
    fn bytes(&self) -> u64 {
        self.documents.values().map(|document| document.bytes).fold(0, u64::saturating_add)
    }

    /// Bytes of the free ones that they are still to take.
    fn owed(&self) -> u64 {
        self.documents.values().map(Document::owed).fold(0, u64::saturating_add)
    }
}

impl Document {
    fn owed(&self) -> u64 {
        if self.progress.has_room() {
            return 0;
        }
        self.bytes.saturating_sub(self.there.max(self.progress.verified()))
    }
}

/// Room for a document under way, until this is dropped.
pub(super) struct RoomTaken {
    room: Arc<Room>,
    id: u64,
}

/// Why there is no room.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum NoRoom {
    /// There may be later.
    Now(String),
    /// The limits never allow it.
    Never(String),
}

impl Room {
    pub(super) fn new(limits: RoomLimits, share: Share, ledger: Arc<Ledger>, metrics: &Metrics) -> Arc<Self> {
        Arc::new(Self {
            limits: Mutex::new(limits),
            changed: AtomicBool::new(false),
            share,
            ledger,
            under_way: Mutex::default(),
            making: Mutex::default(),
            evicted: AtomicU64::new(0),
            evictions: metrics.counter("p2pdi_evictions_total", "Fetched documents removed to make room", &[]),
            evicted_bytes: metrics.counter("p2pdi_evicted_bytes_total", "Bytes of fetched documents removed to make room", &[]),
            fetched_bytes: metrics.gauge("p2pdi_fetched_bytes", "Bytes of the documents that jobs and mirrors fetched", &[]),
        })
    }

    /// Other limits from now on.
    pub(super) fn set_limits(&self, limits: RoomLimits) {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner) = limits;
        self.changed.store(true, Ordering::Relaxed);
    }

    /// Whether the limits changed since this was asked.
    pub(super) fn limits_changed(&self) -> bool {
        self.changed.swap(false, Ordering::Relaxed)
    }

    fn limits(&self) -> RoomLimits {
        *self.limits.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Most bytes that fetched documents may take.
    pub(super) fn quota(&self) -> Option<u64> {
        self.limits().quota
    }

    fn under_way(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Makes room for a document of `bytes`, of which `there` are on the disk already, and whose fetch shows `progress`. `wanted`: the names
    /// that jobs and mirrors want; they make no room for each other. Blocking.
    ///
    /// # Errors
    /// When there is no room even without all that may go; then nothing is removed.
    pub(super) fn take(
        self: &Arc<Self>,
        label: &str,
        bytes: u64,
        there: u64,
        progress: Arc<Progress>,
        wanted: impl FnOnce() -> BTreeSet<Box<str>>,
    ) -> Result<RoomTaken, NoRoom> {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(quota) = self.limits().quota.filter(|quota| bytes > *quota) {
            return Err(NoRoom::Never(format!("{label} has {bytes} bytes, more than the quota of {quota}; raise --quota")));
        }
        // What is on the disk already needs no more of it, but counts towards the quota.
        let (usage, owed) = (self.usage(), self.under_way().owed());
        let unclaimed = usage.free.map(|free| free.saturating_sub(owed).saturating_add(there));
        let lacking = Usage { free: unclaimed, ..usage }.lacking(bytes);
        if lacking > 0 {
            let mut candidates = self.ledger.candidates(&self.share.index(), &wanted());
            candidates.retain(|candidate| !candidate.wanted);
            let Chosen { names, lacking } = choose(candidates, lacking);
            if lacking > 0 {
                return Err(NoRoom::Now(format!(
                    "{lacking} bytes of room are lacking for {label}: {}",
                    self.describe(&usage, owed)
                )));
            }
            self.evict(&names, &format!("to make room for {label}"));
        }
        let mut under_way = self.under_way();
        under_way.last += 1;
        let id = under_way.last;
        under_way.documents.insert(id, Document { bytes, there, progress });
        Ok(RoomTaken { room: Arc::clone(self), id })
    }

    /// Removes what exceeds the limits, such as after other programs filled the disk; what jobs and mirrors want goes last. Blocking.
    pub(super) fn keep_limits(&self, wanted: impl FnOnce() -> BTreeSet<Box<str>>) {
        let _making = self.making.lock().unwrap_or_else(PoisonError::into_inner);
        let index = self.share.index();
        self.ledger.reconcile(&index);
        self.fetched_bytes.set(self.ledger.totals().bytes as f64);
        let lacking = self.usage().lacking(0);
        if lacking > 0 {
            let chosen = choose(self.ledger.candidates(&index, &wanted()), lacking);
            self.evict(&chosen.names, "to keep --quota and --min-free");
        }
    }

    /// Bytes that there is room for without removing anything. Blocking.
    pub(super) fn left(&self) -> u64 {
        let usage = self.usage();
        let free = self.share.folder().and_then(|folder| free_bytes(folder).ok().flatten()).unwrap_or(u64::MAX);
        let of_quota = usage.quota.map_or(u64::MAX, |quota| quota.saturating_sub(usage.fetched));
        free.saturating_sub(self.under_way().owed()).saturating_sub(usage.min_free.unwrap_or(0)).min(of_quota)
    }

    /// How much of the limits is used.
    pub(super) fn status(&self) -> FetchedStatus {
        let totals = self.ledger.totals();
        let usage = self.usage();
        let lacking = usage.lacking(0);
        FetchedStatus {
            documents: totals.documents,
            bytes: totals.bytes,
            pinned: totals.pinned,
            evicted: self.evicted.load(Ordering::Relaxed),
            quota: usage.quota.unwrap_or(0),
            min_free: usage.min_free.unwrap_or(0),
            detail: if lacking > 0 { self.describe(&usage, 0) } else { String::new() },
        }
    }

    fn usage(&self) -> Usage {
        let folder = self.share.folder();
        let asked =
            |ask: fn(&std::path::Path) -> std::io::Result<Option<u64>>| folder.and_then(|folder| ask(folder).ok().flatten());
        let limits = self.limits();
        let min_free = limits.min_free.and_then(|min_free| match min_free {
            MinFree::Bytes(bytes) => Some(bytes),
            MinFree::Percent(percent) => Some(asked(disk_bytes)? / 100 * u64::from(percent)),
        });
        Usage {
            quota: limits.quota,
            min_free,
            free: min_free.and_then(|_| asked(free_bytes)),
            fetched: self.ledger.totals().bytes.saturating_add(self.under_way().bytes()),
        }
    }

    /// `owed`: bytes of the free ones that documents under way are still to take.
    fn describe(&self, usage: &Usage, owed: u64) -> String {
        let mut parts = Vec::new();
        if let Some(quota) = usage.quota {
            parts.push(format!("fetched documents take {} bytes of a quota of {quota}", usage.fetched));
        }
        if let (Some(min_free), Some(free)) = (usage.min_free, usage.free) {
            let owed = if owed > 0 { format!(", of which documents under way take {owed},") } else { String::new() };
            parts.push(format!("{free} bytes of the disk are free{owed} and {min_free} must stay free"));
        }
        let pinned = self.ledger.totals().pinned;
        format!(
            "{}; {pinned} documents are pinned, and what mirrors and unfinished jobs want stays; remove files, unpin documents, \
             want fewer, or change --quota or --min-free",
            parts.join("; ")
        )
    }

    fn evict(&self, names: &[Box<str>], why: &str) {
        let index = self.share.index();
        for name in names {
            let Some(document) = index.by_name(name).filter(|document| *document.name.as_str() == **name) else { continue };
            match self.share.remove(document) {
                Ok(()) => {
                    if let Some(Line { suppressed }) = EVICTED_LOG.line() {
                        tracing::info!(document = %name, bytes = document.size, suppressed, "removed {why}: it was used least recently");
                    }
                    self.ledger.forget(name);
                    self.evicted.fetch_add(1, Ordering::Relaxed);
                    self.evictions.increment(1);
                    self.evicted_bytes.increment(document.size);
                }
                Err(error) => {
                    if let Some(Line { suppressed }) = NOT_EVICTED_LOG.line() {
                        tracing::warn!(document = %name, %error, suppressed, "cannot remove a fetched document to make room");
                    }
                }
            }
        }
    }
}

impl Drop for RoomTaken {
    fn drop(&mut self) {
        self.room.under_way().documents.remove(&self.id);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::documents::share::ShareConfig;

    #[tokio::test]
    async fn what_a_document_under_way_is_still_to_take_is_not_free_for_another() {
        let (folder, state) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let config = ShareConfig::new(Some(folder.path().to_owned()), state.path().to_owned());
        let (share, _indexer) = Share::open(config, &Metrics::default()).unwrap();
        let (ledger, _) = Ledger::open(state.path()).unwrap();
        let limits = RoomLimits { quota: None, min_free: Some(MinFree::Bytes(1)) };
        let room = Room::new(limits, share, ledger, &Metrics::default());
        let free = free_bytes(folder.path()).unwrap().unwrap();
        // Others use the disk meanwhile, but hardly a quarter of it.
        let half = free / 8 * 5;
        let first = Arc::<Progress>::default();
        let take = |progress: &Arc<Progress>| room.take("doc", half, 0, Arc::clone(progress), BTreeSet::new);
        let taken = take(&first).map_err(|why| format!("{why:?}")).unwrap();
        let Err(NoRoom::Now(why)) = take(&Arc::default()) else { panic!("there is no room for both") };
        assert!(why.contains(&format!("of which documents under way take {half}")), "{why}");
        // Room that is set aside, and what is verified, is not free any more. Neither is really taken here.
        first.begin(half, 0);
        first.set_room();
        drop(take(&Arc::default()).map_err(|why| format!("{why:?}")).unwrap());
        first.begin(half, half / 2);
        assert_eq!(room.under_way().owed(), half - half / 2);
        drop(taken);
        assert!(room.under_way().documents.is_empty());
    }
}
