//! The command line of `peerd`.

mod certificates;

use crate::{
    Bootnode,
    config::{
        ControlFrom, MinFree, Mirror, NodeConfig, PORT_DEFAULT, REGISTRY_DEFAULT, RegistryUrl, TransferLimits, check_not_shared,
        checked_registries, checked_state, parse_label,
    },
    documents::{pattern::DocumentPattern, restrictions::ShareTo},
    node::NodeHandle,
};
use bytesize::ByteSize;
use clap::{
    Parser, ValueEnum,
    builder::{BoolishValueParser, PathBufValueParser, TypedValueParser as _},
};
use p2pdi::{
    configuration::{Program, Variables},
    endpoint::{Endpoint, ListenAddress},
    field::InvalidField,
    name::PeerName,
    network::NetworkName,
    platform::state_folder,
    selector::validate_labels,
    server::{HttpToken, Limits},
    telemetry::{LogFilter, LogFormat, LogOptions},
    tls::{ClientAuth, Tls},
    token::JoinToken,
};
use std::{
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

// No line is longer than 80 characters: clap would break it, and a pasted command with it.
const EXAMPLES: &str = "\
Examples:
  Share a folder of RFCs, registered with a registry on this machine:
    peerd --name fff-c --share ./rfc --state ./state/fff-c

  In a container, where others reach it by another address than it listens on:
    peerd --listen 0.0.0.0:7801 --advertise peer-0.peers:7801 \\
      --registry http://registry:7800 --share /data --state /state

  Three peers without a registry; the third links to the other two:
    peerd --no-registry --name A --port 8001
    peerd --no-registry --name B --port 8002
    peerd --no-registry --name C --port 8003 --bootnodes A:8001,B:8002

  With a token that `p2pctl token create` printed on the registry's side:
    peerd --join p2pdi1... --share ./rfc --state ./state/fff-c

  On each machine of a LAN; the peers find each other:
    peerd --no-registry --listen 0.0.0.0:7801

Try it:
  curl localhost:7801/
  curl 'localhost:8003/whisper?name=A&message=hello'
  grpcurl -plaintext -d '{\"number\": 48}' localhost:7801 p2pdi.v1.Peer/RFCQuery

`peerd man` prints the manual page, `peerd completions SHELL` a completion
script.";

/// Flags that SIGHUP changes while the program runs.
pub(crate) const LIVE: &[&str] = &["log", "upload-limit", "download-limit", "upload-slots", "quota", "min-free"];

/// How the configuration is read.
pub(crate) static PROGRAM: Program = Program::new(Variables {
    prefix: "P2PDI_PEER_",
    old: &[
        "NAME",
        "LISTEN",
        "ADVERTISE",
        "DIAL_FROM",
        "REGISTRY",
        "NO_REGISTRY",
        "BOOTNODES",
        "NO_LAN",
        "SHARE",
        "STATE",
        "LABELS",
        "UPLOAD_LIMIT",
        "DOWNLOAD_LIMIT",
        "MIRROR",
        "MIRROR_FROM",
        "MIRROR_DELETE",
        "QUOTA",
        "MIN_FREE",
        "UPLOAD_SLOTS",
        "CONTROL",
        "MAX_CONNECTIONS",
        "GRACE",
    ],
    renamed: &[("P2PDI_PORT", "P2PDI_PEER_PORT_NUMBER")],
    also: &[("RUST_LOG", "P2PDI_PEER_LOG")],
});

/// A peer of P2P-DI: shares a folder of documents and exchanges messages with other peers.
#[derive(Debug, Parser)]
#[command(name = "peerd", version, after_help = EXAMPLES)]
pub(crate) struct Flags {
    /// Name of this peer, unique in its registry; by default that of its certificate, or the host's name
    #[arg(long, env = "P2PDI_PEER_NAME")]
    name: Option<PeerName>,

    /// Network of this peer: it talks to the registries and peers of that one only
    #[arg(long, env = "P2PDI_PEER_NETWORK", value_name = "NAME", default_value_t)]
    network: NetworkName,

    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "P2PDI_PEER_LISTEN", value_name = "HOST:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT)).into())]
    listen: ListenAddress,

    /// Port to listen on, in place of the one in --listen
    #[arg(long, env = "P2PDI_PEER_PORT_NUMBER")]
    port: Option<u16>,

    /// Address that other peers dial, if it is not the one listened on
    #[arg(long, env = "P2PDI_PEER_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<Endpoint>,

    /// Local address to dial other peers from, on a host with several addresses
    #[arg(long, env = "P2PDI_PEER_DIAL_FROM", value_name = "IP")]
    dial_from: Option<IpAddr>,

    /// The registry to register with; of several, which must be replicas of one registry, one is used at a time and another when it fails. May
    /// be given several times, and a name may have several addresses
    #[arg(long = "registry", env = "P2PDI_PEER_REGISTRY", value_name = "URL", value_delimiter = ',', default_value = REGISTRY_DEFAULT)]
    registries: Vec<RegistryUrl>,

    /// Run without a registry; --registry is ignored
    #[arg(long, env = "P2PDI_PEER_NO_REGISTRY", value_parser = BoolishValueParser::new())]
    no_registry: bool,

    /// Peers to link to: NAME:PORT on this host, NAME@HOST:PORT or HOST:PORT; retried until they answer
    #[arg(long, env = "P2PDI_PEER_BOOTNODES", value_name = "PEER", value_delimiter = ',')]
    bootnodes: Vec<Bootnode>,

    /// Do not announce this peer on the LAN and do not look for others there
    #[arg(long, env = "P2PDI_PEER_NO_LAN", value_parser = BoolishValueParser::new())]
    no_lan: bool,

    /// Folder to share, with its subfolders; without it nothing is shared
    #[arg(long, env = "P2PDI_PEER_SHARE", value_name = "DIR")]
    share: Option<PathBuf>,

    /// Share a folder in --share with some peers only: those whose certificate has a name that matches, with * for any run of characters, or a
    /// label KEY=VALUE; for others it is as if it were not there. May be given several times; needs --tls-cert
    #[arg(long, env = "P2PDI_PEER_SHARE_TO", value_name = "DIR=WHO", value_delimiter = ',')]
    share_to: Vec<ShareTo>,

    /// Folder for this peer's id, cookie and index; each peer needs its own
    #[arg(long, env = "P2PDI_PEER_STATE", value_name = "DIR", value_parser = PathBufValueParser::new().try_map(checked_state))]
    state: Option<PathBuf>,

    /// Label that others can filter by in the registry; may be given several times
    #[arg(long = "label", env = "P2PDI_PEER_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    labels: Vec<(String, String)>,

    /// Upload rate limit per second, such as 10MiB
    #[arg(long, env = "P2PDI_PEER_UPLOAD_LIMIT", value_name = "SIZE", value_parser = parse_size)]
    upload_limit: Option<ByteSize>,

    /// Download rate limit per second, such as 10MiB
    #[arg(long, env = "P2PDI_PEER_DOWNLOAD_LIMIT", value_name = "SIZE", value_parser = parse_size)]
    download_limit: Option<ByteSize>,

    /// Keep documents whose names match present in the share, as they appear and change in the network; may be given several times. As in a
    /// .gitignore: `*` and `?` match within a folder, `**` across folders; without a `/` the pattern is about names in any folder, `dir/` is all
    /// below a folder. Several are separated by commas
    #[arg(long = "mirror", env = "P2PDI_PEER_MIRROR", value_name = "PATTERN", value_delimiter = ',', value_parser = DocumentPattern::parse)]
    mirrors: Vec<DocumentPattern>,

    /// Mirror only the documents of this peer, as it has them
    #[arg(long, env = "P2PDI_PEER_MIRROR_FROM", value_name = "NAME")]
    mirror_from: Option<PeerName>,

    /// Remove mirrored documents that the peer of --mirror-from removed; never files that this peer did not fetch
    #[arg(long, env = "P2PDI_PEER_MIRROR_DELETE", value_parser = BoolishValueParser::new())]
    mirror_delete: bool,

    /// Most bytes for documents that this peer fetched by jobs and mirrors, such as 100GiB; the least recently used go first
    #[arg(long, env = "P2PDI_PEER_QUOTA", value_name = "SIZE", value_parser = parse_size)]
    quota: Option<ByteSize>,

    /// What fetched documents leave free of the share's disk, such as 10GiB or 5%; the least recently used go first
    #[arg(long, env = "P2PDI_PEER_MIN_FREE", value_name = "SIZE|PERCENT", value_parser = parse_min_free)]
    min_free: Option<MinFree>,

    /// Documents sent at the same time, others wait in line; by default as many as suit the upload limit, at most 64
    #[arg(long, env = "P2PDI_PEER_UPLOAD_SLOTS", value_name = "N", value_parser = clap::value_parser!(u16).range(1..))]
    upload_slots: Option<u16>,

    /// Join the network of this token, which `p2pctl token create` printed: the peer makes a key, gets a certificate from the registry, and
    /// renews it for ever. Later starts use what is stored in --state. --registry is that of the token, all of them if it names several
    #[arg(long, env = "P2PDI_PEER_JOIN", value_name = "TOKEN", hide_env_values = true, conflicts_with_all = ["tls_cert", "no_registry"])]
    join: Option<JoinToken>,

    /// This peer's certificate, as PEM, followed by those of intermediate CAs; with it every connection has TLS
    #[arg(long, env = "P2PDI_PEER_TLS_CERT", value_name = "FILE", requires_all = ["tls_key", "tls_ca"])]
    tls_cert: Option<PathBuf>,

    /// The key of that certificate, as PEM, readable by its owner only
    #[arg(long, env = "P2PDI_PEER_TLS_KEY", value_name = "FILE", requires = "tls_cert")]
    tls_key: Option<PathBuf>,

    /// The CAs of the network, as PEM
    #[arg(long, env = "P2PDI_PEER_TLS_CA", value_name = "FILE", requires = "tls_cert")]
    tls_ca: Option<PathBuf>,

    /// Whether callers must show a certificate; `optional`: those without one are served too, as nobody
    #[arg(long, env = "P2PDI_PEER_TLS_CLIENT_AUTH", value_name = "required|optional", default_value_t)]
    tls_client_auth: ClientAuth,

    /// Who may control this peer
    #[arg(long, env = "P2PDI_PEER_CONTROL", value_enum, default_value_t = Control::Loopback)]
    control: Control,

    /// File with a token of 16 characters or more: who sends it as `Authorization: Bearer TOKEN`, or gives it at /login, may use the page and
    /// plain HTTP from other machines, as from this one
    #[arg(long, env = "P2PDI_PEER_HTTP_TOKEN", value_name = "FILE")]
    http_token: Option<PathBuf>,

    /// Host name by which browsers and curl may call it, beside its addresses, localhost, this machine's name and the advertised host; may be
    /// given several times
    #[arg(long = "http-host", env = "P2PDI_PEER_HTTP_HOSTS", value_name = "NAME", value_delimiter = ',')]
    http_hosts: Vec<String>,

    /// One more address, in plain HTTP, that serves /healthz, /readyz, /metrics and gRPC health only: for kubelets and Prometheus
    #[arg(long, env = "P2PDI_PEER_HEALTH_LISTEN", value_name = "HOST:PORT")]
    health_listen: Option<ListenAddress>,

    /// Most simultaneous connections; further ones are closed
    #[arg(long, env = "P2PDI_PEER_MAX_CONNECTIONS", value_name = "N", default_value_t = Limits::default().connections)]
    max_connections: usize,

    /// Most connections of one address (one /64 of IPv6) [default: a quarter of --max-connections]
    #[arg(long, env = "P2PDI_PEER_MAX_CONNECTIONS_PER_ADDRESS", value_name = "N")]
    max_connections_per_address: Option<usize>,

    /// How long calls and fetches under way may continue after Ctrl-C or SIGTERM
    #[arg(long, env = "P2PDI_PEER_GRACE", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,

    /// Log filter, such as info, debug or peerd=debug,p2pdi=info; RUST_LOG does the same
    #[arg(long, env = "P2PDI_PEER_LOG", value_name = "FILTER", default_value = "info")]
    log: String,

    /// Form of a log line
    #[arg(long, env = "P2PDI_PEER_LOG_FORMAT", value_name = "text|json", default_value_t)]
    log_format: LogFormat,

    /// File with the configuration, in TOML, whose keys are the names of these flags; flags and variables beat it. SIGHUP reads it again
    #[arg(long, env = "P2PDI_PEER_CONFIG", value_name = "FILE")]
    config: Option<PathBuf>,

    /// Print the effective configuration as such a file, with where each value comes from, and exit
    #[arg(long, env = "P2PDI_PEER_PRINT_CONFIG", value_parser = BoolishValueParser::new())]
    print_config: bool,
}

impl Flags {
    /// What to log, and how.
    pub(crate) fn log(&self) -> LogOptions<'_> {
        LogOptions { filter: &self.log, format: self.log_format }
    }

    /// The address to bind.
    pub(crate) fn listen(&self) -> ListenAddress {
        let listen = self.listen.clone();
        match self.port {
            Some(port) => listen.with_port(port),
            None => listen,
        }
    }

    /// The further address for health and metrics.
    pub(crate) fn health_listen(&self) -> Option<&ListenAddress> {
        self.health_listen.as_ref()
    }

    /// The limits that may change while the peer runs.
    ///
    /// # Errors
    /// When one is 0.
    pub(crate) fn limits(&self) -> Result<TransferLimits, InvalidField> {
        if self.upload_limit.is_some_and(|limit| limit.as_u64() == 0) {
            return Err(InvalidField::new(
                "upload-limit",
                "is 0, which would send nothing; omit --share instead, or give a limit such as 1MiB",
            ));
        }
        if self.download_limit.is_some_and(|limit| limit.as_u64() == 0) {
            return Err(InvalidField::new("download-limit", "is 0, which would receive nothing; give a limit such as 1MiB"));
        }
        Ok(TransferLimits {
            upload: self.upload_limit.map(|limit| limit.as_u64()),
            download: self.download_limit.map(|limit| limit.as_u64()),
            upload_slots: self.upload_slots.map(usize::from),
            quota: self.quota.map(|quota| quota.as_u64()),
            min_free: self.min_free,
        })
    }

    /// Takes over what may change while the peer runs ([`LIVE`]), and reads the files of its certificates again.
    ///
    /// # Errors
    /// What cannot be used; then nothing changes.
    pub(crate) fn apply(&self, peer: &NodeHandle, tls: Option<&Tls>, filter: &LogFilter) -> Result<(), String> {
        let limits = self.limits().map_err(|error| error.to_string())?;
        LogFilter::check(&self.log).map_err(|error| error.to_string())?;
        tls.map_or(Ok(false), Tls::reload).map_err(|error| error.to_string())?;
        filter.set(&self.log).map_err(|error| error.to_string())?;
        peer.set_limits(limits);
        Ok(())
    }

    /// The settings of the peer, with its certificates.
    ///
    /// # Errors
    /// When there is no default for a required value, or a value is not valid.
    pub(crate) fn into_config(self, tls: Option<Tls>) -> Result<NodeConfig, InvalidField> {
        let TransferLimits { upload, download, upload_slots, quota, min_free } = self.limits()?;
        let named = tls.as_ref().and_then(|tls| tls.identity()?.name().cloned());
        let name = match self.name.or(named) {
            Some(name) => name,
            None => {
                let host = gethostname::gethostname();
                PeerName::from_host_name(&host.to_string_lossy())
                    .ok_or_else(|| InvalidField::new("name", "the host's name cannot be a peer's name; give one with --name"))?
            }
        };
        let labels = self.labels.into_iter().collect();
        validate_labels(&labels)?;
        let state = self.state.or_else(|| default_state(&name)).ok_or_else(no_state)?;
        let mirrors = mirrors(self.mirrors, self.mirror_from.as_ref(), self.mirror_delete)?;
        check_not_shared(self.share.as_deref(), "tls-key", self.tls_key.as_deref())?;
        check_not_shared(self.share.as_deref(), "http-token", self.http_token.as_deref())?;
        if self.share.is_none() && !mirrors.is_empty() {
            return Err(InvalidField::new("mirror", "needs a folder to fetch into; give it with --share"));
        }
        let registries = if self.no_registry { Vec::new() } else { checked_registries(&self.registries, tls.is_some())? };
        let limits = Limits {
            connections: self.max_connections.max(1),
            connections_per_address: self.max_connections_per_address,
            grace: self.grace,
            ..Limits::default()
        };
        let control = match self.control {
            Control::Loopback => ControlFrom::Loopback,
            Control::Any => ControlFrom::Any,
        };
        Ok(NodeConfig {
            network: self.network,
            advertise: self.advertise,
            dial_from: self.dial_from,
            registries,
            bootnodes: self.bootnodes,
            lan: cfg!(feature = "mdns") && !self.no_lan,
            labels,
            share: self.share,
            share_to: self.share_to,
            upload_limit: upload,
            download_limit: download,
            upload_slots,
            quota,
            min_free,
            mirrors,
            tls,
            control,
            http_hosts: self.http_hosts,
            http_token: self.http_token.as_deref().map(HttpToken::read).transpose()?,
            limits,
            ..NodeConfig::new(name, state)
        })
    }
}

/// The state folder of a peer for which none is given.
fn default_state(name: &PeerName) -> Option<PathBuf> {
    state_folder().map(|state| state.join("peerd").join(name.key()))
}

fn no_state() -> InvalidField {
    InvalidField::new("state", "neither XDG_STATE_HOME nor HOME is set; give a folder with --state")
}

/// [`ControlFrom`] as a flag.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Control {
    /// Callers on the same machine
    Loopback,
    /// Every caller that can reach the port
    Any,
}

/// The mirrors, of which all have the same options.
fn mirrors(patterns: Vec<DocumentPattern>, from: Option<&PeerName>, delete: bool) -> Result<Vec<Mirror>, InvalidField> {
    if patterns.is_empty() && (from.is_some() || delete) {
        return Err(InvalidField::new("mirror", "is missing; give the pattern of what to mirror, such as --mirror '**'"));
    }
    if delete && from.is_none() {
        return Err(InvalidField::new("mirror-delete", "needs --mirror-from NAME: whose removals are followed"));
    }
    Ok(patterns.into_iter().map(|pattern| Mirror { pattern, from: from.cloned(), delete }).collect())
}

/// Reads how much of a disk stays free: a size, or a percentage.
fn parse_min_free(text: &str) -> Result<MinFree, String> {
    let Some(percent) = text.strip_suffix('%') else { return parse_size(text).map(|size| MinFree::Bytes(size.as_u64())) };
    let percent = percent.trim().parse().ok().filter(|percent| *percent <= 100);
    percent.map(MinFree::Percent).ok_or_else(|| "write a whole number from 0% to 100%, or a size such as 10GiB".to_owned())
}

/// Reads a size. The parser's own errors do not name the valid form.
fn parse_size(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|_| "write a size such as 500KB, 10MiB or 1.5GiB, or a number of bytes".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory as _;

    #[test]
    fn the_command_line_is_consistent() {
        Flags::command().debug_assert();
    }

    #[test]
    fn what_stays_free_is_a_size_or_a_percentage() {
        assert_eq!(parse_min_free("10KiB"), Ok(MinFree::Bytes(10_240)));
        assert_eq!(parse_min_free("5%"), Ok(MinFree::Percent(5)));
        for text in ["101%", "-1%", "x%", "much"] {
            assert!(parse_min_free(text).unwrap_err().starts_with("write "), "{text}");
        }
    }

    #[test]
    fn options_of_mirrors_need_what_they_are_about() {
        let config = |arguments: &[&str]| {
            let flags = Flags::try_parse_from(["peerd", "--name", "a", "--state", "s"].iter().chain(arguments)).unwrap();
            flags.into_config(None).map(|config| config.mirrors)
        };
        let mirrors =
            config(&["--share", "d", "--mirror", "a/**", "--mirror", "*.txt", "--mirror-from", "p", "--mirror-delete"]).unwrap();
        assert!(mirrors.len() == 2 && mirrors.iter().all(|mirror| mirror.delete && mirror.from.is_some()));
        for (arguments, field) in [
            (&["--share", "d", "--mirror-from", "p"] as &[&str], "mirror"),
            (&["--mirror", "a"], "mirror"),
            (&["--share", "d", "--mirror", "a", "--mirror-delete"], "mirror-delete"),
        ] {
            assert_eq!(config(arguments).unwrap_err().field, field);
        }
        assert!(Flags::try_parse_from(["peerd", "--mirror", "a//b"]).is_err());
    }
}
