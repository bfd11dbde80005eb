//! Declaration of the command line.

mod certificates;
mod context;
mod enrol;
mod get;
mod jobs;
mod listing;
mod local;
mod mesh;
mod parse;
mod registry;
mod via;

pub(crate) use certificates::{CopyCertificate, InKubernetes, OfPeer, OfSet};
pub(crate) use context::{Context, ContextWhat};
pub(crate) use enrol::{AsOperator, Ca, CaFolder, CaWhat, CreateToken, Issue, Login, Revoke, Token, TokenWhat};
pub(crate) use get::{Fetching, Get, GetRfc, Sharing};
pub(crate) use jobs::{Fetch, Jobs, JobsWhat, Pin};
pub(crate) use listing::{Listing, Ls, RfcQuery, Search, Swarm};
pub(crate) use local::{Bench, BenchWhat, Completions, Demo, Man, Tasks, Up};
pub(crate) use mesh::{Broadcast, Chat, Drain, Graph, GraphFormat, Join, Listen, PeerCount, Ping, Status, Whisper};
pub(crate) use registry::{BackupTo, Expire, Pquery, Register, RegistryPeers, RegistryVerb, RegistryWhat, RestoreFrom};
pub(crate) use via::OptionalVia;

use crate::{
    contexts,
    failure::{Failure, Outcome},
    registry_client::{Leaving, RegistryAccess},
};
use clap::{ArgMatches, Args, Parser, Subcommand, ValueEnum, builder::BoolishValueParser};
use p2pdi::{
    channel::Dial,
    configuration::{Given, Layer, Program, Variables},
    endpoint::Endpoint,
    network::NetworkName,
    registries::RegistryChannel,
    telemetry::LogFormat,
    tls::{ClientAuth, Tls, TlsFiles},
};
use peerd::config::{REGISTRY_DEFAULT, RegistryUrl, checked_registries};
use std::{
    env,
    ffi::OsString,
    path::{Path, PathBuf},
    sync::OnceLock,
};

// No line is longer than 80 characters: clap would break it, and a pasted command with it.
const EXAMPLES: &str = "\
Examples:
  See it all work, on this machine and nothing else:
    p2pctl demo

  List the active peers, and who has RFC 48:
    p2pctl peers
    p2pctl peers --watch
    p2pctl rfc-query fff-c --number 48

  Fetch it, verified, from whoever has it, or from one peer:
    p2pctl get-rfc 48
    p2pctl get-rfc 48 --from fff-c --out ./out

  Fetch any document by name or hash, or all that match a pattern:
    p2pctl get models/base.bin
    p2pctl get \\
      b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262
    p2pctl get 'models/llama/**' --exclude '*.bin' --dry-run

  Find documents; see who has how much of one:
    p2pctl ls 'models/**'
    p2pctl search base model
    p2pctl swarm models/base.bin

  Have the peer on this machine fetch into its share, and keep it:
    p2pctl fetch 'models/llama/**' --wait
    p2pctl jobs
    p2pctl pin models/base.bin

  Talk:
    p2pctl whisper fff-c 'hello there'
    p2pctl broadcast 'hello all' --via 127.0.0.1:7801 --wait 2s
    p2pctl chat --via 127.0.0.1:7801

  Let a peer join, on the machine of a registry that runs with --ca ./ca:
    p2pctl token create --name fff-c --ca ./ca --address HOST:7800

  Print the messages that a peer receives, and draw its network:
    p2pctl listen --via 127.0.0.1:7801
    p2pctl graph --via 127.0.0.1:7801 --format svg > network.svg

Exit codes: 0 done; 1 not found, refused, no route, corrupt; 2 wrong usage;
130 interrupted by Ctrl-C. With --output json an error is one JSON object on
standard error: {\"error\":{\"reason\",\"message\",\"hints\"}}.";

/// How the configuration is read.
pub(crate) static PROGRAM: Program = Program { variables: VARIABLES, layer: context };

const VARIABLES: Variables = Variables {
    prefix: "P2PDI_CTL_",
    old: &[
        "AT",
        "BENCH_RUNS",
        "ENDPOINT",
        "FETCH_PRIORITY",
        "FETCH_WAIT",
        "FORCE",
        "FROM",
        "GET_DRY_RUN",
        "GET_EXCLUDE",
        "GET_INCLUDE",
        "GET_JOBS",
        "GET_KEEP_GOING",
        "GET_LIMIT",
        "GET_LISTEN",
        "GET_NO_SHARE",
        "GET_SEED",
        "GET_UPLOAD_LIMIT",
        "GRAPH_FORMAT",
        "KIND",
        "KINDS",
        "LABELS",
        "LS_LIMIT",
        "LS_OF",
        "MAN_OUT",
        "NAME",
        "OUT",
        "OUTPUT",
        "PQUERY_LABELS",
        "PQUERY_NAME",
        "PQUERY_OF",
        "PQUERY_SAMPLE",
        "PQUERY_SINCE_REVISION",
        "QUERY_HASH",
        "QUERY_LIMIT",
        "QUERY_NAME",
        "QUERY_NUMBER",
        "QUERY_OWN",
        "QUERY_TITLE",
        "QUIET",
        "REGISTRY",
        "RFC_DIR",
        "SENDER",
        "SHARE",
        "STALL_TIMEOUT",
        "STATUS_LEFT_OUT",
        "UP_PEERS",
        "VIA",
        "WAIT",
        "WAIT_FOR_HOLDERS",
    ],
    renamed: &[("P2PDI_UP_PORT", "P2PDI_CTL_UP_PORT_NUMBER")],
    also: &[("RUST_LOG", "P2PDI_CTL_LOG"), ("P2PDI_CONTEXT", "P2PDI_CTL_CONTEXT")],
};

/// Verbs that need no registry, or change contexts: a context that is wrong must not stop them.
const WITHOUT_CONTEXT: [&str; 7] = ["bench", "completions", "context", "demo", "login", "man", "up"];

/// The values of the context that flags or variables name, or else of the current one.
fn context(said: &ArgMatches) -> Result<Option<Layer>, (String, String)> {
    if said.subcommand_name().is_some_and(|verb| WITHOUT_CONTEXT.contains(&verb)) {
        return Ok(None);
    }
    contexts::layer(said.get_one::<String>("context").map(String::as_str))
}

/// The command line of P2P-DI.
#[derive(Debug, Parser)]
#[command(name = "p2pctl", version, after_help = EXAMPLES, arg_required_else_help = true)]
pub(crate) struct Cli {
    #[command(flatten)]
    pub(crate) global: Global,
    #[command(subcommand)]
    pub(crate) verb: Verb,
}

/// Options of every verb.
#[derive(Debug, Args)]
pub(crate) struct Global {
    /// The registry to ask; of several, which must be replicas of one registry, any one, and another when it fails. May be given several times,
    /// and a name may have several addresses
    #[arg(
        long = "registry",
        global = true,
        env = "P2PDI_CTL_REGISTRY",
        value_name = "URL",
        value_delimiter = ',',
        default_value = REGISTRY_DEFAULT
    )]
    registries: Vec<RegistryUrl>,

    /// A certificate to show, as PEM, followed by those of intermediate CAs
    #[arg(long, global = true, env = "P2PDI_CTL_TLS_CERT", value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,

    /// The key of that certificate, as PEM, readable by its owner only
    #[arg(long, global = true, env = "P2PDI_CTL_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// The CAs of the network, as PEM; with them every connection has TLS
    #[arg(long, global = true, env = "P2PDI_CTL_TLS_CA", value_name = "FILE")]
    tls_ca: Option<PathBuf>,

    /// The network that the registry keeps
    #[arg(long, global = true, env = "P2PDI_CTL_NETWORK", value_name = "NAME", default_value_t)]
    pub(crate) network: NetworkName,

    /// How to print the result
    #[arg(long, short, global = true, env = "P2PDI_CTL_OUTPUT", value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,

    /// How to show the progress of a fetch on standard error; auto: a bar on a terminal, else a line every few seconds of a long one
    #[arg(long, global = true, env = "P2PDI_CTL_PROGRESS", value_enum, default_value_t = ProgressMode::Auto)]
    pub(crate) progress: ProgressMode,

    /// Folder for the cookies that `register` keeps and the history of `chat`; by default the user's state folder
    #[arg(long, global = true, env = "P2PDI_CTL_STATE", value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Take registry, network and certificates from this context; by default from the current one: see p2pctl context
    #[arg(long, global = true, env = "P2PDI_CTL_CONTEXT", value_name = "NAME", value_parser = contexts::parse_name)]
    pub(crate) context: Option<String>,

    /// What flags and variables give.
    #[arg(skip)]
    pub(crate) given: Given,

    /// How to dial; set by [`Global::read_certificates`].
    #[arg(skip)]
    pub(crate) dial: Dial,

    /// All calls of this program to the registry share it.
    #[arg(skip)]
    channel: OnceLock<RegistryChannel>,

    /// Observers' leases to end.
    #[arg(skip)]
    pub(crate) leaving: Leaving,

    /// What to log to standard error, such as info or debug; RUST_LOG does the same
    #[arg(long, global = true, env = "P2PDI_CTL_LOG", value_name = "FILTER", default_value = "off")]
    pub(crate) log: String,

    /// Form of a log line
    #[arg(long, global = true, env = "P2PDI_CTL_LOG_FORMAT", value_name = "text|json", default_value_t)]
    pub(crate) log_format: LogFormat,

    /// File with the configuration, in TOML: the names of flags are the keys, those of a verb in its table [verb.NAME]; flags and variables
    /// beat it
    #[arg(long, global = true, env = "P2PDI_CTL_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print the effective configuration as such a file, of the verb if one is given, with where each value comes from, and exit
    #[arg(long, global = true, env = "P2PDI_CTL_PRINT_CONFIG", value_parser = BoolishValueParser::new())]
    print_config: bool,
}

impl Global {
    /// How the registry is reached.
    pub(crate) fn access(&self) -> RegistryAccess {
        let (network, dial, leaving) = (self.network.clone(), self.dial.clone(), self.leaving.clone());
        RegistryAccess { registry: self.channel().clone(), network, dial, leaving }
    }

    /// The addresses of the registry.
    pub(crate) fn registries(&self) -> Vec<Endpoint> {
        self.registries.iter().map(|url| url.endpoint.clone()).collect()
    }

    /// A channel to the registry. Only to be used once the certificates are read.
    pub(crate) fn channel(&self) -> &RegistryChannel {
        self.channel.get_or_init(|| RegistryChannel::new(&self.registries(), self.dial.clone()))
    }

    /// The registry in use as it is dialled: `https://` with certificates. Before the first answer all of them.
    pub(crate) fn url(&self) -> String {
        let in_use = self.channel().in_use().map(|place| vec![place.registry]);
        urls(&in_use.unwrap_or_else(|| self.registries()), self.dial.tls.is_some())
    }

    /// The file of the certificate to show.
    pub(crate) fn certificate(&self) -> Option<&Path> {
        self.tls_cert.as_deref()
    }

    /// Reads the certificates that are given; connections have TLS from then on.
    ///
    /// # Errors
    /// When a file of them cannot be read, or what is in it cannot be used; when the registry's address needs some, and none are given.
    pub(crate) fn read_certificates(&mut self) -> Outcome {
        if let Some(ca) = self.tls_ca.clone() {
            let files = TlsFiles { cert: self.tls_cert.clone(), key: self.tls_key.clone(), ca };
            let tls = Tls::from_files(files, ClientAuth::Required).map_err(|error| Failure::refused(error.to_string()))?;
            tls.set_network(&self.network).map_err(|error| Failure::refused(error.to_string()))?;
            self.dial = Dial::with(Some(tls));
        }
        checked_registries(&self.registries, self.dial.tls.is_some())?;
        Ok(())
    }
}

/// The URL of a registry, with TLS or without.
pub(crate) fn url(registry: &Endpoint, tls: bool) -> String {
    format!("{}://{registry}", if tls { "https" } else { "http" })
}

/// The URLs of registries, as `--registry` takes them.
pub(crate) fn urls(registries: &[Endpoint], tls: bool) -> String {
    registries.iter().map(|registry| url(registry, tls)).collect::<Vec<_>>().join(",")
}

/// Whether these arguments, which may be wrong, or the environment ask for JSON.
pub(crate) fn wants_json(arguments: impl Iterator<Item = OsString>) -> bool {
    let arguments: Vec<_> = arguments.collect();
    let apart = arguments.windows(2).any(|pair| (pair[0] == "--output" || pair[0] == "-o") && pair[1] == "json");
    let together = arguments.iter().any(|argument| ["--output=json", "-o=json", "-ojson"].iter().any(|form| argument == form));
    apart || together || env::var_os("P2PDI_CTL_OUTPUT").is_some_and(|form| form == "json")
}

/// Form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text and tables.
    Table,
    /// JSON: the messages of the contract.
    Json,
}

/// Form of a fetch's progress.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum ProgressMode {
    /// A bar on a terminal; otherwise plain, but nothing for a short fetch, and nothing with --output json
    Auto,
    /// A bar; plain where standard error is no terminal
    Bar,
    /// A line every few seconds
    Plain,
    /// One JSON object a second
    Json,
    /// Nothing
    None,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Take a lease on a name; its cookie is kept for later verbs
    Register(Register),
    /// Extend the lease that `register` took
    Keepalive,
    /// End the lease that `register` took
    Leave,
    /// Operate a registry
    Registry(RegistryVerb),
    /// List the active peers
    #[command(visible_alias = "peers")]
    Pquery(Pquery),
    /// List the documents that a peer knows of, and who holds them
    RfcQuery(RfcQuery),
    /// List the documents that the peers of the network have
    Ls(Ls),
    /// List the documents whose name or title has some words
    Search(Search),
    /// Fetch RFCs by their numbers, verified
    GetRfc(GetRfc),
    /// Fetch documents by name, hash or pattern, verified
    Get(Get),
    /// Have a running peer fetch documents into its share
    Fetch(Fetch),
    /// List the jobs of a running peer, or cancel one
    Jobs(Jobs),
    /// Keep a document that a running peer fetched, whatever its quota
    Pin(Pin),
    /// Release a document that was pinned
    Unpin(Pin),
    /// Show who has how much of a document, and who sends it to whom
    Swarm(Swarm),
    /// Send a message to one peer, and print how many peers passed it on (hops; 0: the one called is the receiver)
    Whisper(Whisper),
    /// Send a message to all peers of the mesh
    Broadcast(Broadcast),
    /// Print the messages that a peer receives, until Ctrl-C
    Listen(Listen),
    /// Chat with all peers of the mesh; `@name text` goes to one
    Chat(Chat),
    /// Link a peer to another, which joins their meshes
    Join(Join),
    /// End a running peer in order, as SIGTERM does: it takes no new work, leaves the registry and its mesh, and finishes what others fetch from it
    Drain(Drain),
    /// Count the other peers of the mesh that answer
    PeerCount(PeerCount),
    /// Draw the network: peers and their links
    Graph(Graph),
    /// Measure the round trip to a peer
    Ping(Ping),
    /// Show the state of the registry, or of a peer
    Status(Status),
    /// Make, list and revoke tokens, with which peers and people join the network
    Token(Token),
    /// Join the network of a token: later verbs use its registry and the certificate that it gives
    Login(Login),
    /// End the certificates of a name, everywhere within a lease
    Revoke(Revoke),
    /// Keep a certificate authority in a folder, for those who want files
    Ca(Ca),
    /// Start a registry and some peers in this process, until Ctrl-C
    Up(Up),
    /// Start a registry and three peers, fetch, send a message, print each step, and exit
    Demo(Demo),
    /// Run a benchmark
    Bench(Bench),
    /// Keep registry, network and certificates under a name, for all other verbs
    Context(Context),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page, or write those of all verbs to a folder
    Man(Man),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Cli::command().debug_assert();
    }
}
