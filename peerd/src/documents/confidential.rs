//! Contents that this peer fetched from holders that have them for some peers only (`--share-to`). They are not this peer's to pass on: nobody
//! gets them, unless a `--share-to` of its own says to whom.
//!
//! The file of the state folder has a first line and then one hash a line. A hash is on disk before the content has a name in any folder, so
//! that a crash makes nothing public. Blocking.

use p2pdi::{
    content::ContentHash,
    log_limit::{Line, LogLimit},
    private_file,
};
use std::{
    collections::BTreeSet,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError, RwLock},
};

const FILE_NAME: &str = "for-some-only";
const HEAD: &str = "p2pdi for-some-only 1";
/// Most contents: 16 MiB of the file, and as much memory. A guess at more than people restrict.
const CONTENTS_MAX: usize = 250_000;

/// The contents, by hash.
#[derive(Default)]
pub(crate) struct Confidential {
    hashes: RwLock<BTreeSet<ContentHash>>,
    /// Held while a hash is written. `None`: they are in memory only.
    file: Option<Mutex<PathBuf>>,
    /// Whether a content is here for all already: then what a holder says of it changes nothing, or anybody could hide what is public.
    is_public: Option<IsPublic>,
}

type IsPublic = Box<dyn Fn(&ContentHash) -> bool + Send + Sync>;

impl Confidential {
    /// Reads those of the state folder.
    ///
    /// # Errors
    /// When the file cannot be read, or is none of this version: without it, what is for some would be for all.
    pub(crate) fn open(state: &Path) -> io::Result<Self> {
        let path = state.join(FILE_NAME);
        let text = match fs::read_to_string(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
            Err(error) => return Err(error),
        };
        let damaged = |line: &str| {
            let problem = format!(
                "{}: cannot read the line {line:?}; restore the file, or remove it and what is not for all",
                path.display()
            );
            io::Error::new(io::ErrorKind::InvalidData, problem)
        };
        let mut lines = text.split_inclusive('\n');
        if let Some(head) = lines.next().filter(|head| head.trim_end() != HEAD) {
            return Err(damaged(head));
        }
        let mut hashes = BTreeSet::new();
        for line in lines {
            match (line.trim_end().parse(), line.ends_with('\n')) {
                (Ok(hash), _) => drop(hashes.insert(hash)),
                // A crash while it was written: its fetch did not go on.
                (Err(_), false) => {}
                (Err(_), true) => return Err(damaged(line)),
            }
        }
        // Whole again, if the last line was not.
        if !text.is_empty() && !text.ends_with('\n') {
            let lines = hashes.iter().map(|hash| format!("{hash}\n"));
            private_file::write(&path, format!("{HEAD}\n{}", lines.collect::<String>()))?;
        }
        Ok(Self { hashes: RwLock::new(hashes), file: Some(Mutex::new(path)), is_public: None })
    }

    /// The same, of which no content becomes one that is here for all already.
    #[must_use]
    pub(crate) fn unless(self, is_public: impl Fn(&ContentHash) -> bool + Send + Sync + 'static) -> Self {
        Self { is_public: Some(Box::new(is_public)), ..self }
    }

    /// Whether there are none.
    pub(crate) fn is_empty(&self) -> bool {
        self.hashes.read().unwrap_or_else(PoisonError::into_inner).is_empty()
    }

    /// Whether a content is one of them.
    pub(crate) fn has(&self, hash: &ContentHash) -> bool {
        self.hashes.read().unwrap_or_else(PoisonError::into_inner).contains(hash)
    }

    /// Adds a content, unless it is here for all already; it is on disk when this returns.
    ///
    /// # Errors
    /// When the disk refuses, or there are too many.
    pub(crate) fn keep(&self, hash: ContentHash) -> io::Result<()> {
        let file = self.file.as_ref().map(|path| path.lock().unwrap_or_else(PoisonError::into_inner));
        let count = {
            let hashes = self.hashes.read().unwrap_or_else(PoisonError::into_inner);
            if hashes.contains(&hash) {
                return Ok(());
            }
            hashes.len()
        };
        if self.is_public.as_ref().is_some_and(|is_public| is_public(&hash)) {
            return Ok(());
        }
        if count >= CONTENTS_MAX {
            return Err(io::Error::other(format!("it has {CONTENTS_MAX} contents already, and no more fit")));
        }
        if let Some(path) = file.as_deref() {
            if count == 0 {
                private_file::write(path, format!("{HEAD}\n"))?;
            }
            self.append(path, hash)?;
        }
        self.hashes.write().unwrap_or_else(PoisonError::into_inner).insert(hash);
        static LOG: LogLimit = LogLimit::new(5);
        if let Some(Line { suppressed }) = LOG.line() {
            tracing::info!(%hash, suppressed, "its holder has it for some peers only: this peer passes it on to nobody without a --share-to of its own");
        }
        Ok(())
    }

    /// A line is there whole, or not at all: behind a part of one, as a full disk leaves it, the next would be damaged.
    fn append(&self, path: &Path, hash: ContentHash) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(path)?;
        let before = file.metadata()?.len();
        let written = file.write_all(format!("{hash}\n").as_bytes()).and_then(|()| file.sync_data());
        if written.is_err() {
            file.set_len(before)?;
        }
        written
    }

    /// The file that they are in, for messages.
    pub(crate) fn path(&self) -> PathBuf {
        self.file.as_ref().map(|path| path.lock().unwrap_or_else(PoisonError::into_inner).clone()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_there_after_a_restart_and_a_torn_line_is_forgotten() {
        let state = tempfile::tempdir().unwrap();
        let [a, b, c] = ["a", "b", "c"].map(|text| ContentHash::of(text.as_bytes()));
        let first = Confidential::open(state.path()).unwrap();
        assert!(first.is_empty());
        for hash in [a, b, a] {
            first.keep(hash).unwrap();
        }
        let path = state.path().join(FILE_NAME);
        let whole = fs::read_to_string(&path).unwrap();
        assert_eq!(whole, format!("{HEAD}\n{a}\n{b}\n"));
        fs::write(&path, format!("{whole}{}", &c.to_string()[..20])).unwrap();
        let second = Confidential::open(state.path()).unwrap();
        assert!(second.has(&a) && second.has(&b) && !second.has(&c));
        second.keep(c).unwrap();
        assert!(Confidential::open(state.path()).unwrap().has(&c));
    }

    #[test]
    fn what_is_here_for_all_stays_so_whatever_a_holder_says() {
        let state = tempfile::tempdir().unwrap();
        let [public, other] = ["public", "other"].map(|text| ContentHash::of(text.as_bytes()));
        let contents = Confidential::open(state.path()).unwrap().unless(move |hash| *hash == public);
        contents.keep(public).unwrap();
        contents.keep(other).unwrap();
        assert!(!contents.has(&public) && contents.has(&other));
        assert!(!Confidential::open(state.path()).unwrap().has(&public));
    }

    #[test]
    fn a_damaged_file_is_not_taken_for_an_empty_one() {
        let state = tempfile::tempdir().unwrap();
        for text in ["p2pdi for-some-only 2\n", &format!("{HEAD}\nnot a hash\n")] {
            fs::write(state.path().join(FILE_NAME), text).unwrap();
            let error = Confidential::open(state.path()).err().unwrap();
            assert!(error.to_string().contains(FILE_NAME), "{error}");
        }
    }
}
