//! Verbs that list documents and swarms.

use super::{
    parse::{parse_document, parse_hash, parse_pattern},
    via::OptionalVia,
};
use clap::{Args, builder::BoolishValueParser};
use p2pdi::{content::ContentHash, endpoint::Endpoint};
use peerd::documents::{pattern::DocumentPattern, selector::DocumentSelector};

#[derive(Debug, Args)]
pub(crate) struct RfcQuery {
    /// The peer to ask: its name, or HOST:PORT
    pub(crate) peer: String,
    /// Only this RFC
    #[arg(long, env = "P2PDI_CTL_QUERY_NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) number: Option<u32>,
    /// Only titles with all of these words
    #[arg(long, env = "P2PDI_CTL_QUERY_TITLE", value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// Only this document name
    #[arg(long, env = "P2PDI_CTL_QUERY_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only this hash
    #[arg(long, env = "P2PDI_CTL_QUERY_HASH", value_name = "b3:HASH", value_parser = parse_hash)]
    pub(crate) hash: Option<ContentHash>,
    /// Only what the peer itself shares
    #[arg(long, env = "P2PDI_CTL_QUERY_OWN", value_parser = BoolishValueParser::new())]
    pub(crate) own: bool,
    /// At most this many
    #[arg(long, env = "P2PDI_CTL_QUERY_LIMIT", value_name = "N")]
    pub(crate) limit: Option<u32>,
    #[command(flatten)]
    pub(crate) via: OptionalVia,
}

#[derive(Debug, Args)]
pub(crate) struct Ls {
    /// Only names that match this pattern, such as '*.txt' or 'models/**'
    #[arg(value_parser = parse_pattern)]
    pub(crate) pattern: Option<DocumentPattern>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

#[derive(Debug, Args)]
pub(crate) struct Search {
    /// Words that the name or the title must all contain
    #[arg(required = true, value_name = "WORD")]
    pub(crate) words: Vec<String>,
    #[command(flatten)]
    pub(crate) listing: Listing,
}

/// How `ls` and `search` list.
#[derive(Debug, Args)]
pub(crate) struct Listing {
    /// List what this peer knows of, instead of asking all peers: its name, or HOST:PORT
    #[arg(long, env = "P2PDI_CTL_LS_OF", value_name = "PEER")]
    pub(crate) of: Option<String>,
    /// At most this many documents
    #[arg(long, env = "P2PDI_CTL_LS_LIMIT", value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) limit: Option<u32>,
    #[command(flatten)]
    pub(crate) via: OptionalVia,
}

#[derive(Debug, Args)]
pub(crate) struct Swarm {
    /// The document: its name, or b3:HASH
    #[arg(value_name = "NAME|b3:HASH", value_parser = parse_document)]
    pub(crate) document: DocumentSelector,
    /// Begin with this peer, instead of all that hold the document
    #[arg(long, env = "P2PDI_CTL_AT", value_name = "HOST:PORT")]
    pub(crate) at: Option<Endpoint>,
    #[command(flatten)]
    pub(crate) via: OptionalVia,
}
