//! Who this peer is, and the folder that remembers it.

pub mod incarnation;

use p2pdi::{cookie::Cookie, hex, id::PeerId, name::PeerName};
use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// The state folder: the peer's id, the number of its life, its cookie, and a lock that keeps a second peer out.
#[derive(Debug)]
pub struct StateFolder {
    path: PathBuf,
    _lock: File,
}

/// Why a state folder cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The operating system refused.
    #[error("cannot {doing} {}: {source}", path.display())]
    Io {
        /// What was tried.
        doing: &'static str,
        /// On which path.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
    /// Another peer runs on it.
    #[error("the state folder {} is in use by another process", path.display())]
    Locked {
        /// The folder.
        path: PathBuf,
    },
    /// A file in it is not what this program writes.
    #[error("{} is damaged: {problem}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// No randomness for a new id.
    #[error("the system gives no randomness: {0}")]
    Random(String),
}

impl StateError {
    fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

impl StateFolder {
    /// Opens or makes the folder and locks it.
    ///
    /// # Errors
    /// When it cannot be made, or another process holds it.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        fs::create_dir_all(path).map_err(StateError::io("make the state folder", path))?;
        let lock_path = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&lock_path)
            .map_err(StateError::io("open", &lock_path))?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { path: path.to_owned(), _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(StateError::Locked { path: path.to_owned() }),
            Err(TryLockError::Error(error)) => Err(StateError::io("lock", &lock_path)(error)),
        }
    }

    /// The folder.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The peer's id, made on first use.
    ///
    /// # Errors
    /// When it cannot be read or written.
    pub fn id(&self) -> Result<PeerId, StateError> {
        let path = self.path.join("id");
        match fs::read_to_string(&path) {
            Ok(text) => parse_id(text.trim()).ok_or_else(|| StateError::Damaged {
                path,
                problem: "an id is 32 hexadecimal digits; delete the file to get a new id".to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = PeerId::generate().map_err(|error| StateError::Random(error.to_string()))?;
                write_private(&path, &id.to_string())?;
                Ok(id)
            }
            Err(error) => Err(StateError::io("read", &path)(error)),
        }
    }

    /// The number of the life that begins now, and what the clock says, both in milliseconds since 1970: the number is above that of
    /// any life before, though the clock was set back since.
    ///
    /// Neither rubbish in the folder nor a full disk keeps a peer from starting: that is logged, and the clock counts.
    pub fn next_incarnation(&self) -> (u64, u64) {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let last = fs::read_to_string(self.path.join("incarnation")).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let life = incarnation::next(last, clock);
        if let Err(error) = self.keep_life(life) {
            tracing::warn!(%error, "the number of this life is not kept; should the clock be set back, broadcasts count as old after a restart");
        }
        (life, clock)
    }

    /// Keeps the number that this life has come to, so that the next one begins above it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_life(&self, incarnation: u64) -> Result<(), StateError> {
        write_private(&self.path.join("incarnation"), &incarnation.to_string())
    }

    /// The cookie that `registry` gave `name` last time, if any is kept.
    pub fn cookie(&self, registry: &str, name: &PeerName) -> Option<Cookie> {
        let text = fs::read_to_string(self.path.join("cookie")).ok()?;
        let mut lines = text.lines();
        let same = lines.next() == Some(registry) && lines.next() == Some(&name.key());
        lines.next().filter(|_| same)?.parse().ok()
    }

    /// Keeps a cookie, readable by this user only.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn keep_cookie(&self, registry: &str, name: &PeerName, cookie: &Cookie) -> Result<(), StateError> {
        write_private(&self.path.join("cookie"), &format!("{registry}\n{}\n{}\n", name.key(), cookie.reveal()))
    }
}

/// Reads an id as [`PeerId`] is shown.
pub(crate) fn parse_id(text: &str) -> Option<PeerId> {
    hex::decode(text).map(PeerId::from_bytes)
}

/// Writes a file whole or not at all, mode 0600.
///
/// # Errors
/// When the disk refuses; the old file stays.
pub fn write_private(path: &Path, text: &str) -> Result<(), StateError> {
    let temporary = path.with_extension("new");
    let write = || {
        let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&temporary)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&temporary, path)
    };
    write().map_err(StateError::io("write", path))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn an_id_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let id = StateFolder::open(folder.path()).unwrap().id().unwrap();
        assert_eq!(StateFolder::open(folder.path()).unwrap().id().unwrap(), id);
        fs::write(folder.path().join("id"), "zzz").unwrap();
        assert!(matches!(StateFolder::open(folder.path()).unwrap().id(), Err(StateError::Damaged { .. })));
    }

    #[test]
    fn each_life_has_a_higher_number_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        let (first, clock) = state.next_incarnation();
        assert!(first == clock && clock > 1_700_000_000_000 && state.next_incarnation().0 > first);
        // The clock was set back since.
        let ahead = first + 1_000_000_000;
        fs::write(folder.path().join("incarnation"), ahead.to_string()).unwrap();
        assert_eq!(state.next_incarnation().0, ahead + 1);
        for rubbish in [u64::MAX.to_string().as_bytes(), b"x", b"", b"\xff"] {
            fs::write(folder.path().join("incarnation"), rubbish).unwrap();
            assert!((first..ahead).contains(&state.next_incarnation().0));
        }
        // What cannot be kept is no reason not to begin.
        fs::remove_file(folder.path().join("incarnation")).unwrap();
        fs::create_dir_all(folder.path().join("incarnation.new/in-the-way")).unwrap();
        assert!((first..ahead).contains(&state.next_incarnation().0));
    }

    #[test]
    fn a_second_process_is_kept_out() {
        let folder = tempfile::tempdir().unwrap();
        let _first = StateFolder::open(folder.path()).unwrap();
        assert!(matches!(StateFolder::open(folder.path()), Err(StateError::Locked { .. })));
    }

    #[test]
    fn a_cookie_is_kept_for_its_registry_and_name_only_and_for_its_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        let (name, cookie) = ("A".parse().unwrap(), Cookie::generate().unwrap());
        state.keep_cookie("http://r:1", &name, &cookie).unwrap();
        assert!(state.cookie("http://r:1", &"a".parse().unwrap()).is_some());
        assert!(state.cookie("http://r:2", &name).is_none());
        assert!(state.cookie("http://r:1", &"b".parse().unwrap()).is_none());
        let mode = fs::metadata(folder.path().join("cookie")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
