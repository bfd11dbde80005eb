//! Verbs about certificates: tokens, joining, revoking, the certificate authority.

use super::certificates::{CopyCertificate, InKubernetes};
use crate::contexts::parse_name;
use clap::{Args, Subcommand, builder::BoolishValueParser};
use p2pdi::{endpoint::Endpoint, name::PeerName, token::JoinToken};
use peerd::config::parse_label;
use std::{path::PathBuf, time::Duration};

#[derive(Debug, Args)]
pub(crate) struct Token {
    #[command(subcommand)]
    pub(crate) what: TokenWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum TokenWhat {
    /// Make a token with which a peer joins (peerd --join), or a person (p2pctl login), and print it
    Create(CreateToken),
    /// List the tokens, without their secrets
    List(AsOperator),
    /// Revoke a token; those who joined with it stay
    Revoke {
        /// Its id, as `p2pctl token list` shows it
        id: String,
        #[command(flatten)]
        as_operator: AsOperator,
    },
}

/// Whoever makes a call for operators.
#[derive(Debug, Args)]
pub(crate) struct AsOperator {
    /// Folder of the registry's certificate authority, on its machine: whoever can read its key needs no login
    #[arg(long, env = "P2PDI_CTL_CA", value_name = "DIR")]
    pub(crate) ca: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub(crate) struct CreateToken {
    /// The name of who joins with it, or a pattern such as 'gpu-*'
    #[arg(long, env = "P2PDI_CTL_TOKEN_NAME")]
    pub(crate) name: String,
    /// Label of those who join with it; it is in their certificates; may be given several times
    #[arg(long = "label", env = "P2PDI_CTL_TOKEN_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// How long it can be used, at most 30days
    #[arg(long, env = "P2PDI_CTL_TOKEN_TTL", value_name = "DURATION", default_value = "1h", value_parser = humantime::parse_duration)]
    pub(crate) ttl: Duration,
    /// How many may join with it
    #[arg(long, env = "P2PDI_CTL_TOKEN_USES", value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) uses: u32,
    /// Let a machine that lost its key join again under the name that it got with this token, as pods without a volume do; whoever has the token can
    /// take these names, too
    #[arg(long, env = "P2PDI_CTL_TOKEN_REJOIN", conflicts_with = "operator", value_parser = BoolishValueParser::new())]
    pub(crate) rejoin: bool,
    /// It is for a person who may operate the network: `p2pctl login`
    #[arg(long, env = "P2PDI_CTL_TOKEN_OPERATOR", value_parser = BoolishValueParser::new())]
    pub(crate) operator: bool,
    /// Address of the registry for who joins, if it is not that of --registry; may be given several times
    #[arg(long = "address", env = "P2PDI_CTL_TOKEN_ADDRESSES", value_name = "HOST:PORT", value_delimiter = ',')]
    pub(crate) addresses: Vec<Endpoint>,
    #[command(flatten)]
    pub(crate) as_operator: AsOperator,
}

#[derive(Debug, Args)]
pub(crate) struct Login {
    /// What `p2pctl token create` printed
    #[arg(env = "P2PDI_CTL_TOKEN", hide_env_values = true)]
    pub(crate) token: JoinToken,
    /// Name of the context that it becomes; by default the network's name
    #[arg(long = "as", env = "P2PDI_CTL_LOGIN_AS", value_name = "NAME", value_parser = parse_name)]
    pub(crate) save_as: Option<String>,
}

#[derive(Debug, Args)]
pub(crate) struct Revoke {
    /// The name whose certificates end, everywhere within a lease
    pub(crate) name: PeerName,
    #[command(flatten)]
    pub(crate) as_operator: AsOperator,
}

#[derive(Debug, Args)]
pub(crate) struct Ca {
    #[command(subcommand)]
    pub(crate) what: CaWhat,
}

#[derive(Debug, Subcommand)]
pub(crate) enum CaWhat {
    /// Make a certificate authority in a folder, without a registry, for the network of --network
    Init(CaFolder),
    /// Make a key and a certificate as files, for programs that do not join with a token
    Issue(Issue),
    /// Show the certificates of the authority, of which the last signs
    Show(CaFolder),
    /// Make, keep and renew an authority and its certificates in Secrets of Kubernetes, as the account of this pod
    Kubernetes(Box<InKubernetes>),
    /// Copy a peer's certificate from where a Secret of `ca kubernetes` is mounted, so that it sees no other's key
    Copy(CopyCertificate),
    /// Replace the key and certificate of the registry's authority; the old one stays trusted for 30 days
    Rotate(AsOperator),
}

#[derive(Debug, Args)]
pub(crate) struct CaFolder {
    /// Folder of the certificate authority
    #[arg(long = "ca", env = "P2PDI_CTL_CA", value_name = "DIR")]
    pub(crate) path: PathBuf,
}

#[derive(Debug, Args)]
pub(crate) struct Issue {
    #[command(flatten)]
    pub(crate) folder: CaFolder,
    /// Name of the peer, or of the operator
    #[arg(long, env = "P2PDI_CTL_CA_NAME")]
    pub(crate) name: PeerName,
    /// Label in the certificate; may be given several times
    #[arg(long = "label", env = "P2PDI_CTL_CA_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// It is for a person who may operate the network
    #[arg(long, env = "P2PDI_CTL_CA_OPERATOR", value_parser = BoolishValueParser::new())]
    pub(crate) operator: bool,
    /// How long the certificate is valid: nobody renews it
    #[arg(long, env = "P2PDI_CTL_CA_LIFE", value_name = "DURATION", default_value = "90days", value_parser = humantime::parse_duration)]
    pub(crate) life: Duration,
    /// Folder for NAME.pem, NAME-key.pem and ca.pem
    #[arg(long, env = "P2PDI_CTL_CA_OUT", value_name = "DIR", default_value = ".")]
    pub(crate) out: PathBuf,
}
