//! Which calls of the registry may be made again elsewhere.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use std::time::Duration;

/// How long a call waits for its answer before it is made at another registry, too: a fast answer takes a thousandth of it, and three of it fit in
/// the shortest lease that is of use (3 s), of which a keepalive comes after a third.
const PATIENCE: Duration = Duration::from_secs(1);
/// The same for a call that the registry writes to its disk first, which may be busy with many of them.
const WRITE_PATIENCE: Duration = Duration::from_secs(3);

/// Whether a call may be made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Only if it was not sent: made twice it would do something else.
    Unsent,
    /// Made twice it does the same as once. It has one answer.
    Unary(Duration),
    /// Made twice it does the same as once. Its answer is a stream, which may last.
    Stream(Duration),
}

impl Repeat {
    /// Of the call with this path.
    pub(super) fn of(path: &str) -> Self {
        let Some(method) = path.strip_prefix("/p2pdi.v1.Registry/") else { return Self::Unsent };
        match method {
            // With its cookie, which the caller proposes, it is the same registration.
            "Register" => Self::Unary(WRITE_PATIENCE),
            "KeepAlive" | "PQuery" | "Announce" | "Leave" | "GetTrust" => Self::Unary(PATIENCE),
            "WatchPeers" => Self::Stream(PATIENCE),
            _ => Self::Unsent,
        }
    }

    /// How long it waits for an answer before it is made at another registry, too. `None`: it is not.
    pub(super) fn patience(self) -> Option<Duration> {
        match self {
            Self::Unsent => None,
            Self::Unary(patience) | Self::Stream(patience) => Some(patience),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_that_change_something_each_time_are_not_repeated() {
        for path in
            ["/p2pdi.v1.Registry/FreeName", "/p2pdi.v1.Registry/Enroll", "/p2pdi.v1.RegistryAdmin/CreateToken", "/x/Leave", ""]
        {
            assert_eq!(Repeat::of(path), Repeat::Unsent, "{path}");
        }
    }

    #[test]
    fn calls_of_peers_are_repeated_within_a_short_lease() {
        for method in ["KeepAlive", "PQuery", "Announce", "Leave"] {
            let repeat = Repeat::of(&format!("/p2pdi.v1.Registry/{method}"));
            assert!(matches!(repeat, Repeat::Unary(patience) if patience <= PATIENCE), "{method}");
        }
        assert_eq!(Repeat::of("/p2pdi.v1.Registry/Register").patience(), Some(WRITE_PATIENCE));
    }

    #[test]
    fn every_call_that_is_repeated_is_one_of_the_contract() {
        let contract = include_str!("../p2pdi/v1/registry.proto");
        for method in ["Register", "KeepAlive", "PQuery", "Announce", "Leave", "GetTrust"] {
            assert!(contract.contains(&format!("rpc {method}(")), "{method}");
        }
    }
}
