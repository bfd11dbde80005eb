//! The options of a fetch.

use crate::transfer::{swarm::hub::Swarms, throttle::Throttle};
use p2pdi::document::DocumentName;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::Notify;

/// How long a source may stay silent before another one is asked.
pub const STALL_TIMEOUT: Duration = Duration::from_secs(10);

/// Options of a fetch.
#[derive(Debug, Clone)]
pub struct FetchOptions {
    /// The target folder; created if missing.
    pub out: PathBuf,
    /// The file's name there; by default the document's name. Holders may have the same content under other names.
    pub save_as: Option<DocumentName>,
    /// Replace a file of the same name with other content.
    pub replace: bool,
    /// How long a source may stay silent. Default: [`STALL_TIMEOUT`].
    pub stall: Duration,
    /// How long to wait for a holder of what is missing when none is known any more.
    pub wait_for_holders: Duration,
    /// Limits the rate of the bytes that arrive. Clones share the limit.
    pub limit: Throttle,
    /// Size of the document in bytes, if somebody said it: of a large one, a piece is asked for first, and not the whole.
    pub expected_size: Option<u64>,
    /// A holder lists it as for some only: it is not announced.
    pub restricted: bool,
    /// The swarms of the peer that fetches: others fetch from it what it has already.
    pub swarms: Swarms,
    /// Notified when all bytes of a document are here: from then on its fetch needs the disk only, and the next one may use the network.
    pub arrived: Arc<Notify>,
}

impl FetchOptions {
    /// The default options of a fetch into `out`, by the peer with these swarms.
    pub fn new(out: impl Into<PathBuf>, swarms: Swarms) -> Self {
        Self {
            out: out.into(),
            save_as: None,
            replace: false,
            stall: STALL_TIMEOUT,
            wait_for_holders: Duration::ZERO,
            limit: Throttle::default(),
            expected_size: None,
            restricted: false,
            swarms,
            arrived: Arc::default(),
        }
    }
}
