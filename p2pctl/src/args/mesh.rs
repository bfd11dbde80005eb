//! Verbs about messages, links and the state of peers.

use super::{
    parse::{parse_peer, parse_wait, parse_wait_or_none},
    via::{At, OptionalVia, Via},
};
use clap::{Args, ValueEnum, builder::BoolishValueParser};
use p2pdi::{endpoint::Endpoint, name::PeerName};
use peerd::Bootnode;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Whisper {
    /// The receiver's name
    pub(crate) name: PeerName,
    /// The text
    pub(crate) message: String,
    /// Send it to this peer, which delivers it
    #[arg(long, env = "P2PDI_CTL_VIA", value_name = "HOST:PORT")]
    pub(crate) via: Option<Endpoint>,
    /// The kind of message, one token
    #[arg(long, env = "P2PDI_CTL_KIND", default_value = "text")]
    pub(crate) kind: String,
    /// The sender's name; by default that of the certificate, or else the registered name. With certificates others refuse any other
    #[arg(long, env = "P2PDI_CTL_SENDER", value_name = "NAME")]
    pub(crate) sender: Option<PeerName>,
}

#[derive(Debug, Args)]
pub(crate) struct Broadcast {
    /// The text
    pub(crate) message: String,
    #[command(flatten)]
    pub(crate) via: Via,
    /// Wait this long for acknowledgements, at most 60s; 0s: do not wait
    #[arg(long, env = "P2PDI_CTL_WAIT", value_name = "DURATION", default_value = "2s", value_parser = parse_wait_or_none, allow_hyphen_values = true)]
    pub(crate) wait: Duration,
    /// The kind of message, one token
    #[arg(long, env = "P2PDI_CTL_KIND", default_value = "text")]
    pub(crate) kind: String,
}

#[derive(Debug, Args)]
pub(crate) struct Listen {
    #[command(flatten)]
    pub(crate) via: Via,
    /// Only messages of this kind; may be given several times
    #[arg(long = "kind", env = "P2PDI_CTL_KINDS", value_name = "KIND", value_delimiter = ',')]
    pub(crate) kinds: Vec<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Chat {
    #[command(flatten)]
    pub(crate) via: Via,
}

#[derive(Debug, Args)]
pub(crate) struct Join {
    /// A peer of that mesh: NAME:PORT on the machine of --via, NAME@HOST:PORT, or HOST:PORT
    #[arg(value_parser = parse_peer)]
    pub(crate) peer: Bootnode,
    #[command(flatten)]
    pub(crate) via: Via,
}

#[derive(Debug, Args)]
pub(crate) struct Drain {
    #[command(flatten)]
    pub(crate) at: At,
}

#[derive(Debug, Args)]
pub(crate) struct PeerCount {
    #[command(flatten)]
    pub(crate) via: Via,
    /// How long to wait for answers, up to 60s
    #[arg(long, env = "P2PDI_CTL_WAIT", value_name = "DURATION", default_value = "2s", value_parser = parse_wait, allow_hyphen_values = true)]
    pub(crate) wait: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Graph {
    #[command(flatten)]
    pub(crate) via: Via,
    /// Output format
    #[arg(long, env = "P2PDI_CTL_GRAPH_FORMAT", value_enum, default_value_t = GraphFormat::Text)]
    pub(crate) format: GraphFormat,
}

/// Output formats of `graph`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum GraphFormat {
    /// One line for each peer.
    Text,
    /// For Graphviz.
    Dot,
    /// For Mermaid, as in Markdown.
    Mermaid,
    /// A picture.
    Svg,
}

#[derive(Debug, Args)]
pub(crate) struct Ping {
    /// A peer's name, or HOST:PORT
    pub(crate) peer: String,
    #[command(flatten)]
    pub(crate) via: OptionalVia,
}

#[derive(Debug, Args)]
pub(crate) struct Status {
    /// A peer's name, or HOST:PORT; without, the peer that --via names, or the registry
    pub(crate) peer: Option<String>,
    /// Name the files that the peer's share leaves out, with the rule that each breaks
    #[arg(long, env = "P2PDI_CTL_STATUS_LEFT_OUT", value_parser = BoolishValueParser::new())]
    pub(crate) left_out: bool,
    #[command(flatten)]
    pub(crate) via: OptionalVia,
}
