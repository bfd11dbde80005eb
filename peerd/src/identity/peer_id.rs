//! The peer's id, in the file `id`.

use super::{error::StateError, folder::StateFolder};
use p2pdi::{hex, id::PeerId};
use std::{fs, io};

impl StateFolder {
    /// The peer's id, made on first use.
    ///
    /// # Errors
    /// When the file cannot be read or written, or is damaged.
    pub fn id(&self) -> Result<PeerId, StateError> {
        let path = self.path().join("id");
        match fs::read_to_string(&path) {
            Ok(text) => hex::decode(text.trim()).map(PeerId::from_bytes).ok_or_else(|| StateError::Damaged {
                path,
                problem: "an id is 32 hexadecimal digits; delete the file to get a new id".to_owned(),
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let id = PeerId::generate().map_err(|error| StateError::Random(error.to_string()))?;
                self.write("id", &id.to_string())?;
                Ok(id)
            }
            Err(error) => Err(StateError::io("read", &path)(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_is_made_once() {
        let folder = tempfile::tempdir().unwrap();
        let id = StateFolder::open(folder.path()).unwrap().id().unwrap();
        assert_eq!(StateFolder::open(folder.path()).unwrap().id().unwrap(), id);
        fs::write(folder.path().join("id"), "zzz").unwrap();
        assert!(matches!(StateFolder::open(folder.path()).unwrap().id(), Err(StateError::Damaged { .. })));
    }
}
