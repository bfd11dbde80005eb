//! Declaration of the command line.

mod parse;

pub(crate) use parse::DocumentRef;

use crate::registry_client::Leaving;
use clap::{Args, Parser, Subcommand, ValueEnum, builder::BoolishValueParser};
use p2pdi::{content::ContentHash, endpoint::Endpoint, name::PeerName, telemetry::LogFormat};
use parse::{parse_document, parse_hash, parse_peer, parse_rfc, parse_source, parse_wait, parse_wait_or_none};
use peerd::{
    Bootnode,
    config::{REGISTRY_DEFAULT, parse_label, parse_registry},
};
use std::{path::PathBuf, time::Duration};

/// Endpoint of a peer on this machine with the default port.
const VIA_DEFAULT: &str = "127.0.0.1:7801";

// No line is longer than 80 characters: clap would break it, and a pasted command with it.
const EXAMPLES: &str = "\
Examples:
  See it all work, on this machine and nothing else:
    p2pctl demo

  List the active peers, and who has RFC 48:
    p2pctl peers
    p2pctl rfc-query fff-c --number 48

  Fetch it, verified, from whoever has it, or from one peer:
    p2pctl get-rfc 48
    p2pctl get-rfc 48 --from fff-c --out ./out

  Fetch any document by name or hash:
    p2pctl get models/base.bin
    p2pctl get \\
      b3:af1349b9f5f9a1a6a0404dea36dcc9499bcb25c9adc112b7cc9a93cae41f3262

  Talk:
    p2pctl whisper fff-c 'hello there'
    p2pctl broadcast 'hello all' --via 127.0.0.1:7801 --wait 2s
    p2pctl chat --via 127.0.0.1:7801

  Print the messages that a peer receives, and draw its network:
    p2pctl listen --via 127.0.0.1:7801
    p2pctl graph --via 127.0.0.1:7801 --format svg > network.svg

Exit codes: 0 done; 1 not found, refused, no route, corrupt; 2 wrong usage;
130 interrupted by Ctrl-C. With --output json an error is one JSON object on
standard error: {\"error\":{\"reason\",\"message\",\"hints\"}}.";

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
    /// The registry to ask
    #[arg(long, global = true, env = "P2PDI_REGISTRY", value_name = "URL", default_value = REGISTRY_DEFAULT, value_parser = parse_registry)]
    pub(crate) registry: Endpoint,

    /// How to print the result
    #[arg(long, short, global = true, env = "P2PDI_OUTPUT", value_enum, default_value_t = Output::Table)]
    pub(crate) output: Output,

    /// Folder for the cookies that `register` keeps and the history of `chat`; by default the user's state folder
    #[arg(long, global = true, env = "P2PDI_CTL_STATE", value_name = "DIR")]
    pub(crate) state: Option<PathBuf>,

    /// Observers' leases to end.
    #[arg(skip)]
    pub(crate) leaving: Leaving,

    /// What to log to standard error, such as info or debug; RUST_LOG does the same
    #[arg(long, global = true, env = "RUST_LOG", value_name = "FILTER", default_value = "off")]
    pub(crate) log: String,

    /// Form of a log line
    #[arg(long, global = true, env = "P2PDI_CTL_LOG_FORMAT", value_name = "text|json", default_value_t)]
    pub(crate) log_format: LogFormat,
}

/// Form of results.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// Text and tables.
    Table,
    /// JSON: the messages of the contract.
    Json,
}

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Take a lease on a name; its cookie is kept for later verbs
    Register(Register),
    /// Extend the lease that `register` took
    Keepalive,
    /// End the lease that `register` took
    Leave,
    /// List the active peers
    #[command(visible_alias = "peers")]
    Pquery(Pquery),
    /// List the documents that a peer knows of, and who holds them
    RfcQuery(RfcQuery),
    /// Fetch an RFC by its number, verified
    GetRfc(GetRfc),
    /// Fetch a document by its name or hash, verified
    Get(Get),
    /// Send a message to one peer
    Whisper(Whisper),
    /// Send a message to all peers of the mesh
    Broadcast(Broadcast),
    /// Print the messages that a peer receives, until Ctrl-C
    Listen(Listen),
    /// Chat with all peers of the mesh; `@name text` goes to one
    Chat(Chat),
    /// Link a peer to another, which joins their meshes
    Join(Join),
    /// Count the other peers of the mesh that answer
    PeerCount(PeerCount),
    /// Draw the network: peers and their links
    Graph(Graph),
    /// Measure the round trip to a peer
    Ping(Ping),
    /// Show the state of the registry, or of a peer
    Status(Status),
    /// Start a registry and some peers in this process, until Ctrl-C
    Up(Up),
    /// Start a registry and three peers, fetch, send a message, print each step, and exit
    Demo,
    /// Run a benchmark
    Bench(Bench),
    /// Print a completion script for a shell
    Completions(Completions),
    /// Print the manual page, or write those of all verbs to a folder
    Man(Man),
}

#[derive(Debug, Args)]
pub(crate) struct Register {
    /// The name to register; by default this host's name
    #[arg(long, env = "P2PDI_NAME")]
    pub(crate) name: Option<PeerName>,
    /// Address others can dial; by default this machine's address towards the registry, and peerd's port
    #[arg(long, env = "P2PDI_ENDPOINT", value_name = "HOST:PORT")]
    pub(crate) endpoint: Option<Endpoint>,
    /// Label others can filter by; may be given several times
    #[arg(long = "label", env = "P2PDI_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
}

#[derive(Debug, Args)]
pub(crate) struct Pquery {
    #[command(flatten)]
    pub(crate) via: OptionalVia,
    /// List the peers that this peer knows, instead of asking the registry: its name, or HOST:PORT
    #[arg(long, env = "P2PDI_PQUERY_OF", value_name = "PEER", conflicts_with_all = ["name", "labels", "sample", "since_revision"])]
    pub(crate) of: Option<String>,
    /// Only this name, or pattern with * for any run of characters
    #[arg(long, env = "P2PDI_PQUERY_NAME")]
    pub(crate) name: Option<String>,
    /// Only peers with this label; may be given several times
    #[arg(long = "label", env = "P2PDI_PQUERY_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    pub(crate) labels: Vec<(String, String)>,
    /// A random sample of this many
    #[arg(long, env = "P2PDI_PQUERY_SAMPLE", value_name = "N", conflicts_with = "since_revision")]
    pub(crate) sample: Option<u32>,
    /// Only what changed after this revision
    #[arg(long, env = "P2PDI_PQUERY_SINCE_REVISION", value_name = "REVISION")]
    pub(crate) since_revision: Option<u64>,
}

impl Pquery {
    /// Whether it has a filter that only a registry applies.
    pub(crate) fn has_filter(&self) -> bool {
        self.name.is_some() || !self.labels.is_empty() || self.sample.is_some() || self.since_revision.is_some()
    }
}

#[derive(Debug, Args)]
pub(crate) struct RfcQuery {
    /// The peer to ask: its name, or HOST:PORT
    pub(crate) peer: String,
    /// Only this RFC
    #[arg(long, env = "P2PDI_QUERY_NUMBER", value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) number: Option<u32>,
    /// Only titles with all of these words
    #[arg(long, env = "P2PDI_QUERY_TITLE", value_name = "TEXT")]
    pub(crate) title: Option<String>,
    /// Only this document name
    #[arg(long, env = "P2PDI_QUERY_NAME", value_name = "NAME")]
    pub(crate) name: Option<String>,
    /// Only this hash
    #[arg(long, env = "P2PDI_QUERY_HASH", value_name = "b3:HASH", value_parser = parse_hash)]
    pub(crate) hash: Option<ContentHash>,
    /// Only what the peer itself shares
    #[arg(long, env = "P2PDI_QUERY_OWN", value_parser = BoolishValueParser::new())]
    pub(crate) own: bool,
    /// At most this many
    #[arg(long, env = "P2PDI_QUERY_LIMIT", value_name = "N")]
    pub(crate) limit: Option<u32>,
    #[command(flatten)]
    pub(crate) via: OptionalVia,
}

#[derive(Debug, Args)]
pub(crate) struct GetRfc {
    /// The RFC's number, such as 48 or rfc48
    #[arg(value_parser = parse_rfc)]
    pub(crate) number: u32,
    #[command(flatten)]
    pub(crate) fetching: Fetching,
}

#[derive(Debug, Args)]
pub(crate) struct Get {
    /// The document: its name, or b3:HASH (64 hexadecimal digits alone are a hash, too; ./NAME is always a name)
    #[arg(value_name = "NAME|b3:HASH", value_parser = parse_document)]
    pub(crate) document: DocumentRef,
    #[command(flatten)]
    pub(crate) fetching: Fetching,
}

#[derive(Debug, Args)]
pub(crate) struct Fetching {
    /// Fetch from this peer first: its name, or HOST:PORT; may be given several times
    #[arg(long, env = "P2PDI_FROM", value_name = "PEER", value_delimiter = ',', value_parser = parse_source)]
    pub(crate) from: Vec<String>,
    #[command(flatten)]
    pub(crate) via: OptionalVia,
    /// Folder to save it in
    #[arg(long, env = "P2PDI_OUT", value_name = "DIR", default_value = "./out")]
    pub(crate) out: PathBuf,
    /// Replace a file of the same name that has other content
    #[arg(long, env = "P2PDI_FORCE", value_parser = BoolishValueParser::new())]
    pub(crate) force: bool,
    /// Switch to another holder when one sends nothing for this long
    #[arg(long, env = "P2PDI_STALL_TIMEOUT", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    pub(crate) stall_timeout: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Whisper {
    /// The receiver's name
    pub(crate) name: PeerName,
    /// The text
    pub(crate) message: String,
    /// Send it to this peer, which delivers it
    #[arg(long, env = "P2PDI_VIA", value_name = "HOST:PORT")]
    pub(crate) via: Option<Endpoint>,
    /// The kind of message, one token
    #[arg(long, env = "P2PDI_KIND", default_value = "text")]
    pub(crate) kind: String,
    /// The sender's name; by default the registered name
    #[arg(long, env = "P2PDI_SENDER", value_name = "NAME")]
    pub(crate) sender: Option<PeerName>,
}

/// An optional peer that answers in place of the registry.
#[derive(Debug, Args)]
pub(crate) struct OptionalVia {
    /// Ask this peer for the addresses of others, instead of the registry
    #[arg(long, env = "P2PDI_VIA", value_name = "HOST:PORT")]
    pub(crate) via: Option<Endpoint>,
}

/// The running peer that a verb uses.
#[derive(Debug, Args)]
pub(crate) struct Via {
    /// The running peer to use; most verbs need it to be on this machine
    #[arg(long, env = "P2PDI_VIA", value_name = "HOST:PORT", default_value = VIA_DEFAULT)]
    pub(crate) via: Endpoint,
}

#[derive(Debug, Args)]
pub(crate) struct Broadcast {
    /// The text
    pub(crate) message: String,
    #[command(flatten)]
    pub(crate) via: Via,
    /// Wait this long for acknowledgements, at most 60s; 0s: do not wait
    #[arg(long, env = "P2PDI_WAIT", value_name = "DURATION", default_value = "2s", value_parser = parse_wait_or_none, allow_hyphen_values = true)]
    pub(crate) wait: Duration,
    /// The kind of message, one token
    #[arg(long, env = "P2PDI_KIND", default_value = "text")]
    pub(crate) kind: String,
}

#[derive(Debug, Args)]
pub(crate) struct Listen {
    #[command(flatten)]
    pub(crate) via: Via,
    /// Only messages of this kind; may be given several times
    #[arg(long = "kind", env = "P2PDI_KINDS", value_name = "KIND", value_delimiter = ',')]
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
pub(crate) struct PeerCount {
    #[command(flatten)]
    pub(crate) via: Via,
    /// How long to wait for answers, up to 60s
    #[arg(long, env = "P2PDI_WAIT", value_name = "DURATION", default_value = "2s", value_parser = parse_wait, allow_hyphen_values = true)]
    pub(crate) wait: Duration,
}

#[derive(Debug, Args)]
pub(crate) struct Graph {
    #[command(flatten)]
    pub(crate) via: Via,
    /// Output format
    #[arg(long, env = "P2PDI_GRAPH_FORMAT", value_enum, default_value_t = GraphFormat::Text)]
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
    #[arg(long, env = "P2PDI_STATUS_LEFT_OUT", value_parser = BoolishValueParser::new())]
    pub(crate) left_out: bool,
    #[command(flatten)]
    pub(crate) via: OptionalVia,
}

#[derive(Debug, Args)]
pub(crate) struct Up {
    /// How many peers
    #[arg(long, env = "P2PDI_UP_PEERS", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=200))]
    pub(crate) peers: u16,
    /// Folder that all of them share; by default some RFCs are distributed among them
    #[arg(long, env = "P2PDI_SHARE", value_name = "DIR")]
    pub(crate) share: Option<PathBuf>,
    /// Port of the registry; the peers use the following ports. 0: any free ports
    #[arg(long, env = "P2PDI_UP_PORT", default_value_t = 7800)]
    pub(crate) port: u16,
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
    #[arg(long, env = "P2PDI_RFC_DIR", value_name = "DIR")]
    pub(crate) rfcs: Option<PathBuf>,
    /// Number of runs; the median is printed
    #[arg(long, env = "P2PDI_BENCH_RUNS", default_value_t = 3, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=50))]
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
    #[arg(long, env = "P2PDI_MAN_OUT", value_name = "DIR")]
    pub(crate) out: Option<PathBuf>,
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
