//! fetch, jobs, pin and unpin: what a running peer fetches for its share.

use super::{
    get::Choice,
    parse::{parse_source, parse_wanted},
    via::{AT_DEFAULT, At},
};
use clap::{Args, Subcommand, ValueEnum, builder::BoolishValueParser};
use p2pdi::{document::DocumentName, endpoint::Endpoint, v1::JobPriority};
use peerd::documents::wanted::Wanted;
use std::time::Duration;

#[derive(Debug, Args)]
pub(crate) struct Fetch {
    /// Documents: a name, b3:HASH, or a pattern such as 'rfc*' or 'models/**'
    #[arg(value_name = "NAME|b3:HASH|PATTERN", required = true, value_parser = parse_wanted)]
    pub(crate) wanted: Vec<Wanted>,
    #[command(flatten)]
    pub(crate) choice: Choice,
    #[command(flatten)]
    pub(crate) at: At,
    /// Show the progress until the job ends; without, return once the peer has accepted it
    #[arg(long, env = "P2PDI_CTL_FETCH_WAIT", value_parser = BoolishValueParser::new())]
    pub(crate) wait: bool,
    /// Which jobs go first
    #[arg(long, env = "P2PDI_CTL_FETCH_PRIORITY", value_enum, default_value_t = Priority::Normal)]
    pub(crate) priority: Priority,
    /// Ask this peer what it has, and fetch from it first: its name, or HOST:PORT; may be given several times. Others that have the same content
    /// help
    #[arg(long, env = "P2PDI_CTL_FROM", value_name = "PEER", value_delimiter = ',', value_parser = parse_source)]
    pub(crate) from: Vec<String>,
    /// When nobody has it, wait this long for somebody who has; by default, for ever
    #[arg(long, env = "P2PDI_CTL_WAIT_FOR_HOLDERS", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) wait_for_holders: Option<Duration>,
    /// Print the job's id only
    #[arg(long, short, env = "P2PDI_CTL_QUIET", value_parser = BoolishValueParser::new())]
    pub(crate) quiet: bool,
}

/// [`JobPriority`] as a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Priority {
    High,
    Normal,
    Low,
}

impl From<Priority> for JobPriority {
    fn from(priority: Priority) -> Self {
        match priority {
            Priority::High => Self::High,
            Priority::Normal => Self::Normal,
            Priority::Low => Self::Low,
        }
    }
}

#[derive(Debug, Args)]
pub(crate) struct Jobs {
    #[command(subcommand)]
    pub(crate) what: Option<JobsWhat>,
    /// The running peer; it must be on this machine unless it was started with --control any
    #[arg(long, global = true, env = "P2PDI_CTL_AT", value_name = "HOST:PORT", default_value = AT_DEFAULT)]
    pub(crate) at: Endpoint,
}

#[derive(Debug, Subcommand)]
pub(crate) enum JobsWhat {
    /// End a job; what it verified is kept for a later one
    Cancel {
        /// The job's id, as `p2pctl jobs` lists it
        id: String,
    },
}

#[derive(Debug, Args)]
pub(crate) struct Pin {
    /// The document's name in the share
    #[arg(value_parser = DocumentName::parse)]
    pub(crate) name: DocumentName,
    #[command(flatten)]
    pub(crate) at: At,
}
