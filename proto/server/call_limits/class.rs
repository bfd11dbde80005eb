//! The classes of calls, each with limits of its own, so that a flood of one class leaves the others working.
//!
//! Pure: no I/O, no clock, no randomness of its own.

/// A class of calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallClass {
    /// KeepAlive and Leave: what keeps a network together.
    KeepAlive,
    /// Register: each costs a write to disk, and makes others dial somebody.
    Register,
    /// Questions with a short answer.
    Query,
    /// Messages to one peer.
    Whisper,
    /// Answers that list a whole index. Such a call is a query, too.
    Listing,
    /// Answers with the content of documents.
    Upload,
    /// Streams that stay open.
    Stream,
    /// Streams that last as long as the fetch of a document: who has which of its pieces.
    Exchange,
    /// What a replica of a registry asks another for its own callers.
    Replica,
    /// Everything else: pages, probes, metrics, control.
    Other,
}

/// Most of one caller, or of all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Limit {
    /// Calls under way.
    pub(super) in_flight: u32,
    /// Calls that may begin in a second, on average.
    pub(super) per_second: u32,
    /// Calls that may begin at once after a pause.
    pub(super) burst: u32,
}

const fn limit(in_flight: u32, per_second: u32, burst: u32) -> Limit {
    Limit { in_flight, per_second, burst }
}

impl CallClass {
    /// All of them.
    pub const ALL: [Self; 10] = [
        Self::KeepAlive,
        Self::Register,
        Self::Query,
        Self::Whisper,
        Self::Listing,
        Self::Upload,
        Self::Stream,
        Self::Exchange,
        Self::Replica,
        Self::Other,
    ];

    /// Position in [`Self::ALL`].
    pub(super) const fn index(self) -> usize {
        self as usize
    }

    /// For metrics and errors.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::KeepAlive => "keepalive",
            Self::Register => "register",
            Self::Query => "query",
            Self::Whisper => "whisper",
            Self::Listing => "listing",
            Self::Upload => "upload",
            Self::Stream => "stream",
            Self::Exchange => "exchange",
            Self::Replica => "replica",
            Self::Other => "other",
        }
    }

    /// The class of a request by the path of its URI.
    pub(super) fn of(path: &str) -> Self {
        match path.strip_prefix("/p2pdi.v1.").unwrap_or(path) {
            "Registry/KeepAlive" | "Registry/Leave" => Self::KeepAlive,
            "Registry/Register" | "Registry/Enroll" | "Registry/FreeName" => Self::Register,
            "Registry/PQuery" | "Registry/Announce" | "Peer/RFCQuery" | "Peer/ListPeers" | "Peer/Swarm" => Self::Query,
            "Peer/Whisper" | "/whisper" => Self::Whisper,
            "Peer/GetRFC" => Self::Upload,
            "RegistryAdmin/ListRecords" | "RegistryAdmin/Backup" => Self::Listing,
            "Peer/Availability" => Self::Exchange,
            "Peer/Link"
            | "Peer/Whispers"
            | "Registry/WatchPeers"
            | "RegistryAdmin/Restore"
            | "Control/Subscribe"
            | "Control/Fetch"
            | "Control/Drain"
            | "Replica/PassOn" => Self::Stream,
            "Replica/PassOnAnnounce" | "Replica/FindObserver" | "Replica/ClaimObserver" | "Replica/EndObserver" => Self::Replica,
            _ => Self::Other,
        }
    }

    /// What one caller may do, unless told otherwise. The rates are far above what one of our programs does, and those of one address leave
    /// room for the peers of a site behind one NAT; a caller that is told to wait loses little, since it is told for how long.
    pub(super) const fn of_caller(self) -> Limit {
        match self {
            // 256 peers of one address call 26 times a second with the default ttl; a short ttl is 30 times as much.
            Self::KeepAlive => limit(256, 1_000, 2_000),
            // A site starts its peers at once; made-up names fill the rest of its leases slowly.
            Self::Register => limit(64, 10, 128),
            // A fetch of small documents makes some for each of them.
            Self::Query => limit(256, 2_000, 4_000),
            Self::Whisper => limit(256, 2_000, 4_000),
            // One reads the whole index, up to some 100 ms. A peer lists another every 20 s at most: 256 of one address 13 times a second.
            Self::Listing => limit(32, 20, 100),
            // Small documents, one call each; large ones have the upload slots as a limit.
            Self::Upload => limit(512, 2_000, 8_000),
            Self::Stream => limit(256, 50, 400),
            // One for each document of several pieces: those of a mirror of small ones, at the speed of a gigabit network. Without one a
            // fetch goes on, and does not hear of those who have a part.
            Self::Exchange => limit(512, 500, 4_000),
            // Each for a call of somebody else, which was counted at the caller.
            Self::Replica => limit(1_024, 10_000, 20_000),
            Self::Other => limit(256, 200, 1_000),
        }
    }

    /// What all callers together may do, unless told otherwise: what keeps memory bounded, and the machine from doing one thing only.
    pub(super) const fn of_all(self) -> Limit {
        match self {
            // A million peers call 100,000 times in 10 s.
            Self::KeepAlive => limit(4_096, 100_000, 200_000),
            // As many as a disk writes with group commit.
            Self::Register => limit(1_024, 5_000, 20_000),
            Self::Query => limit(2_048, 50_000, 100_000),
            Self::Whisper => limit(2_048, 50_000, 100_000),
            Self::Listing => limit(256, 200, 400),
            Self::Upload => limit(8_192, 50_000, 100_000),
            Self::Stream => limit(8_192, 2_000, 8_000),
            Self::Exchange => limit(8_192, 20_000, 40_000),
            Self::Replica => limit(4_096, 40_000, 80_000),
            Self::Other => limit(2_048, 20_000, 40_000),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::v1::FILE_DESCRIPTOR_SET;
    use prost::Message as _;

    #[test]
    fn a_class_is_at_its_index_and_one_caller_cannot_take_what_is_for_all() {
        for (index, class) in CallClass::ALL.into_iter().enumerate() {
            assert_eq!(class.index(), index);
            let (caller, all) = (class.of_caller(), class.of_all());
            assert!(caller.in_flight * 4 <= all.in_flight && caller.per_second * 4 <= all.per_second, "{class:?}");
            assert!(caller.burst >= caller.per_second && all.burst >= all.per_second && caller.per_second > 0, "{class:?}");
        }
    }

    #[test]
    fn streams_have_a_class_of_streams() {
        let set = prost_types::FileDescriptorSet::decode(FILE_DESCRIPTOR_SET).unwrap();
        for service in set.file.iter().flat_map(|file| &file.service) {
            for method in &service.method {
                let class = CallClass::of(&format!("/p2pdi.v1.{}/{}", service.name(), method.name()));
                let lasts = method.client_streaming() || matches!(method.name(), "Subscribe" | "WatchPeers");
                assert!(!lasts || matches!(class, CallClass::Stream | CallClass::Exchange), "{}", method.name());
            }
        }
        // The fetches of a mirror leave room for links.
        assert_eq!(CallClass::of("/p2pdi.v1.Peer/Availability"), CallClass::Exchange);
        assert_eq!(CallClass::of("/whisper"), CallClass::Whisper);
        assert_eq!(CallClass::of("/metrics"), CallClass::Other);
    }
}
