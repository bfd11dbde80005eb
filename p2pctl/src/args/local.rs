//! Verbs that need no network but the one they start.

use clap::{Args, Subcommand, builder::BoolishValueParser};
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// How many peers
    #[arg(long, env = "P2PDI_CTL_UP_PEERS", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) peers: u16,
    /// Folder that all of them share; by default some RFCs are distributed among them
    #[arg(long, env = "P2PDI_CTL_SHARE", value_name = "DIR")]
    pub(crate) share: Option<PathBuf>,
    /// Port of the registry; the peers use the following ports. 0: any free ports
    #[arg(long, env = "P2PDI_CTL_UP_PORT_NUMBER", default_value_t = 7800)]
    pub(crate) port: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Demo {
    /// With certificates of a CA that is made for this run
    #[arg(long, env = "P2PDI_CTL_DEMO_TLS", value_parser = BoolishValueParser::new())]
    pub(crate) tls: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Bench {
    #[command(subcommand)]
    pub(crate) what: BenchWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum BenchWhat {
    /// The two tasks of the original study project: one source with 50 RFCs for 19 clients; 20 peers with 10 RFCs each, all fetch all
    Tasks(Tasks),
}

#[derive(Debug, Args)]
pub(crate) struct Tasks {
    /// Folder with at least 200 RFCs; by default texts of the same sizes are generated
    #[arg(long, env = "P2PDI_CTL_RFC_DIR", value_name = "DIR")]
    pub(crate) rfcs: Option<PathBuf>,
    /// Number of runs; the median is printed
    #[arg(long, env = "P2PDI_CTL_BENCH_RUNS", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
    pub(crate) runs: u16,
}

#[derive(Debug, Args)]
pub(crate) struct Completions {
    /// The shell
    pub(crate) shell: clap_complete::Shell,
}

#[derive(Debug, Args)]
pub(crate) struct Man {
    /// Write one page a verb to this folder
    #[arg(long, env = "P2PDI_CTL_MAN_OUT", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
}
