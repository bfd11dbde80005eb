//! How far a fetch of several documents is.

use crate::{
    holders::source::Source,
    transfer::{HolderProgress, ProgressSnapshot, fetch::job::FetchWatch},
};
use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// How far a fetch is, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct GetProgress {
    /// Documents to fetch, as far as is known: patterns are looked up first.
    pub documents: usize,
    /// Those of them that are there.
    pub documents_done: usize,
    /// Bytes of all, as far as is known.
    pub bytes: u64,
    /// Verified bytes, including those of earlier fetches.
    pub bytes_done: u64,
    /// Bytes that arrive a second, over the last seconds.
    pub bytes_per_second: u64,
    /// The holders in use, by name.
    pub holders: Vec<HolderProgress>,
    /// Documents under way, by name.
    pub current: Vec<String>,
    /// Why nothing moves, as text; `None` if something does.
    pub waiting: Option<String>,
    /// It has ended; its result says how.
    pub ended: bool,
}

/// What a fetch shows of itself.
#[derive(Default)]
pub(super) struct Shown(Mutex<State>);

#[derive(Default)]
struct State {
    documents: usize,
    documents_done: usize,
    bytes_done: u64,
    /// Bytes of documents that wait.
    bytes_waiting: u64,
    running: BTreeMap<u64, Running>,
}

struct Running {
    label: String,
    size: u64,
    watch: FetchWatch,
}

impl Shown {
    pub(super) fn begin(&self, documents: usize, bytes: u64) {
        let mut state = self.state();
        (state.documents, state.bytes_waiting) = (documents, bytes);
    }

    /// A document begins.
    pub(super) fn add(&self, number: u64, label: String, size: u64, watch: FetchWatch) {
        let mut state = self.state();
        state.bytes_waiting = state.bytes_waiting.saturating_sub(size);
        state.running.insert(number, Running { label, size, watch });
    }

    /// Whether all its bytes are here.
    pub(super) fn has_arrived(&self, number: u64) -> bool {
        self.state().running.get(&number).is_some_and(|running| running.watch.progress().has_arrived())
    }

    /// It is there.
    pub(super) fn done(&self, number: u64, bytes: u64) {
        let mut state = self.state();
        state.running.remove(&number);
        state.documents_done += 1;
        state.bytes_done += bytes;
    }

    /// It waits again.
    pub(super) fn put_back(&self, number: u64) {
        self.state().running.remove(&number);
    }

    pub(super) fn progress(&self, ended: bool) -> GetProgress {
        let state = self.state();
        let seen: Vec<(&Running, ProgressSnapshot)> =
            state.running.values().map(|running| (running, running.watch.progress().snapshot())).collect();
        let mut holders: BTreeMap<String, HolderProgress> = BTreeMap::new();
        for holder in seen.iter().flat_map(|(_, seen)| &seen.holders) {
            let all =
                holders.entry(holder.source.to_string()).or_insert_with(|| HolderProgress::new(Source::clone(&holder.source)));
            all.bytes += holder.bytes;
            all.bytes_per_second += holder.bytes_per_second;
            all.requests += holder.requests;
            all.idle = [all.idle, holder.idle].into_iter().flatten().min();
        }
        let is_idle = !seen.is_empty() && seen.iter().all(|(_, seen)| seen.why_idle().is_some());
        GetProgress {
            documents: state.documents,
            documents_done: state.documents_done,
            bytes: state.bytes_done
                + state.bytes_waiting
                + seen.iter().map(|(running, seen)| running.size.max(seen.size)).sum::<u64>(),
            bytes_done: state.bytes_done + seen.iter().map(|(_, seen)| seen.verified).sum::<u64>(),
            bytes_per_second: seen.iter().map(|(_, seen)| seen.bytes_per_second).sum(),
            holders: holders.into_values().collect(),
            current: seen.iter().map(|(running, _)| running.label.clone()).collect(),
            waiting: if is_idle { seen.first().and_then(|(_, seen)| seen.why_idle()) } else { None },
            ended,
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
