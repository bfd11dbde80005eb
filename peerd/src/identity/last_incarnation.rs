//! The last incarnation number, in the file `incarnation`.

use super::{error::StateError, folder::StateFolder, incarnation};
use std::{fs, time::SystemTime};

impl StateFolder {
    /// The number of the incarnation that starts now, and the clock, both in milliseconds since 1970. The number is larger than that of
    /// every earlier incarnation, even if the clock was set back.
    ///
    /// A damaged file or a full disk does not stop a peer from starting: it is logged, and the number is the clock.
    pub fn next_incarnation(&self) -> (u64, u64) {
        let since_1970 = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let clock = u64::try_from(since_1970.as_millis()).unwrap_or(u64::MAX);
        let last = fs::read_to_string(self.path().join("incarnation")).ok().and_then(|text| text.trim().parse::<u64>().ok());
        let next = incarnation::next(last, clock);
        if let Err(error) = self.keep_incarnation(next) {
            tracing::warn!(%error, "cannot store the incarnation; if the clock is set back before a restart, other peers drop the broadcasts of this one as old");
        }
        (next, clock)
    }

    /// Stores the number that this incarnation has reached, so that the next incarnation starts above it.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn keep_incarnation(&self, incarnation: u64) -> Result<(), StateError> {
        self.write("incarnation", &incarnation.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_incarnation_is_larger_than_the_last_whatever_the_clock_says() {
        let folder = tempfile::tempdir().unwrap();
        let state = StateFolder::open(folder.path()).unwrap();
        let (first, clock) = state.next_incarnation();
        assert!(first == clock && clock > 1_700_000_000_000 && state.next_incarnation().0 > first);
        // As after the clock was set back.
        let ahead = first + 1_000_000_000;
        fs::write(folder.path().join("incarnation"), ahead.to_string()).unwrap();
        assert_eq!(state.next_incarnation().0, ahead + 1);
        for damaged in [u64::MAX.to_string().as_bytes(), b"x", b"", b"\xff"] {
            fs::write(folder.path().join("incarnation"), damaged).unwrap();
            assert!((first..ahead).contains(&state.next_incarnation().0));
        }
        // A file that cannot be written does not stop the peer.
        fs::remove_file(folder.path().join("incarnation")).unwrap();
        fs::create_dir_all(folder.path().join("incarnation/blocks")).unwrap();
        assert!((first..ahead).contains(&state.next_incarnation().0));
    }
}
