//! Fetching from broken, malicious and vanishing holders, and to disks that fail.
//!
//! Every test ends with a check of the target folder: a file there is complete and correct, or absent.

#![allow(
    clippy::expect_used,
    clippy::unwrap_used,
    clippy::panic,
    clippy::cast_possible_truncation,
    clippy::print_stdout,
    reason = "a test fails by a panic, in its helpers too"
)]

mod disk;
mod first_request;
mod headers;
mod job;
mod network;
mod resume;
mod settling;
mod streams;
#[path = "../support/mod.rs"]
mod support;
mod unreachable;

use p2pdi::content::ContentHash;
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::{
        search::{Freshness, SearchHolders},
        source::Source,
        tracker::NoTracker,
    },
    transfer::{FetchError, FetchOptions, Fetched, NoMoreHolders, Progress, SourceReport, Swarms, fetch},
};
use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};
use support::{
    document::{PIECE, Sample},
    holder::Holder,
    within,
};
use tempfile::TempDir;

/// A target folder, and how to fetch into it.
struct Target {
    folder: TempDir,
    channels: ChannelPool,
    /// How long a holder may stay silent.
    stall: Duration,
    out: PathBuf,
    progress: Arc<Progress>,
}

impl Target {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let out = folder.path().join("out");
        // Long enough for honest holders on a busy machine, short enough for tests with silent ones.
        Self { folder, channels: ChannelPool::new(None), stall: Duration::from_secs(20), out, progress: Arc::default() }
    }

    /// For tests with a silent holder.
    fn impatient() -> Self {
        Self { stall: Duration::from_millis(500), ..Self::new() }
    }

    fn options(&self) -> FetchOptions {
        let swarms = Swarms::of_a_client("tester".parse().unwrap(), Arc::new(NoTracker));
        FetchOptions { stall: self.stall, ..FetchOptions::new(&self.out, swarms) }
    }

    async fn fetch(&self, wanted: &DocumentSelector, sources: Vec<Source>) -> Result<Fetched, FetchError> {
        self.fetch_with(wanted, sources, Arc::new(NoMoreHolders)).await
    }

    async fn fetch_with(
        &self,
        wanted: &DocumentSelector,
        sources: Vec<Source>,
        finder: Arc<impl SearchHolders>,
    ) -> Result<Fetched, FetchError> {
        let options = self.options();
        let fetching = fetch(&self.channels, wanted, sources, finder, &options, &self.progress);
        within("the fetch", Box::pin(fetching)).await
    }

    /// All files below the target folder, with their content.
    fn files(&self) -> Vec<(String, Vec<u8>)> {
        let mut found = Vec::new();
        let mut folders = vec![self.folder.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    folders.push(path);
                } else {
                    found.push((relative(&path, self.folder.path()), fs::read(&path).unwrap()));
                }
            }
        }
        found.sort();
        found
    }

    /// The files that a user sees there, without partial files and their records.
    fn visible(&self) -> Vec<(String, Vec<u8>)> {
        let is_visible = |name: &str| [".part", ".part.pieces", ".part.zeros"].iter().all(|end| !name.ends_with(end));
        self.files().into_iter().filter(|(name, _)| is_visible(name)).collect()
    }

    fn partial_path(&self) -> PathBuf {
        let files = self.files();
        let partials: Vec<_> = files.iter().filter(|(name, _)| name.ends_with(".part")).collect();
        assert_eq!(partials.len(), 1, "{:?}", files.iter().map(|(name, _)| name).collect::<Vec<_>>());
        self.folder.path().join(&partials[0].0)
    }

    /// Asserts that the folder has the sample and nothing else, not even a partial file.
    #[track_caller]
    fn assert_holds_only(&self, sample: &Sample) {
        let files = self.files();
        assert_eq!(files.len(), 1, "{:?}", files.iter().map(|(name, data)| (name, data.len())).collect::<Vec<_>>());
        assert_eq!(files[0].0, format!("out/{}", sample.name));
        assert!(files[0].1 == sample.data, "the file is not the document");
    }

    #[track_caller]
    fn assert_nothing_visible(&self) {
        let visible = self.visible();
        assert!(visible.is_empty(), "{:?}", visible.iter().map(|(name, data)| (name, data.len())).collect::<Vec<_>>());
    }
}

fn relative(path: &Path, to: &Path) -> String {
    path.strip_prefix(to).unwrap().to_str().unwrap().to_owned()
}

fn hash(sample: &Sample) -> DocumentSelector {
    DocumentSelector::Hash(sample.hash())
}

/// Why a source was dropped.
#[track_caller]
fn dropped<'a>(reports: &'a [SourceReport], name: &str) -> &'a str {
    let report = reports.iter().find(|report| report.source.label() == name).expect("a report of every source");
    report.dropped.as_deref().unwrap_or_else(|| panic!("{name} was not dropped"))
}

#[track_caller]
fn kept(reports: &[SourceReport], name: &str) -> u64 {
    let report = reports.iter().find(|report| report.source.label() == name).expect("a report of every source");
    assert_eq!(report.dropped, None);
    report.bytes
}

/// The pieces in the ranges that a holder was asked for, in ascending order. A range that was cut before it arrived is asked for again.
fn asked_pieces(holder: &Holder) -> Vec<u64> {
    let ranges = holder.requests().into_iter().filter(|request| request.length > 0);
    let pieces = ranges.flat_map(|request| request.offset / PIECE..(request.offset + request.length).div_ceil(PIECE));
    let mut pieces: Vec<_> = pieces.collect();
    pieces.sort_unstable();
    pieces.dedup();
    pieces
}

/// Asserts that each byte of the sample was credited to one source, and that no more than `extra` others arrived with the target's fetches.
#[track_caller]
fn assert_fetched_once(target: &Target, fetched: &Fetched, sample: &Sample, extra: u64) {
    let credited: u64 = fetched.sources.iter().map(|report| report.bytes).sum();
    assert_eq!(credited + fetched.resumed_bytes, sample.size(), "{:?}", fetched.sources);
    let received = target.progress.snapshot().received;
    assert!(received <= sample.size() + extra, "{received} bytes arrived of a document of {}", sample.size());
}

/// Finds these holders, and records the searches.
#[derive(Default)]
struct Finds {
    sources: Vec<Source>,
    asked: Mutex<Vec<ContentHash>>,
}

impl SearchHolders for Finds {
    async fn search(&self, hash: ContentHash, _: Freshness) -> Vec<Source> {
        self.asked.lock().unwrap().push(hash);
        self.sources.clone()
    }
}
