//! A file of the state folder that holds one protobuf message: written whole or not at all, and synced.
//!
//! Layout: a line with the format and its version, the BLAKE3 hash of the message, the message. Blocking.

use p2pdi::{
    content::{ContentHash, HASH_BYTES},
    private_file,
};
use prost::Message;
use std::{
    fs, io,
    path::{Path, PathBuf},
    time::SystemTime,
};

/// A file and its format.
#[derive(Debug)]
pub(super) struct StateFile {
    path: PathBuf,
    /// The first line, such as `p2pdi jobs 1`.
    format: &'static str,
}

/// What was read, and what is wrong with the file if it could not be read.
#[derive(Debug)]
pub(super) struct Stored<M> {
    pub(super) message: M,
    /// Where the unreadable file was put, as text; empty if all is well.
    pub(super) problem: String,
}

impl StateFile {
    /// The file `name` of the folder `state`.
    pub(super) fn new(state: &Path, name: &str, format: &'static str) -> Self {
        Self { path: state.join(name), format }
    }

    /// The stored message; an empty one if there is no file. A file that cannot be read as one of this format is renamed, and said.
    ///
    /// # Errors
    /// When the system does not give the file, or the unreadable file cannot be renamed: then nothing may be written over it.
    pub(super) fn read<M: Message + Default>(&self) -> io::Result<Stored<M>> {
        let bytes = match fs::read(&self.path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Ok(Stored { message: M::default(), problem: String::new() });
            }
            Err(error) => return Err(error),
        };
        if let Some(message) = self.decode(&bytes) {
            return Ok(Stored { message, problem: String::new() });
        }
        let aside = self.aside();
        fs::rename(&self.path, &aside)?;
        let problem = format!(
            "{} is damaged or was written by another version; it was kept as {}, and this peer begins with an empty one",
            self.path.display(),
            aside.display()
        );
        tracing::error!("{problem}");
        Ok(Stored { message: M::default(), problem })
    }

    /// Replaces the message.
    ///
    /// # Errors
    /// When the disk refuses; the old file stays.
    pub(super) fn write<M: Message>(&self, message: &M) -> io::Result<()> {
        private_file::write(&self.path, self.encode(message))
    }

    fn encode<M: Message>(&self, message: &M) -> Vec<u8> {
        let body = message.encode_to_vec();
        let mut bytes = Vec::with_capacity(self.format.len() + 1 + HASH_BYTES + body.len());
        bytes.extend(self.format.as_bytes());
        bytes.push(b'\n');
        bytes.extend(ContentHash::of(&body).as_bytes());
        bytes.extend(body);
        bytes
    }

    fn decode<M: Message + Default>(&self, bytes: &[u8]) -> Option<M> {
        let rest = bytes.strip_prefix(self.format.as_bytes())?.strip_prefix(b"\n")?;
        let (hash, body) = rest.split_first_chunk::<HASH_BYTES>()?;
        (ContentHash::of(body).as_bytes() == hash).then(|| M::decode(body).ok()).flatten()
    }

    /// A name that no earlier unreadable file has.
    fn aside(&self) -> PathBuf {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".unreadable-{}", since.as_millis()));
        name.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use p2pdi::v1::PinRequest;

    #[test]
    fn a_message_is_read_as_it_was_written() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path(), "pins", "p2pdi pins 1");
        let empty: Stored<PinRequest> = file.read().unwrap();
        assert!(empty.message == PinRequest::default() && empty.problem.is_empty());
        let message = PinRequest { name: "a".into(), unpin: true };
        file.write(&message).unwrap();
        assert_eq!(file.read::<PinRequest>().unwrap().message, message);
    }

    #[test]
    fn an_unreadable_file_is_kept_and_named() {
        let folder = tempfile::tempdir().unwrap();
        let file = StateFile::new(folder.path(), "pins", "p2pdi pins 1");
        let mut good = file.encode(&PinRequest { name: "a".into(), unpin: true });
        *good.last_mut().unwrap() ^= 1;
        for damaged in [&good, &b"p2pdi pins 2\n".to_vec(), &Vec::new()] {
            fs::write(folder.path().join("pins"), damaged).unwrap();
            let stored: Stored<PinRequest> = file.read().unwrap();
            assert!(stored.message == PinRequest::default() && stored.problem.contains("kept as"), "{}", stored.problem);
            let aside = stored.problem.split_once("kept as ").unwrap().1.split_once(", and").unwrap().0;
            assert_eq!(&fs::read(aside).unwrap(), damaged);
            assert!(!folder.path().join("pins").exists());
            fs::remove_file(aside).unwrap();
        }
    }
}
