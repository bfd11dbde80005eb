//! The running peer that a verb uses.

use clap::Args;
use p2pdi::endpoint::Endpoint;

/// Endpoint of a peer on this machine with the default port.
const VIA_DEFAULT: &str = "127.0.0.1:7801";
/// The same for --at.
pub(super) const AT_DEFAULT: &str = VIA_DEFAULT;

/// An optional peer that answers in place of the registry.
#[derive(Debug, Args)]
pub(crate) struct OptionalVia {
    /// Ask this peer for the addresses of others, instead of the registry
    #[arg(long, env = "P2PDI_CTL_VIA", value_name = "HOST:PORT")]
    pub(crate) via: Option<Endpoint>,
}

/// The running peer that a verb uses.
#[derive(Debug, Args)]
pub(crate) struct Via {
    /// The running peer to use; most verbs need it to be on this machine
    #[arg(long, env = "P2PDI_CTL_VIA", value_name = "HOST:PORT", default_value = VIA_DEFAULT)]
    pub(crate) via: Endpoint,
}

/// The running peer that does the work.
#[derive(Debug, Args)]
pub(crate) struct At {
    /// The running peer that does it; it must be on this machine unless it was started with --control any
    #[arg(long, env = "P2PDI_CTL_AT", value_name = "HOST:PORT", default_value = AT_DEFAULT)]
    pub(crate) at: Endpoint,
}
