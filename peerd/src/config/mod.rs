//! The settings of a peer, however it is started.

mod advertise;
mod checks;
mod keeping;
mod route;
mod values;

pub use advertise::reachable_endpoint;
pub use checks::check_not_shared;
pub use keeping::{MinFree, Mirror, TransferLimits};
pub use route::{RouteLookup, local_address_towards};
pub use values::{PORT_DEFAULT, REGISTRY_DEFAULT, RegistryUrl, checked_registries, checked_state, parse_label};

use crate::{discovery::Bootnode, documents::restrictions::ShareTo};
use p2pdi::{
    endpoint::Endpoint,
    enrol::Enrolment,
    name::PeerName,
    network::NetworkName,
    server::{HttpToken, Limits},
    tls::Tls,
};
use std::{collections::BTreeMap, net::IpAddr, path::PathBuf};

/// The settings of a peer.
#[derive(Debug, Clone)]
pub struct NodeConfig {
    /// Its name, unique in its registry.
    pub name: PeerName,
    /// Its network: it talks to the registries and peers of that one only.
    pub network: NetworkName,
    /// The address that other peers dial, where it is not the one listened on.
    pub advertise: Option<Endpoint>,
    /// The local address to dial other peers from. `None`: the operating system chooses.
    pub dial_from: Option<IpAddr>,
    /// The registry to register with, or its replicas, of which the peer uses one at a time. Empty: it runs without one.
    pub registries: Vec<Endpoint>,
    /// Peers to link to at the start, and whenever all links are lost.
    pub bootnodes: Vec<Bootnode>,
    /// Whether the peer announces itself on the LAN and links to the peers it finds there. Needs the feature `mdns`.
    pub lan: bool,
    /// Labels that others can filter by in the registry.
    pub labels: BTreeMap<String, String>,
    /// The folder to share. `None`: nothing is shared.
    pub share: Option<PathBuf>,
    /// Folders in it that are for some peers only. Needs certificates: without them the name of a caller is what it says.
    pub share_to: Vec<ShareTo>,
    /// The folder for the peer's id, its cookie and its index.
    pub state: PathBuf,
    /// That folder is of no use to a later start, so that nothing in it has to survive a crash of the machine.
    pub temporary_state: bool,
    /// Upload rate limit in bytes per second. `None`: no limit.
    pub upload_limit: Option<u64>,
    /// Download rate limit in bytes per second. `None`: no limit.
    pub download_limit: Option<u64>,
    /// Documents sent at the same time; others wait in line. `None`: as many as suit the upload limit.
    pub upload_slots: Option<usize>,
    /// Most bytes that documents may take which this peer fetched; the least recently used go first. `None`: no limit.
    pub quota: Option<u64>,
    /// How much of the share's disk stays free of fetched documents. `None`: no limit.
    pub min_free: Option<MinFree>,
    /// Documents to keep present.
    pub mirrors: Vec<Mirror>,
    /// The peer's certificate and the CAs of its network, for all connections in both directions. `None`: they have no TLS.
    pub tls: Option<Tls>,
    /// How the peer got the certificate of `tls` from its registry, which it renews for ever. `None`: somebody else cares for it.
    pub enrolment: Option<Enrolment>,
    /// Who may call the `Control` service.
    pub control: ControlFrom,
    /// Host names by which browsers may call it, beside its addresses, `localhost`, the machine's name and the host it advertises.
    pub http_hosts: Vec<String>,
    /// Who has it may use the page and plain HTTP from other machines, as from this one. `None`: nobody may.
    pub http_token: Option<HttpToken>,
    /// Limits of the server.
    pub limits: Limits,
    /// Finds this machine's address on the way to the registry and the bootnodes, for a peer that listens on a wildcard address.
    pub routes: RouteLookup,
}

impl NodeConfig {
    /// The settings of a peer that shares nothing, knows no other peer, and is controlled from its own machine.
    pub fn new(name: PeerName, state: impl Into<PathBuf>) -> Self {
        Self {
            name,
            network: NetworkName::default(),
            advertise: None,
            dial_from: None,
            registries: Vec::new(),
            bootnodes: Vec::new(),
            lan: false,
            labels: BTreeMap::new(),
            share: None,
            share_to: Vec::new(),
            state: state.into(),
            temporary_state: false,
            upload_limit: None,
            download_limit: None,
            upload_slots: None,
            quota: None,
            min_free: None,
            mirrors: Vec::new(),
            tls: None,
            enrolment: None,
            control: ControlFrom::Loopback,
            http_hosts: Vec::new(),
            http_token: None,
            limits: Limits::default(),
            routes: RouteLookup::default(),
        }
    }
}

/// Who may control a peer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ControlFrom {
    /// Callers on the same machine.
    Loopback,
    /// Every caller that can reach the port.
    Any,
}
