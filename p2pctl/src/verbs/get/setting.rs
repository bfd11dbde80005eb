//! All that the parts of get and get-rfc need.

use crate::{args::Fetching, peers::Peers, printer::Printer, sharing::Sharing};
use peerd::{connections::channels::ChannelPool, holders::source::Source, transfer::Throttle};
use std::sync::Arc;

/// What the command line asks for, and what the verb uses for it.
pub(super) struct Setting {
    pub(super) channels: ChannelPool,
    pub(super) peers: Arc<Peers>,
    pub(super) fetching: Fetching,
    /// The peers of --from.
    pub(super) from: Vec<Source>,
    pub(super) printer: Printer,
    /// Limits the rate of all fetches together.
    pub(super) limit: Throttle,
    pub(super) sharing: Sharing,
}
