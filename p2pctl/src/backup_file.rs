//! The file of a backup: a first line, the parts that the registry sent, each after its length, and a checksum of all that.
//!
//! It is written under a temporary name, synced, and renamed, so a file of that name is whole.

use crate::failure::{Failure, Outcome};
use p2pdi::{
    platform::is_no_room,
    private_file,
    v1::{BackupPart, backup_part::Part},
};
use prost::Message as _;
use std::{
    fs::File,
    io::{self, BufReader, BufWriter, Read, Write},
    path::{Path, PathBuf},
};
use tempfile::NamedTempFile;

/// First line: what the file is, and its format.
const FIRST_LINE: &[u8] = b"p2pdi registry backup 1\n";
/// Largest part, in bytes: the registry sends some 200 KiB at once.
const PART_MAX: u32 = 4 * 1024 * 1024;
/// Bytes of the checksum: BLAKE3 of everything before it.
const CHECKSUM_BYTES: usize = 32;

/// A backup that is being written.
pub(crate) struct BackupFile {
    /// Written to as a file: its owner adds its temporary name to every error.
    file: BufWriter<File>,
    temporary: NamedTempFile,
    path: PathBuf,
    /// A file of that name is replaced.
    force: bool,
    hasher: blake3::Hasher,
    records: Option<u64>,
}

impl BackupFile {
    /// Begins to write, beside `path`. A file that is there is replaced only with `force`, and stays as it is until this one is whole.
    pub(crate) fn create(path: &Path, force: bool) -> Outcome<Self> {
        if !force && path.symlink_metadata().is_ok() {
            return Err(exists(path));
        }
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let created =
            private_file::temporary_file(folder).and_then(|temporary| Ok((temporary.as_file().try_clone()?, temporary)));
        let (file, temporary) = created.map_err(|error| cannot_write(path, &error))?;
        let (file, hasher) = (BufWriter::new(file), blake3::Hasher::new());
        let mut backup = Self { file, temporary, path: path.to_owned(), force, hasher, records: None };
        backup.write(FIRST_LINE)?;
        Ok(backup)
    }

    /// Adds a part.
    pub(crate) fn add(&mut self, part: &BackupPart) -> Outcome {
        if let Some(Part::End(end)) = &part.part {
            self.records = Some(end.records);
        }
        let bytes = part.encode_to_vec();
        let length = u32::try_from(bytes.len()).ok().filter(|length| (1..=PART_MAX).contains(length));
        let length =
            length.ok_or_else(|| Failure::refused("the registry sent a part of the backup that is too large, or empty"))?;
        self.write(&length.to_be_bytes())?;
        self.write(&bytes)
    }

    /// Ends the file and gives it its name. Gives the number of records.
    pub(crate) fn finish(mut self) -> Outcome<u64> {
        let cut_off =
            || Failure::refused("the registry's backup is cut off: it has no end").hint("nothing was written; try again");
        let records = self.records.ok_or_else(cut_off)?;
        self.write(&0_u32.to_be_bytes())?;
        let checksum = *self.hasher.finalize().as_bytes();
        let Self { mut file, temporary, path, force, .. } = self;
        let named = || -> io::Result<()> {
            file.write_all(&checksum)?;
            file.into_inner()?.sync_all()?;
            if force {
                temporary.persist(&path)?;
            } else {
                // One that came meanwhile stays.
                temporary.persist_noclobber(&path)?;
            }
            sync_folder(&path)
        };
        named().map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => exists(&path),
            _ => cannot_write(&path, &error),
        })?;
        Ok(records)
    }

    fn write(&mut self, bytes: &[u8]) -> Outcome {
        self.hasher.update(bytes);
        self.file.write_all(bytes).map_err(|error| cannot_write(&self.path, &error))
    }
}

/// Makes the rename durable, where folders can be synced.
fn sync_folder(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(folder) if cfg!(unix) => File::open(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })?.sync_all(),
        _ => Ok(()),
    }
}

fn exists(path: &Path) -> Failure {
    Failure::refused(format!("{} is there already; it was left as it is", path.display()))
        .hint("--force replaces it once the new backup is whole; or give another name")
}

fn cannot_write(path: &Path, error: &io::Error) -> Failure {
    let failure = Failure::refused(format!("cannot write {}: {error}", path.display()));
    match error.kind() {
        io::ErrorKind::NotFound => failure.hint("its folder is not there; make it first, or give another place"),
        _ if is_no_room(error) => failure.hint("free some space, or give a place on another disk; nothing was left there"),
        _ => failure.hint("give a place in a folder that this user can write to"),
    }
}

/// The parts of a file, read one after the other.
struct Parts<R> {
    file: R,
    hasher: blake3::Hasher,
    ended: bool,
}

impl<R: Read> Parts<R> {
    fn open(mut file: R) -> io::Result<Self> {
        let mut first = [0; FIRST_LINE.len()];
        match file.read_exact(&mut first) {
            Ok(()) if first == FIRST_LINE => {}
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => return Err(error),
            _ => return Err(damaged("it is no backup of a registry, or one of a later version")),
        }
        let mut hasher = blake3::Hasher::new();
        hasher.update(FIRST_LINE);
        Ok(Self { file, hasher, ended: false })
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<()> {
        self.file.read_exact(bytes).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => damaged("it is cut off"),
            _ => error,
        })?;
        self.hasher.update(bytes);
        Ok(())
    }

    fn part(&mut self) -> io::Result<Option<BackupPart>> {
        let mut length = [0; 4];
        self.read(&mut length)?;
        let length = u32::from_be_bytes(length);
        if length > PART_MAX {
            return Err(damaged("a part has an impossible length"));
        }
        if length == 0 {
            let expected = self.hasher.finalize();
            let mut checksum = [0; CHECKSUM_BYTES];
            self.read(&mut checksum)?;
            return if expected == checksum { Ok(None) } else { Err(damaged("its checksum is wrong")) };
        }
        let mut bytes = vec![0; length as usize];
        self.read(&mut bytes)?;
        BackupPart::decode(bytes.as_slice()).map(Some).map_err(|_| damaged("a part cannot be read"))
    }
}

impl<R: Read> Iterator for Parts<R> {
    type Item = io::Result<BackupPart>;

    fn next(&mut self) -> Option<io::Result<BackupPart>> {
        if self.ended {
            return None;
        }
        let part = self.part().transpose();
        self.ended = !matches!(part, Some(Ok(_)));
        part
    }
}

fn damaged(problem: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, problem)
}

/// Reads the whole file and checks it, then gives its parts.
///
/// # Errors
/// When it cannot be read, is no backup, or is damaged.
pub(crate) fn read(path: &Path) -> Outcome<impl Iterator<Item = BackupPart> + Send + 'static> {
    let open = || Parts::open(BufReader::new(File::open(path)?));
    let checked = open().and_then(|mut parts| parts.try_for_each(|part| part.map(drop)));
    checked.and_then(|()| open()).map(|parts| parts.map_while(Result::ok)).map_err(|error| {
        let failure = Failure::refused(format!("cannot read {}: {error}", path.display()));
        failure.hint(match error.kind() {
            io::ErrorKind::InvalidData => "nothing was restored; use another backup",
            _ => "give a file that `p2pctl registry backup` wrote, and that this user can read",
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::{BackupEnd, BackupRecords};
    use std::fs;

    fn parts() -> Vec<BackupPart> {
        let records = BackupRecords { records: vec![vec![7; 1_000].into(), vec![8; 10].into()] };
        [Part::Records(records), Part::End(BackupEnd { records: 2 })].map(|part| BackupPart { part: Some(part) }).into()
    }

    fn write(path: &Path, parts: &[BackupPart]) -> Outcome<u64> {
        let mut file = BackupFile::create(path, true)?;
        parts.iter().try_for_each(|part| file.add(part))?;
        file.finish()
    }

    #[test]
    fn a_backup_is_read_as_it_was_written_and_every_changed_byte_is_noticed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        let missing = write(&folder.path().join("missing/backup"), &parts()).unwrap_err().to_string();
        assert!(missing.contains("missing/backup: ") && missing.contains("make it first"), "{missing}");
        assert!(!missing.contains(".p2pdi-"), "a temporary file's name says nothing to people: {missing}");
        assert_eq!(write(&path, &parts()).unwrap(), 2);
        assert_eq!(read(&path).unwrap().collect::<Vec<_>>(), parts());
        let whole = fs::read(&path).unwrap();
        for position in 0..whole.len() {
            let mut changed = whole.clone();
            changed[position] ^= 1;
            fs::write(&path, changed).unwrap();
            assert!(read(&path).is_err(), "byte {position}");
            fs::write(&path, &whole[..position]).unwrap();
            assert!(read(&path).is_err(), "cut at {position}");
        }
    }

    #[test]
    fn a_file_that_is_there_is_replaced_only_when_asked_to() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        fs::write(&path, "something else").unwrap();
        assert!(BackupFile::create(&path, false).err().unwrap().to_string().contains("--force"));
        fs::remove_file(&path).unwrap();
        let mut late = BackupFile::create(&path, false).unwrap();
        parts().iter().try_for_each(|part| late.add(part)).unwrap();
        fs::write(&path, "something else").unwrap();
        assert!(late.finish().unwrap_err().to_string().contains("there already"));
        assert_eq!((fs::read(&path).unwrap(), fs::read_dir(folder.path()).unwrap().count()), (b"something else".to_vec(), 1));
        assert_eq!(write(&path, &parts()).unwrap(), 2);
        assert_eq!(read(&path).unwrap().count(), 2);
    }

    #[test]
    fn a_backup_that_is_not_complete_leaves_the_old_one_and_nothing_else() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("backup");
        write(&path, &parts()).unwrap();
        let before = fs::read(&path).unwrap();
        assert!(write(&path, &parts()[..1]).is_err());
        assert_eq!(fs::read(&path).unwrap(), before);
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
