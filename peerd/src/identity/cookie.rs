//! The cookie that the registry gave this peer, in the file `cookie`.

use super::{error::StateError, folder::StateFolder};
use p2pdi::{cookie::Cookie, name::PeerName};
use std::fs;

impl StateFolder {
    /// The stored cookie, if `registry` gave it to `name`.
    pub fn cookie(&self, registry: &str, name: &PeerName) -> Option<Cookie> {
        let text = fs::read_to_string(self.path().join("cookie")).ok()?;
        let mut lines = text.lines();
        let same = lines.next() == Some(registry) && lines.next() == Some(&name.key());
        lines.next().filter(|_| same)?.parse().ok()
    }

    /// Stores a cookie, readable by this user only.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_cookie(&self, registry: &str, name: &PeerName, cookie: &Cookie) -> Result<(), StateError> {
        self.write("cookie", &format!("{registry}\n{}\n{}\n", name.key(), cookie.reveal()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_cookie_is_kept_for_one_registry_and_name_and_readable_by_its_user_only() {
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
