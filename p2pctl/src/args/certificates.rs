//! Verbs that keep certificates in Secrets of Kubernetes, and bring them to a peer.

use clap::{Args, builder::BoolishValueParser};
use p2pdi::name::PeerName;
use peerd::config::parse_label;
use std::{path::PathBuf, str::FromStr, time::Duration};

#[derive(Debug, Args)]
pub(crate) struct InKubernetes {
    /// Secret of the authority: its key never leaves it, but for the moment in which this runs
    #[arg(long, env = "P2PDI_CTL_CA_SECRET", value_name = "SECRET")]
    pub(crate) ca_secret: String,
    /// Secret for the registry: tls.crt, tls.key and ca.crt
    #[arg(long, env = "P2PDI_CTL_CA_REGISTRY_SECRET", value_name = "SECRET")]
    pub(crate) registry_secret: Option<String>,
    /// Name or address at which the registry is dialled; may be given several times
    #[arg(long = "host", env = "P2PDI_CTL_CA_HOSTS", value_name = "HOST", value_delimiter = ',')]
    pub(crate) hosts: Vec<String>,
    /// Secret for one peer: tls.crt, tls.key and ca.crt; may be given several times
    #[arg(long = "peer-secret", env = "P2PDI_CTL_CA_PEER_SECRETS", value_name = "SECRET=NAME", value_delimiter = ',')]
    pub(crate) peers: Vec<OfPeer>,
    /// Secret for the peers PREFIX-0, PREFIX-1 … of a StatefulSet: NAME.crt and NAME.key of each, and ca.crt; may be given several times
    #[arg(long = "peers-secret", env = "P2PDI_CTL_CA_PEERS_SECRETS", value_name = "SECRET=PREFIX:COUNT", value_delimiter = ',')]
    pub(crate) sets: Vec<OfSet>,
    /// Life of the certificates; one is replaced when two thirds of it are over
    #[arg(long, env = "P2PDI_CTL_CA_LIFE", value_name = "DURATION", default_value = "30days", value_parser = humantime::parse_duration)]
    pub(crate) life: Duration,
    /// Age at which the authority's own key is replaced; the old one stays trusted for 30 days
    #[arg(long, env = "P2PDI_CTL_CA_ROTATE_AFTER", value_name = "DURATION", default_value = "365days", value_parser = humantime::parse_duration)]
    pub(crate) rotate_after: Duration,
    /// Label of the Secrets that are made; may be given several times
    #[arg(long = "label", env = "P2PDI_CTL_CA_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
}

/// The Secret of one peer.
#[derive(Debug, Clone)]
pub(crate) struct OfPeer {
    pub(crate) secret: String,
    pub(crate) name: PeerName,
}

/// The Secret of all peers of a StatefulSet.
#[derive(Debug, Clone)]
pub(crate) struct OfSet {
    pub(crate) secret: String,
    pub(crate) names: Vec<PeerName>,
}

/// Most peers whose certificates fit into one Secret: it has 1 MiB, and a certificate with its key has up to 4 KiB.
const SET_MAX: u16 = 256;

impl FromStr for OfPeer {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (secret, name) = text.split_once('=').ok_or("it is not of the form SECRET=NAME")?;
        Ok(Self { secret: secret.to_owned(), name: name.parse().map_err(|error| format!("{error}"))? })
    }
}

impl FromStr for OfSet {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('=').and_then(|(secret, set)| Some((secret, set.rsplit_once(':')?)));
        let (secret, (prefix, count)) = parts.ok_or("it is not of the form SECRET=PREFIX:COUNT")?;
        let count = count.parse::<u16>().ok().filter(|count| *count <= SET_MAX);
        let count = count.ok_or_else(|| format!("COUNT is a number up to {SET_MAX}: more do not fit into a Secret"))?;
        let names = (0..count).map(|number| format!("{prefix}-{number}").parse().map_err(|error| format!("{error}")));
        Ok(Self { secret: secret.to_owned(), names: names.collect::<Result<_, _>>()? })
    }
}

#[derive(Debug, Args)]
pub(crate) struct CopyCertificate {
    /// Folder where the Secret of --peers-secret is mounted
    #[arg(long, env = "P2PDI_CTL_CA_FROM", value_name = "DIR")]
    pub(crate) from: PathBuf,
    /// Name of the peer
    #[arg(long, env = "P2PDI_CTL_CA_NAME")]
    pub(crate) name: PeerName,
    /// Folder for tls.crt, tls.key and ca.crt
    #[arg(long, env = "P2PDI_CTL_CA_TO", value_name = "DIR")]
    pub(crate) to: PathBuf,
    /// Go on, and copy what changes, until SIGTERM
    #[arg(long, env = "P2PDI_CTL_CA_FOLLOW", value_parser = BoolishValueParser::new())]
    pub(crate) follow: bool,
}
