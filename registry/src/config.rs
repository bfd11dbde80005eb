//! Settings of a registry as a library. The program's flags are in `flags.rs`.

use crate::{ca::CaSettings, store::EtcdAddress};
use p2pdi::{
    endpoint::Endpoint,
    network::NetworkName,
    platform::state_folder,
    server::{CallLimits, HttpToken, Limits},
    tls::Tls,
};
use std::{convert::Infallible, fmt, path::PathBuf, str::FromStr, sync::LazyLock, time::Duration};

/// Shortest ttl. Peers send three KeepAlives per ttl, so a shorter one means more than three calls per second and peer, and a lease
/// ends up to an eighth of a second late.
pub const TTL_MIN: Duration = Duration::from_secs(1);
/// Longest ttl. A peer that died stays listed for that long.
pub const TTL_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Longest [`Config::name_hold`]: a name that was given up should not be lost for days.
pub const NAME_HOLD_MAX: Duration = Duration::from_secs(24 * 60 * 60);
/// Most peers that [`Config::max_peers`] allows.
pub const PEERS_MAX: u32 = crate::table::PEERS_MAX;

/// What a registry needs to run. The default is what the program does without flags.
#[derive(Debug, Clone)]
pub struct Config {
    /// The network whose peers it keeps; callers of others are refused.
    pub network: NetworkName,
    /// Where records are kept across restarts.
    pub state: State,
    /// Lease length: how long a peer stays active after its last call, [`TTL_MIN`] to [`TTL_MAX`]. It grows with the number of peers.
    pub ttl: Duration,
    /// Most records kept, at most [`PEERS_MAX`]. Inactive ones are evicted for new ones.
    pub max_peers: u32,
    /// Leases that callers from one address (one /64 of IPv6) may hold at once. Loopback is exempt.
    pub max_peers_per_address: u32,
    /// How long a name stays reserved for its cookie after a Leave and after the end of its lease, at most [`NAME_HOLD_MAX`].
    pub name_hold: Duration,
    /// Host names by which browsers may call it, beside its addresses, `localhost` and the machine's name.
    pub http_hosts: Vec<String>,
    /// Who has it may see the page from other machines; `None`: only this machine, and callers with a certificate of the network.
    pub http_token: Option<HttpToken>,
    /// Connections at once. One more is closed right after it is accepted.
    pub max_connections: usize,
    /// Connections of one address (one /64 of IPv6); `None`: a quarter of all.
    pub max_connections_per_address: Option<usize>,
    /// Calls under way and calls per second, for each caller and in all.
    pub calls: CallLimits,
    /// Callers may register any endpoint. Otherwise only one with the address they call from, or a name that has it; callers on this machine
    /// may register any.
    pub allow_foreign_endpoints: bool,
    /// `HOST:PORT` at which other replicas reach this one; `None`: where it listens. Without [`State::Etcd`] nobody asks.
    pub replica_address: Option<Endpoint>,
    /// How long calls may continue after the stop.
    pub grace: Duration,
    /// The registry's certificate and the CAs of its network. `None`: connections have no TLS.
    pub tls: Option<Tls>,
    /// The certificate authority that the registry is, and serves TLS with. `None`: it is none.
    pub authority: Option<AuthorityConfig>,
}

/// The certificate authority of a registry.
#[derive(Debug, Clone)]
pub struct AuthorityConfig {
    /// Where its keys, tokens and certificates are kept.
    pub folder: PathBuf,
    /// How it works. Its network is that of the registry.
    pub settings: CaSettings,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            network: NetworkName::default(),
            state: State::default(),
            // Kubernetes' default for node leases is 40 s; three KeepAlives of 10 s fit, so two may be lost.
            ttl: Duration::from_secs(30),
            // Twice the million peers that the registry is measured with; about 1 GB of memory.
            max_peers: 2_000_000,
            // A site behind one NAT address fits; made-up peers of one address are no more than a network of some hundred peers bears.
            max_peers_per_address: 256,
            // A peer that restarts, or a machine that boots, is back by then; a name given up is free soon.
            name_hold: Duration::from_secs(10 * 60),
            http_hosts: Vec::new(),
            http_token: None,
            max_connections: Limits::default().connections,
            max_connections_per_address: None,
            calls: CallLimits::default(),
            allow_foreign_endpoints: false,
            replica_address: None,
            grace: Limits::default().grace,
            tls: None,
            authority: None,
        }
    }
}

/// Where records are kept across restarts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum State {
    /// Nowhere.
    Memory,
    /// In this folder.
    Folder(PathBuf),
    /// In etcd, which any number of registries share: each is a replica. Needs the feature `etcd`.
    Etcd(EtcdAddress),
}

impl State {
    /// `p2pdi/registry` in the user's state folder (XDG Base Directory specification). `None` when neither `XDG_STATE_HOME` nor `HOME`
    /// is an absolute path.
    pub fn of_user() -> Option<&'static str> {
        static FOLDER: LazyLock<Option<String>> =
            LazyLock::new(|| state_folder().map(|folder| folder.join("registry").display().to_string()));
        FOLDER.as_deref()
    }
}

impl Default for State {
    /// The user's state folder, or memory for a user without one (the program requires `--state` then).
    fn default() -> Self {
        Self::of_user().map_or(Self::Memory, |folder| Self::Folder(folder.into()))
    }
}

impl FromStr for State {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Infallible> {
        Ok(if text == "memory" { Self::Memory } else { Self::Folder(text.into()) })
    }
}

impl fmt::Display for State {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory"),
            Self::Folder(folder) => folder.display().fmt(f),
            Self::Etcd(address) => write!(f, "etcd at {} below {}", address.endpoints.join(","), address.prefix),
        }
    }
}
