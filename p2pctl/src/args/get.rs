//! get-rfc and get.

use super::{
    parse::{parse_pattern, parse_rate, parse_rfc, parse_source, parse_wanted, parse_zone},
    via::OptionalVia,
};
use clap::{Args, builder::BoolishValueParser};
use p2pdi::{endpoint::ListenAddress, field::InvalidField};
use peerd::documents::{
    pattern::{DocumentPattern, PatternSet},
    wanted::Wanted,
};
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Args)]
pub(crate) struct GetRfc {
    /// The RFC's number, such as 48 or rfc48; may be given several times
    #[arg(value_name = "NUMBER", required = true, value_parser = parse_rfc)]
    pub(crate) numbers: Vec<u32>,
    #[command(flatten)]
    pub(crate) fetching: Fetching,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// Documents: a name, b3:HASH, or a pattern such as 'rfc*' or 'models/**' (64 hexadecimal digits alone are a hash, too; ./NAME is always a name)
    #[arg(value_name = "NAME|b3:HASH|PATTERN", required = true, value_parser = parse_wanted)]
    pub(crate) wanted: Vec<Wanted>,
    #[command(flatten)]
    pub(crate) choice: Choice,
    #[command(flatten)]
    pub(crate) fetching: Fetching,
}

/// Which of the documents that patterns match.
#[derive(Debug, Default, Args)]
pub(crate) struct Choice {
    /// Of what patterns match, only names that match this one, too, as in a .gitignore; may be given several times
    #[arg(long, env = "P2PDI_CTL_GET_INCLUDE", value_name = "GLOB", value_parser = parse_pattern)]
    pub(crate) include: Vec<DocumentPattern>,
    /// Of what patterns match, no names that match this one; may be given several times
    #[arg(long, env = "P2PDI_CTL_GET_EXCLUDE", value_name = "GLOB", value_parser = parse_pattern)]
    pub(crate) exclude: Vec<DocumentPattern>,
}

impl Choice {
    /// Whether it says anything.
    pub(crate) fn is_given(&self) -> bool {
        !self.include.is_empty() || !self.exclude.is_empty()
    }

    /// The patterns as one set.
    ///
    /// # Errors
    /// When there are too many.
    pub(crate) fn patterns(&self) -> Result<PatternSet, InvalidField> {
        let texts = |patterns: &[DocumentPattern]| patterns.iter().map(ToString::to_string).collect::<Vec<_>>();
        PatternSet::parse(&texts(&self.include), &texts(&self.exclude))
    }
}

/// How documents are fetched.
#[derive(Debug, Args)]
pub(crate) struct Fetching {
    /// Fetch what this peer has: its name, or HOST:PORT; may be given several times. Others that have the same content help
    #[arg(long, env = "P2PDI_CTL_FROM", value_name = "PEER", value_delimiter = ',', value_parser = parse_source)]
    pub(crate) from: Vec<String>,
    #[command(flatten)]
    pub(crate) via: OptionalVia,
    /// Folder to save it in
    #[arg(long, env = "P2PDI_CTL_OUT", value_name = "DIR", default_value = "./out")]
    pub(crate) out: PathBuf,
    /// Replace a file of the same name that has other content
    #[arg(long, env = "P2PDI_CTL_FORCE", value_parser = BoolishValueParser::new())]
    pub(crate) force: bool,
    /// Ask other holders for what one does not send within this time
    #[arg(long, env = "P2PDI_CTL_STALL_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) stall_timeout: Duration,
    /// When nobody can serve what is missing, or the registry does not answer, wait this long for somebody who can
    #[arg(long, env = "P2PDI_CTL_WAIT_FOR_HOLDERS", value_name = "DURATION", default_value = "0s", value_parser = humantime::parse_duration)]
    pub(crate) wait_for_holders: Duration,
    /// Documents to fetch at the same time; of those up to 8 MiB, as many as make 16 MiB
    #[arg(long, env = "P2PDI_CTL_GET_JOBS", value_name = "N", default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    pub(crate) jobs: u16,
    /// Go on with the other documents after one fails
    #[arg(long, env = "P2PDI_CTL_GET_KEEP_GOING", value_parser = BoolishValueParser::new())]
    pub(crate) keep_going: bool,
    /// Fetch nothing; print what would be fetched, and what is there already
    #[arg(long, env = "P2PDI_CTL_GET_DRY_RUN", value_parser = BoolishValueParser::new())]
    pub(crate) dry_run: bool,
    /// Download rate limit per second, such as 10MiB
    #[arg(long, env = "P2PDI_CTL_GET_LIMIT", value_name = "RATE", value_parser = parse_rate)]
    pub(crate) limit: Option<u64>,
    #[command(flatten)]
    pub(crate) sharing: Sharing,
    /// Print the paths only, and no progress unless --progress is given
    #[arg(long, short, env = "P2PDI_CTL_QUIET", value_parser = BoolishValueParser::new())]
    pub(crate) quiet: bool,
}

/// How what is fetched is shared with others that fetch it.
#[derive(Debug, Args)]
pub(crate) struct Sharing {
    /// Do not send what is fetched to others that fetch it
    #[arg(long, env = "P2PDI_CTL_GET_NO_SHARE", value_parser = BoolishValueParser::new(), conflicts_with_all = ["seed", "upload_limit", "listen"])]
    pub(crate) no_share: bool,
    /// After the fetch, share it for this long: of what was fetched, the last 256 documents of 1 MiB or more; Ctrl-C ends it
    #[arg(long, env = "P2PDI_CTL_GET_SEED", value_name = "DURATION", value_parser = humantime::parse_duration)]
    pub(crate) seed: Option<Duration>,
    /// Upload rate limit per second, such as 10MiB
    #[arg(long, env = "P2PDI_CTL_GET_UPLOAD_LIMIT", value_name = "RATE", value_parser = parse_rate)]
    pub(crate) upload_limit: Option<u64>,
    /// Address to share at; by default any free port
    #[arg(long, env = "P2PDI_CTL_GET_LISTEN", value_name = "HOST:PORT")]
    pub(crate) listen: Option<ListenAddress>,
    /// Prefer holders with this label `zone`; by default with that of the peer on this machine, if one runs at 127.0.0.1:7801
    #[arg(long, env = "P2PDI_CTL_ZONE", value_parser = parse_zone)]
    pub(crate) zone: Option<String>,
}
