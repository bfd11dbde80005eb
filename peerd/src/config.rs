//! The command line of `peerd`, and what a node needs to know however it is started.

use crate::{
    discovery::{Bootnode, address_on_the_lan},
    rpc::ControlFrom,
};
use bytesize::ByteSize;
use clap::{Parser, builder::BoolishValueParser};
use p2pdi::{endpoint::Endpoint, field::InvalidField, name::PeerName, selector::validate_labels, server::Limits};
use std::{
    collections::BTreeMap,
    env,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

/// Port of a peer that was not told another.
pub const PORT_DEFAULT: u16 = 7801;
/// Address of a registry that was not told another.
pub const REGISTRY_DEFAULT: &str = "http://127.0.0.1:7800";

/// What a node needs to know.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Unique in its registry.
    pub name: PeerName,
    /// Where others dial it, when that is not where it listens.
    pub advertise: Option<Endpoint>,
    /// The local address other peers are dialled from; `None`: the one the system chooses.
    pub dial_from: Option<IpAddr>,
    /// The registry; `None`: runs without.
    pub registry: Option<Endpoint>,
    /// Peers to link to at the start, and whenever all others are lost.
    pub bootnodes: Vec<Bootnode>,
    /// Announces itself on the LAN and turns to the peers that do.
    pub lan: bool,
    /// Labels others can filter by.
    pub labels: BTreeMap<String, String>,
    /// The folder shared; `None`: nothing.
    pub share: Option<PathBuf>,
    /// Where the id, the cookie and the index are kept.
    pub state: PathBuf,
    /// Bytes sent per second at most.
    pub upload_limit: Option<u64>,
    /// Who may control it.
    pub control: ControlFrom,
    /// Limits of its server.
    pub limits: Limits,
}

// No line is longer than 80 characters: clap would break it, and a pasted command with it.
const EXAMPLES: &str = "\
Examples:
  Share a folder of RFCs, registered with a registry on this machine:
    peerd --name fff-c --share ./rfc --state ./state/fff-c

  In a container, where others reach it by another address than it listens on:
    peerd --listen 0.0.0.0:7801 --advertise peer-0.peers:7801 \\
      --registry http://registry:7800 --share /data --state /state

  Three peers without a registry, the third of which knows the other two:
    peerd --no-registry --name A --port 8001
    peerd --no-registry --name B --port 8002
    peerd --no-registry --name C --port 8003 --bootnodes A:8001,B:8002

  On each machine of a LAN, with nothing to set up; they find each other:
    peerd --no-registry --listen 0.0.0.0:7801

See it work:
  curl localhost:7801/
  curl 'localhost:8003/whisper?name=A&message=hello'
  grpcurl -plaintext -d '{\"number\": 48}' localhost:7801 p2pdi.v1.Peer/RFCQuery";

/// A peer of P2P-DI: shares a folder of documents, and passes messages.
#[derive(Debug, Parser)]
#[command(name = "peerd", version, after_help = EXAMPLES)]
pub struct Args {
    /// Name of this peer, unique in its registry; by default the host's name
    #[arg(long, env = "P2PDI_NAME")]
    name: Option<PeerName>,

    /// Address to listen on; port 0 picks a free one
    #[arg(long, env = "P2PDI_LISTEN", value_name = "HOST:PORT", default_value_t = SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT)))]
    listen: SocketAddr,

    /// Port to listen on, in place of the one in --listen
    #[arg(long, env = "P2PDI_PORT")]
    port: Option<u16>,

    /// Address others dial, when it is not the one listened on
    #[arg(long, env = "P2PDI_ADVERTISE", value_name = "HOST:PORT")]
    advertise: Option<Endpoint>,

    /// Local address to dial other peers from, on a host with several
    #[arg(long, env = "P2PDI_DIAL_FROM", value_name = "IP")]
    dial_from: Option<IpAddr>,

    /// The registry to register with
    #[arg(long, env = "P2PDI_REGISTRY", value_name = "URL", default_value = REGISTRY_DEFAULT, value_parser = parse_registry)]
    registry: Endpoint,

    /// Run without a registry, whatever --registry says
    #[arg(long, env = "P2PDI_NO_REGISTRY", value_parser = BoolishValueParser::new())]
    no_registry: bool,

    /// Peers to link to: NAME:PORT on this host, NAME@HOST:PORT, or HOST:PORT; tried until they answer
    #[arg(long, env = "P2PDI_BOOTNODES", value_name = "PEER", value_delimiter = ',')]
    bootnodes: Vec<Bootnode>,

    /// Neither announce this peer on the LAN nor look for others there
    #[arg(long, env = "P2PDI_NO_LAN", value_parser = BoolishValueParser::new())]
    no_lan: bool,

    /// Folder to share, with all below it; nothing is shared without
    #[arg(long, env = "P2PDI_SHARE", value_name = "DIR")]
    share: Option<PathBuf>,

    /// Folder for this peer's id, cookie and index; one per peer
    #[arg(long, env = "P2PDI_STATE", value_name = "DIR")]
    state: Option<PathBuf>,

    /// Label others can filter by; may be given several times
    #[arg(long = "label", env = "P2PDI_LABELS", value_name = "KEY=VALUE", value_delimiter = ',', value_parser = parse_label)]
    labels: Vec<(String, String)>,

    /// Bytes sent per second at most, such as 10MiB
    #[arg(long, env = "P2PDI_UPLOAD_LIMIT", value_name = "SIZE", value_parser = parse_size)]
    upload_limit: Option<ByteSize>,

    /// Who may control this peer
    #[arg(long, env = "P2PDI_CONTROL", value_enum, default_value_t = ControlFrom::Loopback)]
    control: ControlFrom,

    /// Connections at once; one more is closed
    #[arg(long, env = "P2PDI_MAX_CONNECTIONS", value_name = "N", default_value_t = Limits::default().connections)]
    max_connections: usize,

    /// How long calls may go on after Ctrl-C or SIGTERM
    #[arg(long, env = "P2PDI_GRACE", value_name = "DURATION", default_value = "10s", value_parser = humantime::parse_duration)]
    grace: Duration,

    /// What to log, such as info or debug or peerd=debug,p2pdi=info; RUST_LOG does the same
    #[arg(long, env = "RUST_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

impl Args {
    /// The log filter.
    pub fn log(&self) -> &str {
        &self.log
    }

    /// The address to bind.
    pub fn listen(&self) -> SocketAddr {
        let mut listen = self.listen;
        if let Some(port) = self.port {
            listen.set_port(port);
        }
        listen
    }

    /// What the node needs to know.
    ///
    /// # Errors
    /// When a value that depends on another cannot be right.
    pub fn into_config(self) -> Result<NodeConfig, InvalidField> {
        let name = match self.name {
            Some(name) => name,
            None => {
                let host = gethostname::gethostname();
                PeerName::from_host_name(&host.to_string_lossy())
                    .ok_or_else(|| InvalidField::new("name", "the host's name cannot be a peer's name; give one with --name"))?
            }
        };
        let labels: BTreeMap<_, _> = self.labels.into_iter().collect();
        validate_labels(&labels)?;
        let state = self.state.or_else(|| state_folder().map(|state| state.join("peerd").join(name.key())));
        let state = state.ok_or_else(|| {
            InvalidField::new("state", "neither XDG_STATE_HOME nor HOME says where; give a folder with --state")
        })?;
        if self.upload_limit.is_some_and(|limit| limit.as_u64() == 0) {
            return Err(InvalidField::new(
                "upload-limit",
                "is 0, which would serve nobody; share nothing instead, or give a limit such as 1MiB",
            ));
        }
        let limits = Limits { connections: self.max_connections.max(1), grace: self.grace, ..Limits::default() };
        Ok(NodeConfig {
            name,
            advertise: self.advertise,
            dial_from: self.dial_from,
            registry: (!self.no_registry).then_some(self.registry),
            bootnodes: self.bootnodes,
            lan: !self.no_lan,
            labels,
            share: self.share,
            state,
            upload_limit: self.upload_limit.map(|limit| limit.as_u64()),
            control: self.control,
            limits,
        })
    }
}

impl NodeConfig {
    /// Where others dial a server that listens on `bound`.
    ///
    /// # Errors
    /// When it is a wildcard and nothing says which of this machine's addresses others reach.
    pub fn endpoint(&self, bound: SocketAddr) -> Result<Endpoint, InvalidField> {
        if let Some(endpoint) = &self.advertise {
            return Ok(endpoint.clone());
        }
        let bootnodes = self.bootnodes.iter().flat_map(|bootnode| bootnode.endpoints());
        let others: Vec<_> = self.registry.iter().chain(bootnodes).collect();
        if self.lan && bound.ip().is_unspecified() {
            // A registry on this machine says nothing of how others on the LAN reach it.
            let towards = others.iter().filter_map(|endpoint| local_address_towards(endpoint)).find(|ip| !ip.is_loopback());
            if let Some(ip) = towards.or_else(|| address_on_the_lan(bound.is_ipv6())) {
                return Ok(SocketAddr::new(ip, bound.port()).into());
            }
        }
        reachable_endpoint(bound, others)
    }
}

/// The user's folder for state of P2P-DI, by the XDG Base Directory Specification.
pub fn state_folder() -> Option<PathBuf> {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let base =
        set("XDG_STATE_HOME").filter(|path| path.is_absolute()).or_else(|| set("HOME").map(|home| home.join(".local/state")))?;
    Some(base.join("p2pdi"))
}

/// Reads `http://HOST:PORT`, or `HOST:PORT` alone.
///
/// # Errors
/// When it is neither.
pub fn parse_registry(text: &str) -> Result<Endpoint, InvalidField> {
    if text.starts_with("https://") {
        return Err(InvalidField::new("registry", "TLS is not spoken yet; write http://HOST:PORT"));
    }
    let rest = text.strip_prefix("http://").unwrap_or(text);
    rest.strip_suffix('/').unwrap_or(rest).parse().map_err(|error: InvalidField| error.in_field("registry"))
}

/// Reads a size, in words of ours where it is none.
fn parse_size(text: &str) -> Result<ByteSize, String> {
    text.parse().map_err(|_| "write a size such as 500KB, 10MiB or 1.5GiB, or a number of bytes".to_owned())
}

/// Reads `KEY=VALUE`.
///
/// # Errors
/// When there is no `=`.
pub fn parse_label(text: &str) -> Result<(String, String), InvalidField> {
    let (key, value) = text.split_once('=').ok_or_else(|| InvalidField::new("label", "write KEY=VALUE"))?;
    Ok((key.to_owned(), value.to_owned()))
}

/// The address others dial for a server bound to `bound`: itself, or for a wildcard the address this machine has towards `others`,
/// the first of which there is a route to.
///
/// # Errors
/// When none can be found.
pub fn reachable_endpoint<'a>(
    bound: SocketAddr,
    others: impl IntoIterator<Item = &'a Endpoint>,
) -> Result<Endpoint, InvalidField> {
    if !bound.ip().is_unspecified() {
        return Ok(bound.into());
    }
    let ip = others.into_iter().find_map(local_address_towards).ok_or_else(|| {
        InvalidField::new(
            "advertise",
            format!("{bound} is a wildcard address, which nobody can dial; give the one others reach with --advertise HOST:PORT"),
        )
    })?;
    Ok(SocketAddr::new(ip, bound.port()).into())
}

/// The local address of the route to `endpoint`. Sends nothing: connecting a UDP socket only asks the routing table.
pub fn local_address_towards(endpoint: &Endpoint) -> Option<IpAddr> {
    let any = if endpoint.host().contains(':') { "[::]:0" } else { "0.0.0.0:0" };
    let socket = std::net::UdpSocket::bind(any).ok()?;
    socket.connect((endpoint.host(), endpoint.port())).ok()?;
    socket.local_addr().ok().map(|address| address.ip()).filter(|ip| !ip.is_unspecified())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries_are_urls_or_addresses() {
        assert_eq!(parse_registry("http://r:7800/").unwrap().as_str(), "r:7800");
        assert_eq!(parse_registry("r:7800").unwrap().as_str(), "r:7800");
        for text in ["https://r:1", "http://", "r", "ftp://r:1", "http://r:0"] {
            assert_eq!(parse_registry(text).unwrap_err().field, "registry", "{text}");
        }
    }

    #[test]
    fn a_wildcard_is_never_advertised() {
        let any = SocketAddr::from((Ipv4Addr::UNSPECIFIED, 80));
        assert!(reachable_endpoint(any, []).is_err());
        let registry = "127.0.0.1:7800".parse().unwrap();
        assert_eq!(reachable_endpoint(any, [&registry]).unwrap().as_str(), "127.0.0.1:80");
    }

    #[test]
    fn the_command_line_is_consistent() {
        use clap::CommandFactory as _;
        Args::command().debug_assert();
    }
}
