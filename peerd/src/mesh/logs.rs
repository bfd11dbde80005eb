//! Log lines about what other peers do, which they can repeat at will: each kind is limited.

use p2pdi::log_limit::LogLimit;

/// Lines a minute about links that come and go: more than a peer with a full active view needs when it starts.
const LINKS_LOGGED_MAX: u32 = 20;

/// Each kind of line, for what all peers and addresses do together: many addresses cannot write more than one.
pub(super) struct Logs {
    pub(super) linked: LogLimit,
    pub(super) unlinked: LogLimit,
    pub(super) silent: LogLimit,
    pub(super) not_reading: LogLimit,
    pub(super) throttled: LogLimit,
    pub(super) misbehaved: LogLimit,
    pub(super) banned: LogLimit,
    pub(super) invalid_hello: LogLimit,
    pub(super) other_network: LogLimit,
    pub(super) forged: LogLimit,
    pub(super) refused_signer: LogLimit,
    pub(super) claimed_id: LogLimit,
    pub(super) handshakes_of_address: LogLimit,
    pub(super) links_of_address: LogLimit,
    pub(super) name_conflict: LogLimit,
    pub(super) name_conflict_gone: LogLimit,
    pub(super) duplicate_name: LogLimit,
}

impl Default for Logs {
    fn default() -> Self {
        Self {
            linked: LogLimit::new(LINKS_LOGGED_MAX),
            unlinked: LogLimit::new(LINKS_LOGGED_MAX),
            silent: LogLimit::new(LINKS_LOGGED_MAX),
            not_reading: LogLimit::new(1),
            throttled: LogLimit::new(1),
            misbehaved: LogLimit::new(1),
            banned: LogLimit::new(1),
            invalid_hello: LogLimit::new(1),
            other_network: LogLimit::new(1),
            forged: LogLimit::new(1),
            refused_signer: LogLimit::new(1),
            claimed_id: LogLimit::new(1),
            handshakes_of_address: LogLimit::new(1),
            links_of_address: LogLimit::new(1),
            name_conflict: LogLimit::new(1),
            name_conflict_gone: LogLimit::new(1),
            duplicate_name: LogLimit::new(1),
        }
    }
}
