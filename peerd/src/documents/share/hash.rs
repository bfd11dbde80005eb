//! Reads and hashes files on all cores: several small files in parallel, and the pieces of a large file in parallel.

use super::{
    document::Fingerprint,
    root::Root,
    title::{HEAD_BYTES, title},
};
use crate::documents::rfc_number::rfc_number;
use p2pdi::{
    content::{ContentHash, PIECE_SIZE_MIN, PieceHash, PieceHashes, Pieces},
    document::DocumentName,
    platform::{self, FileStat, Folder, LookupError},
};
use std::{
    collections::VecDeque,
    fs::File,
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    thread,
};

/// Bytes per read: enough for BLAKE3's widest SIMD code, and they stay in a core's cache.
const READ_BYTES: usize = 256 * 1024;
// So a file of one piece is in the buffer as a whole when it is hashed, and its first bytes are there for the title.
const _: () = assert!(READ_BYTES as u64 == PIECE_SIZE_MIN && HEAD_BYTES <= READ_BYTES);
/// A file of up to this many bytes is hashed by one thread, a larger one by all threads.
const SMALL_BYTES: u64 = 8 * 1024 * 1024;
/// Bytes of a large file that a thread takes at a time; at least one piece.
const SLICE_BYTES: u64 = 4 * 1024 * 1024;

/// A file to hash.
#[derive(Debug, Clone)]
pub(super) struct Job {
    pub(super) name: DocumentName,
    pub(super) fingerprint: Fingerprint,
    /// The hash is known from the cache; only the title is needed.
    pub(super) known: Option<ContentHash>,
}

/// A job and its result.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) job: Job,
    pub(super) result: Result<Hashed, Failure>,
}

/// What was computed from a file's content and name.
#[derive(Debug, Clone)]
pub(super) struct Hashed {
    pub(super) hash: ContentHash,
    /// Set for a document of more than one piece, unless the hash was known.
    pub(super) pieces: Option<PieceHashes>,
    pub(super) number: Option<u32>,
    pub(super) title: Box<str>,
}

/// Why a file was not hashed.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("it changed since the scan or while it was read")]
    Changed,
    #[error("it cannot be read: {0}")]
    Unreadable(#[from] io::Error),
    #[error("a bug: hashing it panicked")]
    Panicked,
}

/// The hashing threads. A thread ends when there is nothing to do.
pub(super) struct Pool {
    shared: Arc<Shared>,
}

struct Shared {
    root: Root,
    threads_max: usize,
    deliver: Box<dyn Fn(Outcome) + Send + Sync>,
    hashed_bytes: Arc<AtomicU64>,
    queue: Mutex<Queue>,
    thread_ended: Condvar,
}

#[derive(Default)]
struct Queue {
    small: VecDeque<Job>,
    large: VecDeque<Job>,
    /// Large files that still have pieces to read.
    open: VecDeque<Arc<Large>>,
    threads: usize,
    stopping: bool,
}

struct Large {
    job: Job,
    file: File,
    pieces: Pieces,
    progress: Mutex<Progress>,
}

struct Progress {
    next: usize,
    missing: usize,
    hashes: Vec<Option<PieceHash>>,
    failed: bool,
}

enum Task {
    Whole(Job),
    Open(Job),
    Slice(Arc<Large>),
}

impl Pool {
    /// A pool that reads below `root`, calls `deliver` with each outcome, and adds the bytes it reads to `hashed_bytes`.
    pub(super) fn new(root: Root, hashed_bytes: Arc<AtomicU64>, deliver: impl Fn(Outcome) + Send + Sync + 'static) -> Self {
        let threads_max = thread::available_parallelism().map_or(1, usize::from);
        let deliver = Box::new(deliver);
        let queue = Mutex::new(Queue::default());
        Self { shared: Arc::new(Shared { root, threads_max, deliver, hashed_bytes, queue, thread_ended: Condvar::new() }) }
    }

    /// Queues files to hash. The caller bounds how many are queued.
    pub(super) fn submit(&self, jobs: impl IntoIterator<Item = Job>) {
        let mut queue = self.shared.lock();
        for job in jobs {
            let small = job.known.is_some() || job.fingerprint.size <= SMALL_BYTES;
            if small { &mut queue.small } else { &mut queue.large }.push_back(job);
        }
        self.shared.start_threads(queue);
    }
}

impl Drop for Pool {
    /// Stops the threads and waits for them. Jobs in progress are dropped.
    fn drop(&mut self) {
        let mut queue = self.shared.lock();
        queue.stopping = true;
        while queue.threads > 0 {
            queue = self.shared.thread_ended.wait(queue).unwrap_or_else(PoisonError::into_inner);
        }
    }
}

/// Decrements the number of threads if a thread ends by a panic. Otherwise [`Shared::next`] has done so.
struct ThreadCount {
    shared: Arc<Shared>,
    counted: bool,
}

impl Drop for ThreadCount {
    fn drop(&mut self) {
        if self.counted {
            self.shared.lock().threads -= 1;
            self.shared.thread_ended.notify_all();
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts as many threads as the queued work needs, up to the limit.
    fn start_threads(self: &Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        let slices: usize = queue.open.iter().map(|large| large.pieces.count()).sum();
        let queued = queue.small.len() + queue.large.len() + slices;
        let missing = if queue.stopping { 0 } else { queued.min(self.threads_max).saturating_sub(queue.threads) };
        queue.threads += missing;
        drop(queue);
        for _ in 0..missing {
            let count = ThreadCount { shared: Arc::clone(self), counted: true };
            let spawned = thread::Builder::new().name("share-hash".into()).spawn(move || {
                // Uploads go first.
                platform::lower_thread_priority();
                Self::work(count);
            });
            if let Err(error) = spawned {
                tracing::warn!(%error, "cannot start a hashing thread");
            }
        }
        let mut queue = self.lock();
        if missing > 0 && queue.threads == 0 && !queue.stopping {
            // No thread could be started: the caller's thread does the work.
            queue.threads += 1;
            drop(queue);
            Self::work(ThreadCount { shared: Arc::clone(self), counted: true });
        }
    }

    fn work(mut count: ThreadCount) {
        let shared = Arc::clone(&count.shared);
        let mut buffer = vec![0; READ_BYTES];
        let mut root = None;
        while let Some(task) = shared.next(&mut count) {
            match task {
                Task::Whole(job) => {
                    let result = catch_panic(|| shared.whole(&job, &mut root, &mut buffer));
                    shared.finish(job, result);
                }
                Task::Open(job) => match shared.open(&job, &mut root) {
                    Err(failure) => shared.finish(job, Err(failure)),
                    Ok((file, pieces)) => {
                        let hashes = vec![None; pieces.count()];
                        let progress = Progress { next: 0, missing: hashes.len(), hashes, failed: false };
                        let mut queue = shared.lock();
                        queue.open.push_back(Arc::new(Large { job, file, pieces, progress: Mutex::new(progress) }));
                        shared.start_threads(queue);
                    }
                },
                Task::Slice(large) => {
                    if let Some(result) = shared.slice(&large, &mut buffer) {
                        shared.lock().open.retain(|other| !Arc::ptr_eq(other, &large));
                        shared.finish(large.job.clone(), result);
                    }
                }
            }
        }
    }

    /// The next task. Small files go first, so that they do not wait for a large one.
    fn next(&self, count: &mut ThreadCount) -> Option<Task> {
        let mut queue = self.lock();
        let small = |queue: &mut Queue| queue.small.pop_front().map(Task::Whole);
        let slice = |queue: &mut Queue| queue.open.front().cloned().map(Task::Slice);
        let large = |queue: &mut Queue| queue.large.pop_front().map(Task::Open);
        let next =
            if queue.stopping { None } else { small(&mut queue).or_else(|| slice(&mut queue)).or_else(|| large(&mut queue)) };
        if next.is_none() {
            // Under the same lock, so that a later `submit` sees that this thread has ended, and starts another.
            count.counted = false;
            queue.threads -= 1;
            self.thread_ended.notify_all();
        }
        next
    }

    fn finish(&self, job: Job, result: Result<Hashed, Failure>) {
        (self.deliver)(Outcome { job, result });
    }

    fn stopping(&self) -> bool {
        self.lock().stopping
    }

    /// Opens a job's file. The share's folder stays open from one file to the next; if that fails it is opened again, since it can have
    /// been replaced.
    fn open(&self, job: &Job, root: &mut Option<Folder>) -> Result<(File, Pieces), Failure> {
        let path = job.name.to_relative_path();
        let opened = match root.as_ref().map(|root| root.open_file(&path)) {
            Some(Ok(opened)) => Ok(opened),
            _ => root.insert(self.root.open()?).open_file(&path),
        };
        let (file, stat) = opened.map_err(|error| match error {
            // The next scan finds out what is there now.
            LookupError::NotFound | LookupError::NotAFile => Failure::Changed,
            error => Failure::Unreadable(error.into()),
        })?;
        let pieces = Pieces::of_size(job.fingerprint.size).map_err(|_| Failure::Changed)?;
        if Fingerprint::of(&stat) == job.fingerprint { Ok((file, pieces)) } else { Err(Failure::Changed) }
    }

    fn whole(&self, job: &Job, root: &mut Option<Folder>, buffer: &mut [u8]) -> Result<Hashed, Failure> {
        let (file, pieces) = self.open(job, root)?;
        if let Some(hash) = job.known {
            return hashed(job, hash, None, head(&file, job, buffer)?);
        }
        if pieces.count() == 1 {
            let hash = self.piece(&file, pieces, 0, buffer)?;
            unchanged(&file, job)?;
            let hashes = PieceHashes::new(pieces, vec![hash]).ok_or(Failure::Changed)?;
            // The buffer holds the whole file.
            let length = usize::try_from(pieces.size()).unwrap_or(usize::MAX).min(HEAD_BYTES);
            return hashed(job, hashes.merge(), None, buffer.get(..length).unwrap_or_default());
        }
        let hashes = (0..pieces.count()).map(|index| self.piece(&file, pieces, index, buffer)).collect::<Result<_, _>>()?;
        self.complete(&file, job, pieces, hashes, buffer)
    }

    /// Hashes some pieces of a large file. The thread that finishes the last piece, or that fails first, returns the result.
    fn slice(&self, large: &Large, buffer: &mut [u8]) -> Option<Result<Hashed, Failure>> {
        let progress = || large.progress.lock().unwrap_or_else(PoisonError::into_inner);
        let all = large.pieces.count();
        let range = {
            let mut progress = progress();
            let start = progress.next;
            let count = usize::try_from(SLICE_BYTES / large.pieces.piece_size()).unwrap_or(1).max(1);
            progress.next = (start + count).min(all);
            start..progress.next
        };
        if range.end == all {
            // No pieces left to take: the other threads continue with the next file.
            self.lock().open.retain(|other| !std::ptr::eq(Arc::as_ptr(other), large));
        }
        let read = catch_panic(|| {
            let hashes = range.clone().map(|index| self.piece(&large.file, large.pieces, index, buffer));
            let hashes = hashes.collect::<Result<Vec<_>, _>>()?;
            unchanged(&large.file, &large.job)?;
            Ok(hashes)
        });
        let hashes = {
            let mut progress = progress();
            if progress.failed {
                return None;
            }
            match read {
                Err(failure) => {
                    progress.failed = true;
                    return Some(Err(failure));
                }
                Ok(hashes) => {
                    progress.missing -= hashes.len();
                    for (index, hash) in range.zip(hashes) {
                        if let Some(slot) = progress.hashes.get_mut(index) {
                            *slot = Some(hash);
                        }
                    }
                    if progress.missing > 0 || all == 0 {
                        return None;
                    }
                    // The result is taken; no other thread returns one.
                    progress.failed = true;
                    std::mem::take(&mut progress.hashes)
                }
            }
        };
        let hashes = hashes.into_iter().flatten().collect();
        Some(catch_panic(|| self.complete(&large.file, &large.job, large.pieces, hashes, buffer)))
    }

    fn piece(&self, file: &File, pieces: Pieces, index: usize, buffer: &mut [u8]) -> Result<PieceHash, Failure> {
        let mut hasher = pieces.hasher(index);
        let mut range = pieces.range(index);
        while !range.is_empty() {
            let length = usize::try_from(range.end - range.start).unwrap_or(usize::MAX).min(buffer.len());
            let part = buffer.get_mut(..length).unwrap_or_default();
            platform::read_exact_at(file, part, range.start).map_err(|error| match error.kind() {
                io::ErrorKind::UnexpectedEof => Failure::Changed,
                _ => Failure::Unreadable(error),
            })?;
            hasher.update(part);
            range.start += length as u64;
            self.hashed_bytes.fetch_add(length as u64, Ordering::Relaxed);
            // A piece can have gigabytes, so stop within one.
            if length == READ_BYTES && self.stopping() {
                return Err(Failure::Changed);
            }
        }
        Ok(hasher.finalize())
    }

    fn complete(
        &self,
        file: &File,
        job: &Job,
        pieces: Pieces,
        hashes: Vec<PieceHash>,
        buffer: &mut [u8],
    ) -> Result<Hashed, Failure> {
        let hashes = PieceHashes::new(pieces, hashes).ok_or(Failure::Changed)?;
        let head = head(file, job, buffer)?;
        hashed(job, hashes.merge(), Some(hashes), head)
    }
}

/// Reads the first bytes for the title, and then checks that the file did not change while it was read.
fn head<'a>(file: &File, job: &Job, buffer: &'a mut [u8]) -> Result<&'a [u8], Failure> {
    let length = usize::try_from(job.fingerprint.size).unwrap_or(usize::MAX).min(HEAD_BYTES).min(buffer.len());
    let head = buffer.get_mut(..length).unwrap_or_default();
    platform::read_exact_at(file, head, 0)?;
    unchanged(file, job)?;
    Ok(head)
}

fn unchanged(file: &File, job: &Job) -> Result<(), Failure> {
    let stat = FileStat::of(file)?;
    if Fingerprint::of(&stat) == job.fingerprint { Ok(()) } else { Err(Failure::Changed) }
}

fn hashed(job: &Job, hash: ContentHash, pieces: Option<PieceHashes>, head: &[u8]) -> Result<Hashed, Failure> {
    let file_name = job.name.file_name();
    let title = title(file_name, head);
    Ok(Hashed { hash, pieces, number: rfc_number(file_name), title: title.into() })
}

/// A panic while one file is read, such as in its title, fails that file only.
fn catch_panic<T>(read: impl FnOnce() -> Result<T, Failure>) -> Result<T, Failure> {
    catch_unwind(AssertUnwindSafe(read)).unwrap_or(Err(Failure::Panicked))
}
