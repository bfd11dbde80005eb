//! The cookie that the registry gave this peer, in the file `cookie`.

use super::{error::StateError, folder::StateFolder};
use p2pdi::{cookie::Cookie, endpoint::Endpoint, name::PeerName};
use std::fs;

impl StateFolder {
    /// The stored cookie, if one of `registries` gave it to `name`.
    pub fn cookie(&self, registries: &[Endpoint], name: &PeerName) -> Option<Cookie> {
        let text = fs::read_to_string(self.path().join("cookie")).ok()?;
        let mut lines = text.lines();
        let gave = lines.next()?.split(',').any(|gave| registries.iter().any(|registry| registry.as_str() == gave));
        let same = gave && lines.next() == Some(&name.key());
        lines.next().filter(|_| same)?.parse().ok()
    }

    /// Stores a cookie that one of `registries` gave, which are replicas of one. It is readable by this user only.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_cookie(&self, registries: &[Endpoint], name: &PeerName, cookie: &Cookie) -> Result<(), StateError> {
        let registries: Vec<_> = registries.iter().map(Endpoint::as_str).collect();
        self.write("cookie", &format!("{}\n{}\n{}\n", registries.join(","), name.key(), cookie.reveal()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_cookie_is_kept_for_its_registries_and_name_and_readable_by_its_user_only() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        let (name, cookie) = ("A".parse().unwrap(), Cookie::generate().unwrap());
        let [first, second, third] = ["r:1", "r:2", "r:3"].map(|registry| registry.parse::<Endpoint>().unwrap());
        state.keep_cookie(&[first.clone(), second.clone()], &name, &cookie).unwrap();
        assert!(state.cookie(std::slice::from_ref(&first), &"a".parse().unwrap()).is_some());
        assert!(state.cookie(&[third.clone(), second], &name).is_some());
        assert!(state.cookie(&[third], &name).is_none());
        assert!(state.cookie(&[first], &"b".parse().unwrap()).is_none());
        let mode = fs::metadata(folder.path().join("cookie")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
