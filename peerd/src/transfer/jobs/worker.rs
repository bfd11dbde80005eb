//! The fetch of one document into the share: room, the fetch itself, and its place in the index.

use super::{
    items::{Key, Outcome, Target},
    mirror::other_content,
    queue::Owner,
    room::{NoRoom, RoomTaken},
    shared::Shared,
};
use crate::{
    documents::{selector::DocumentSelector, share::SharedDocument},
    holders::{
        network_peers::NetworkPeers,
        search::{Freshness, HolderSearch, SearchError, ask},
        settlement::{Settled, Settlement},
        source::Source,
    },
    transfer::{
        fetch::{
            job::{FetchJob, FetchWatch, JobError},
            outcome::{FetchError, Fetched},
        },
        store::{error::WriteError, partial_file::partial_name},
    },
};
use p2pdi::{
    content::ContentHash,
    document::DocumentName,
    log_limit::{Line, LogLimit},
    platform::allocated_bytes,
};
use std::{
    convert::Infallible,
    fs::{self, File},
    io,
    path::{MAIN_SEPARATOR, Path},
    sync::Arc,
    time::Duration,
};
use tokio::{
    task::spawn_blocking,
    time::{interval, timeout},
};
use tokio_util::sync::CancellationToken;

/// How long a document that is there may take until the index has it.
const INDEX_TIMEOUT: Duration = Duration::from_secs(10);
/// How often a fetch is asked for the size of its document, until it knows it.
const SIZE_EVERY: Duration = Duration::from_millis(100);

/// One document to fetch.
pub(super) struct Work {
    pub(super) owner: Owner,
    pub(super) key: Key,
    pub(super) target: Target,
    /// The holders that the job names; none: all peers are asked.
    pub(super) asked: Vec<Source>,
    pub(super) job: FetchJob<NetworkPeers>,
    pub(super) watch: Arc<FetchWatch>,
    /// The mirror that wants it.
    pub(super) mirror: Option<String>,
    /// Ends the fetch.
    pub(super) stop: CancellationToken,
}

/// Fetches a document; `None` if it was stopped.
pub(super) async fn fetch(shared: Arc<Shared>, work: Work) -> Option<Outcome> {
    let stop = work.stop.clone();
    let _counted = shared.downloads.begin();
    tokio::select! {
        biased;
        () = stop.cancelled() => None,
        outcome = fetch_into_share(&shared, work) => Some(outcome),
    }
}

async fn fetch_into_share(shared: &Arc<Shared>, work: Work) -> Outcome {
    let Work { owner, key, target, asked, job, watch, mirror, .. } = work;
    let job = match compare_with_own(shared, &target, &asked).await {
        Compared::Ended(outcome) => return outcome,
        Compared::Newer(settled) => job.beginning_with(*settled),
        Compared::Wanted => job,
    };
    // The room taken, and for how many bytes: a name may turn out to mean another content than the one that is known.
    let mut taken: Option<(u64, RoomTaken)> = None;
    if target.size > 0 {
        match take(shared, owner, &target, target.size, &watch).await {
            Ok(room) => taken = Some((target.size, room)),
            Err(outcome) => return outcome,
        }
    }
    let mut run = Box::pin(job.run());
    let mut looks = interval(SIZE_EVERY);
    let mut is_sized = matches!(target.selector, DocumentSelector::Hash(_)) && taken.is_some();
    let fetched = loop {
        tokio::select! {
            ended = &mut run => break ended,
            _ = looks.tick(), if !is_sized => {
                let size = watch.progress().snapshot().size;
                if size > 0 {
                    is_sized = true;
                    if taken.as_ref().is_none_or(|(bytes, _)| *bytes < size) {
                        drop(taken.take());
                        match take(shared, owner, &target, size, &watch).await {
                            Ok(room) => taken = Some((size, room)),
                            // The fetch is dropped; what is verified stays.
                            Err(outcome) => return outcome,
                        }
                    }
                }
            }
        }
    };
    let has_room = |size: u64| taken.as_ref().is_some_and(|(bytes, _)| *bytes >= size);
    match fetched {
        Ok(fetched) if !fetched.already_there && !has_room(fetched.document.size()) => {
            drop(taken);
            // A small document that arrived before its size was known: the limits hold all the same.
            match take(shared, owner, &target, fetched.document.size(), &watch).await {
                Ok(room) => adopt(shared, (owner, &key), &target, fetched, mirror.as_deref(), Some(room)).await,
                Err(outcome) => withdraw(shared, &target, fetched, outcome).await,
            }
        }
        Ok(fetched) => adopt(shared, (owner, &key), &target, fetched, mirror.as_deref(), taken.map(|(_, room)| room)).await,
        Err(error) => outcome(error),
    }
}

/// What follows for a document from what the share has under its name.
enum Compared {
    /// It is there, or must not be replaced.
    Ended(Outcome),
    /// Other peers have a newer version of it: this one. Boxed: most documents are not there yet.
    Newer(Box<Settled>),
    /// It is fetched.
    Wanted,
}

/// Of a document that is asked for by a name that the share has: what follows from what other peers have under that name now. Another content
/// than that of a file that this peer fetched is a newer version.
async fn compare_with_own(shared: &Arc<Shared>, target: &Target, asked: &[Source]) -> Compared {
    let DocumentSelector::Name(name) = &target.selector else { return Compared::Wanted };
    let Some(own) = shared.catalog.share().index().by_name(name.as_str()).cloned() else { return Compared::Wanted };
    // What a pattern found is not the file of another spelling.
    if target.save_as.as_ref().is_some_and(|save_as| *save_as != own.name) {
        return Compared::Wanted;
    }
    let mut all_answered = true;
    let settlement = match asked {
        [] => {
            let search = HolderSearch::new(shared.channels.clone(), Arc::clone(&shared.network));
            match search.settle(&target.selector, Freshness::Asked).await {
                Ok(settled) => Settlement::Settled(settled),
                Err(SearchError::NotFound { .. } | SearchError::NoPeers { .. }) => Settlement::Nobody,
                Err(SearchError::Ambiguous { found, .. }) => Settlement::Ambiguous(found),
                Err(SearchError::Peers(never)) => match never {},
            }
        }
        asked => {
            let answers = ask(&shared.channels, asked, &target.selector).await;
            all_answered = answers.all_answered();
            answers.settle()
        }
    };
    Compared::Ended(match settlement {
        Settlement::Settled(settled) if settled.found.document.hash == own.hash => Outcome::Present(own.size),
        // Of the peers that the job names, the fetch itself asks each.
        Settlement::Settled(_) if shared.ledger.owns(&own) && !asked.is_empty() => return Compared::Wanted,
        Settlement::Settled(settled) if shared.ledger.owns(&own) => return Compared::Newer(Box::new(settled)),
        Settlement::Settled(_) => Outcome::Failed(other_content(&own.name)),
        Settlement::Nobody if asked.is_empty() => Outcome::Present(own.size),
        // What these peers have is wanted, not what is here.
        Settlement::Nobody => {
            let why = "those that were asked have none now, or do not answer".to_owned();
            Outcome::Gone { why, everywhere: all_answered }
        }
        Settlement::Ambiguous(found) => {
            let error = SearchError::<Infallible>::Ambiguous { wanted: target.selector.clone(), found };
            outcome(JobError::Search(error))
        }
    })
}

/// Removes a document that arrived but for which there is no room.
async fn withdraw(shared: &Arc<Shared>, target: &Target, fetched: Fetched, outcome: Outcome) -> Outcome {
    let share = shared.catalog.share().clone();
    let name = name_of(shared, target, &fetched);
    let removing = spawn_blocking(move || {
        let hashes = fetched.piece_hashes?;
        let document = share.adopt(&name, &hashes, None).ok()?;
        share.remove(&document).ok()
    });
    if !matches!(removing.await, Ok(Some(()))) {
        static LOG: LogLimit = LogLimit::new(1);
        if let Some(Line { suppressed }) = LOG.line() {
            tracing::warn!(document = target.label, suppressed, "a document for which there is no room could not be removed");
        }
    }
    outcome
}

/// Its name in the share.
fn name_of(shared: &Shared, target: &Target, fetched: &Fetched) -> DocumentName {
    let folder = shared.catalog.share().folder();
    let below = folder.and_then(|folder| fetched.path.strip_prefix(folder).ok()).and_then(Path::to_str);
    let name = below.and_then(|below| DocumentName::parse(&below.replace(MAIN_SEPARATOR, "/")).ok());
    name.or_else(|| target.save_as.clone()).unwrap_or_else(|| fetched.document.name.clone())
}

async fn take(shared: &Arc<Shared>, owner: Owner, target: &Target, size: u64, watch: &FetchWatch) -> Result<RoomTaken, Outcome> {
    let (shared, label) = (Arc::clone(shared), target.label.clone());
    if let (Some(quota), Some(bytes)) = (shared.room.quota(), shared.queue().job_bytes(owner).map(|bytes| bytes.max(size)))
        && bytes > quota
    {
        let why = format!(
            "the documents of this job have {bytes} bytes in all, more than the quota of {quota}; raise --quota, or fetch fewer"
        );
        return Err(Outcome::Failed(why));
    }
    let part = match (&target.selector, &target.save_as) {
        (DocumentSelector::Hash(hash), Some(name)) => Some((*hash, name.clone())),
        _ => None,
    };
    let progress = watch.shared_progress();
    let making = spawn_blocking(move || {
        let there = match part {
            // The fetch has begun.
            _ if progress.has_room() => size,
            Some((hash, name)) => partial_bytes(&shared, &hash, &name),
            None => progress.verified(),
        };
        shared.room.take(&label, size, there.min(size), progress, || shared.queue().wanted_names())
    });
    match making.await {
        Ok(Ok(room)) => Ok(room),
        Ok(Err(NoRoom::Now(why))) => Err(Outcome::NoRoom(why)),
        Ok(Err(NoRoom::Never(why))) => Err(Outcome::Failed(why)),
        Err(error) => Err(Outcome::Failed(format!("a bug: making room failed: {error}"))),
    }
}

/// Bytes that the partial file of an earlier fetch takes on the disk; 0 without one. Its length says nothing: pieces arrive in any order.
fn partial_bytes(shared: &Shared, hash: &ContentHash, name: &DocumentName) -> u64 {
    let Some(folder) = shared.catalog.share().folder() else { return 0 };
    let path = folder.join(name.to_relative_path()).with_file_name(partial_name(name, hash));
    taken_by(&path)
}

fn taken_by(path: &Path) -> u64 {
    let is_file = fs::symlink_metadata(path).is_ok_and(|metadata| metadata.is_file());
    File::open(path).ok().filter(|_| is_file).and_then(|partial| allocated_bytes(&partial).ok()).unwrap_or(0)
}

/// Puts what was fetched into the index, and records that this peer fetched it.
async fn adopt(
    shared: &Arc<Shared>,
    (owner, key): (Owner, &Key),
    target: &Target,
    fetched: Fetched,
    mirror: Option<&str>,
    room: Option<RoomTaken>,
) -> Outcome {
    let share = shared.catalog.share().clone();
    let name = name_of(shared, target, &fetched);
    shared.queue().learn_name(owner, key, &name);
    let size = fetched.document.size();
    if fetched.already_there {
        return Outcome::Present(size);
    }
    let modified = fetched.document.modified.or(target.modified);
    let Some(hashes) = fetched.piece_hashes else {
        return Outcome::Failed(format!("a bug: {name} was fetched without its piece hashes"));
    };
    let adopting = {
        let (share, name) = (share.clone(), name.clone());
        spawn_blocking(move || share.adopt(&name, &hashes, modified))
    };
    match adopting.await {
        Ok(Ok(document)) => {
            shared.ledger.record(&document, mirror);
            // From now on it counts as fetched.
            drop(room);
            until_indexed(shared, &document).await;
            Outcome::Present(size)
        }
        // Somebody changed or removed it meanwhile: it is theirs.
        Ok(Err(error)) => Outcome::Failed(format!("{name} was fetched, but {error}")),
        Err(error) => Outcome::Failed(format!("a bug: adopting {name} failed: {error}")),
    }
}

async fn until_indexed(shared: &Arc<Shared>, document: &SharedDocument) {
    if timeout(INDEX_TIMEOUT, shared.catalog.share().has(document)).await.is_err() {
        static LOG: LogLimit = LogLimit::new(1);
        if let Some(Line { suppressed }) = LOG.line() {
            tracing::warn!(document = %document.name, suppressed, "the index does not have a fetched document yet");
        }
    }
}

/// What the error of a fetch means for its document.
fn outcome<E: std::fmt::Display>(error: JobError<E>) -> Outcome {
    let text = error.to_string();
    match error {
        JobError::Fetch(FetchError::Write(error)) => match error {
            WriteError::NoSpace { .. } => Outcome::NoRoom(text),
            WriteError::Io { source, .. } if is_full(&source) => Outcome::NoRoom(format!("the disk is full: {text}")),
            // Another fetch of the same content writes it.
            WriteError::Locked { .. } => Outcome::NoRoom(text),
            _ => Outcome::Failed(text),
        },
        JobError::Fetch(error) if error.is_gone() => Outcome::Gone { why: text, everywhere: error.is_gone_everywhere() },
        JobError::Fetch(FetchError::Sources { .. }) => Outcome::NoHolder(text),
        JobError::Search(SearchError::NotFound { .. }) => Outcome::Gone { why: text, everywhere: true },
        JobError::Search(SearchError::Ambiguous { .. }) => Outcome::Failed(format!("AMBIGUOUS: {text}")),
        JobError::Search(_) => Outcome::NoHolder(text),
        #[allow(unreachable_patterns, reason = "further errors fail the document")]
        _ => Outcome::Failed(text),
    }
}

fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::platform::write_all_at;

    #[test]
    fn a_partial_file_takes_its_pieces_and_not_its_length() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("part");
        assert_eq!(taken_by(&path), 0);
        let file = File::create(&path).unwrap();
        write_all_at(&file, &[1; 1 << 16], 1 << 30).unwrap();
        file.sync_all().unwrap();
        assert!((1 << 16..1 << 20).contains(&taken_by(&path)), "{} bytes", taken_by(&path));
    }
}
