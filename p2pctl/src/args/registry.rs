//! Verbs about the registry.

use super::{enrol::AsOperator, via::OptionalVia};
use clap::{Args, Subcommand, builder::BoolishValueParser};
use p2pdi::{endpoint::Endpoint, name::PeerName};
use peerd::config::parse_label;
use std::path::PathBuf;

#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The name to register; by default this host's name
    #[arg(long, env = "P2PDI_CTL_NAME")]
    pub(crate) name: Option<PeerName>,
    /// Address others can dial; by default this machine's address towards the registry, and peerd's port
    #[arg(long, env = "P2PDI_CTL_ENDPOINT", value_name = "HOST:PORT")]
    pub(crate) endpoint: Option<Endpoint>,
    /// Label others can filter by; may be given several times
    #[arg(long = "label", env = "P2PDI_CTL_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct RegistryVerb {
    #[command(subcommand)]
    pub(crate) what: RegistryWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum RegistryWhat {
    /// End the lease and the reservation of a name, on the registry's machine: its peer lost its cookie, or is gone for good
    Expire(Expire),
    /// Show what a registry does
    Status(AsOperator),
    /// List all records, also of peers that left, whose names are reserved, and of observers
    Peers(RegistryPeers),
    /// Copy the records of a running registry, at one revision, into a file
    Backup(BackupTo),
    /// Take the records of such a file over, all or none, into a registry that has none
    Restore(RestoreFrom),
}

#[derive(Debug, Args)]
pub(crate) struct RegistryPeers {
    /// Only this name, or pattern with * for any run of characters
    pub(crate) name: Option<String>,
    #[command(flatten)]
    pub(crate) as_operator: AsOperator,
}

#[derive(Debug, Args)]
pub(crate) struct BackupTo {
    /// Where to write it
    pub(crate) file: PathBuf,
    /// Replace a file of that name, once the new one is complete
    #[arg(long, env = "P2PDI_CTL_REGISTRY_FORCE", value_parser = clap::builder::BoolishValueParser::new())]
    pub(crate) force: bool,
    #[command(flatten)]
    pub(crate) as_operator: AsOperator,
}

#[derive(Debug, Args)]
pub(crate) struct RestoreFrom {
    /// What `p2pctl registry backup` wrote
    pub(crate) file: PathBuf,
    #[command(flatten)]
    pub(crate) as_operator: AsOperator,
}

#[derive(Debug, Args)]
pub(crate) struct Expire {
    /// The name to free
    pub(crate) name: PeerName,
}

#[derive(Debug, Args)]
pub(crate) struct Pquery {
    #[command(flatten)]
    pub(crate) via: OptionalVia,
    /// List the peers that this peer knows, instead of asking the registry: its name, or HOST:PORT
    #[arg(long, env = "P2PDI_CTL_PQUERY_OF", value_name = "PEER", conflicts_with_all = ["name", "labels", "sample", "since_revision", "watch"])]
    pub(crate) of: Option<String>,
    /// Only this name, or pattern with * for any run of characters
    #[arg(long, env = "P2PDI_CTL_PQUERY_NAME")]
    pub(crate) name: Option<String>,
    /// Only peers with this label; may be given several times
    #[arg(long = "label", env = "P2PDI_CTL_PQUERY_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// A random sample of this many
    #[arg(long, env = "P2PDI_CTL_PQUERY_SAMPLE", value_name = "N", conflicts_with = "since_revision")]
    pub(crate) sample: Option<u32>,
    /// Only what changed after this revision
    #[arg(long, env = "P2PDI_CTL_PQUERY_SINCE_REVISION", value_name = "REVISION")]
    pub(crate) since_revision: Option<u64>,
    /// Print who joins, changes and leaves, until Ctrl-C: first the whole list, or what changed after that revision
    #[arg(long, env = "P2PDI_CTL_PQUERY_WATCH", conflicts_with = "sample", value_parser = BoolishValueParser::new())]
    pub(crate) watch: bool,
}

impl Pquery {
    /// Whether it has a filter that only a registry applies.
    pub(crate) fn has_filter(&self) -> bool {
        self.name.is_some() || !self.labels.is_empty() || self.sample.is_some() || self.since_revision.is_some() || self.watch
    }
}
