//! Finishes many smaller documents with one sync for many of them: a sync waits for the disk, however little there is to write.
//!
//! Never is a file renamed that is not synced. The first document is synced at once; what arrives meanwhile makes the next group.
//!
//! A group is synced by syncfs(2). For 300 files of 35 kB on ext4 on a virtual disk it took 35 ms, where fsync(2) took 906 ms one by one and
//! 34 ms in 32 threads; for 9,000 in groups of 256 it took 0.6 s, where fsync took 1.0 s in 32 threads and 2.2 s in 8.

use super::{blocking::off_runtime, error::WriteError, piece_store::PieceStore};
use p2pdi::platform::sync_file_system;
use std::{
    mem,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tokio::sync::oneshot;

/// Most documents of a group: each has two open files until it is renamed.
const GROUP_MAX: usize = 256;
/// From this many documents on, one sync of the whole file system is cheaper than one for each file. It also waits for what other
/// programs wrote, so it is not for a few.
const FILE_SYSTEM_SYNC_MIN: usize = 4;

/// Finishes documents in groups. Clones share the groups.
#[derive(Debug, Clone, Default)]
pub(crate) struct Finisher {
    queue: Arc<Mutex<Queue>>,
}

#[derive(Debug, Default)]
struct Queue {
    waiting: Vec<Waiting>,
    is_running: bool,
}

#[derive(Debug)]
struct Waiting {
    store: Arc<PieceStore>,
    done: oneshot::Sender<Result<PathBuf, WriteError>>,
}

impl Finisher {
    /// Makes a complete document appear under its name, as [`PieceStore::finish`] does. Call it for many at the same time.
    ///
    /// If the result is not awaited to the end, the document may still appear.
    ///
    /// # Errors
    /// See [`PieceStore::finish`].
    pub(crate) async fn finish(&self, store: Arc<PieceStore>) -> Result<PathBuf, WriteError> {
        let path = store.path().to_owned();
        let (done, result) = oneshot::channel();
        let starts = {
            let mut queue = self.queue();
            queue.waiting.push(Waiting { store, done });
            !mem::replace(&mut queue.is_running, true)
        };
        if starts {
            tokio::spawn(self.clone().run());
        }
        // The task ends early only with the runtime.
        result.await.unwrap_or_else(|_| Err(WriteError::io("finish", &path)(std::io::ErrorKind::Interrupted.into())))
    }

    async fn run(self) {
        loop {
            let group: Vec<_> = {
                let mut queue = self.queue();
                if queue.waiting.is_empty() {
                    queue.is_running = false;
                    return;
                }
                let count = queue.waiting.len().min(GROUP_MAX);
                queue.waiting.drain(..count).collect()
            };
            let finished = off_runtime(move || {
                finish_group(group);
                Ok(())
            });
            if let Err(error) = finished.await {
                tracing::debug!(%error, "the runtime stopped before a group of documents was finished");
            }
        }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn finish_group(group: Vec<Waiting>) {
    let mut ready = Vec::with_capacity(group.len());
    for waiting in group {
        match waiting.store.prepare_finish() {
            Ok(()) => ready.push(waiting),
            // Whoever waited may be gone.
            Err(error) => drop(waiting.done.send(Err(error))),
        }
    }
    let mut file_systems: Vec<Vec<Waiting>> = Vec::new();
    for waiting in ready {
        let device = waiting.store.device();
        match file_systems.iter_mut().find(|group| group.first().is_some_and(|first| first.store.device() == device)) {
            Some(group) => group.push(waiting),
            None => file_systems.push(vec![waiting]),
        }
    }
    for group in file_systems {
        let synced = sync_together(&group);
        for Waiting { store, done } in group {
            let synced = if synced { Ok(()) } else { store.sync() };
            // Whoever waited may be gone.
            drop(done.send(synced.and_then(|()| store.publish())));
        }
    }
}

/// Syncs documents of one file system. Returns whether that worked; else each is to be synced alone, which shows whose error it is.
fn sync_together(group: &[Waiting]) -> bool {
    if group.len() < FILE_SYSTEM_SYNC_MIN {
        return false;
    }
    // The call reports every error since that file was opened. The first one was opened before any other was written.
    let first = group.iter().min_by_key(|waiting| waiting.store.opened());
    first.is_some_and(|first| sync_file_system(first.store.file().file()).unwrap_or(false))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::transfer::store::{destination::locate, piece_writer::PieceWriter};
    use p2pdi::{
        content::{ContentHash, PieceHashes, Pieces},
        document::DocumentName,
    };
    use std::{fs, path::Path};

    fn complete(folder: &Path, name: &str, data: &[u8]) -> Arc<PieceStore> {
        let pieces = Pieces::of_size(data.len() as u64).unwrap();
        let hash = ContentHash::of(data);
        let hashes = PieceHashes::verified(pieces, hash.as_bytes(), &hash).unwrap();
        let store = PieceStore::open(folder, &DocumentName::parse(name).unwrap(), hashes, false).unwrap();
        PieceWriter::new(&store).write(0, data).unwrap().unwrap();
        store
    }

    #[tokio::test]
    async fn many_documents_are_finished_in_groups_and_each_error_is_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let finisher = Finisher::default();
        let mut finishing = Vec::new();
        for n in 0..GROUP_MAX + 50 {
            let store = complete(folder.path(), &format!("{}/{n}.txt", n % 7), format!("text {n}").as_bytes());
            let finisher = finisher.clone();
            finishing.push(tokio::spawn(async move { finisher.finish(store).await }));
        }
        // Something is there by now.
        fs::write(folder.path().join("0/7.txt"), "mine").unwrap();
        for (n, finishing) in finishing.into_iter().enumerate() {
            match finishing.await.unwrap() {
                Ok(path) => assert_eq!(fs::read_to_string(path).unwrap(), format!("text {n}")),
                Err(error) => assert!(n == 7 && matches!(error, WriteError::TargetExists { .. }), "{n}: {error}"),
            }
        }
        assert_eq!(fs::read_to_string(folder.path().join("0/7.txt")).unwrap(), "mine");
        let name = DocumentName::parse("1/8.txt").unwrap();
        assert!(locate(folder.path(), &name, &ContentHash::of(b"text 8"), 6, false, &mut None).unwrap().1);
    }

    #[tokio::test]
    async fn one_document_alone_is_finished_and_an_incomplete_one_is_not() {
        let folder = tempfile::tempdir().unwrap();
        let finisher = Finisher::default();
        let path = finisher.finish(complete(folder.path(), "doc.txt", b"text")).await.unwrap();
        assert_eq!(fs::read_to_string(path).unwrap(), "text");
        let hash = ContentHash::of(b"other");
        let hashes = PieceHashes::verified(Pieces::of_size(5).unwrap(), hash.as_bytes(), &hash).unwrap();
        let store = PieceStore::open(folder.path(), &DocumentName::parse("b.txt").unwrap(), hashes, false).unwrap();
        assert!(matches!(finisher.finish(store).await, Err(WriteError::Incomplete { .. })));
        assert!(!folder.path().join("b.txt").exists());
    }
}
