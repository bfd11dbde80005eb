//! Building a peer.

use super::{error::PeerError, lifecycle::Peer};
use crate::{
    config::{ControlFrom, MinFree, Mirror, NodeConfig, RegistryUrl, checked_registries},
    identity,
    node::{Node, NodeError},
};
use p2pdi::{
    enrol::Joining,
    field::InvalidField,
    name::PeerName,
    network::NETWORK_DEFAULT,
    platform::state_folder,
    selector::validate_labels,
    tls::{ClientAuth, Tls},
    token::JoinToken,
};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};
use tokio::{net::TcpListener, task::spawn_blocking};

/// Where a peer keeps its id, its cookie and its index.
#[derive(Debug, Clone)]
enum State {
    /// In a folder that is deleted with the peer.
    Temporary,
    /// In the user's state folder, by the peer's name.
    User,
    Folder(PathBuf),
}

/// The settings of a [`Peer`] to be built. [`PeerBuilder::build`] checks them.
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build()"]
pub struct PeerBuilder {
    name: String,
    listen: SocketAddr,
    advertise: Option<String>,
    registries: Vec<String>,
    bootnodes: Vec<String>,
    lan: bool,
    network: String,
    labels: BTreeMap<String, String>,
    share: Option<PathBuf>,
    state: State,
    mirrors: Vec<Mirror>,
    quota: Option<u64>,
    min_free: Option<MinFree>,
    upload_limit: Option<u64>,
    download_limit: Option<u64>,
    tls: Option<Tls>,
    token: Option<String>,
    control: ControlFrom,
    autostart: bool,
}

impl Peer {
    /// The settings of a peer called `name`: letters, digits, hyphens and dots. By default it listens on a free port that only this
    /// machine can reach, knows no other peer, shares nothing, and keeps its id in a folder that is deleted with it.
    pub fn builder(name: impl Into<String>) -> PeerBuilder {
        PeerBuilder::new(name.into())
    }
}

impl PeerBuilder {
    fn new(name: String) -> Self {
        Self {
            name,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            advertise: None,
            registries: Vec::new(),
            bootnodes: Vec::new(),
            lan: false,
            labels: BTreeMap::new(),
            network: NETWORK_DEFAULT.to_owned(),
            share: None,
            state: State::Temporary,
            mirrors: Vec::new(),
            quota: None,
            min_free: None,
            upload_limit: None,
            download_limit: None,
            tls: None,
            token: None,
            control: ControlFrom::Loopback,
            autostart: true,
        }
    }

    /// The address to listen on; port 0 picks a free one. For other machines use an address of this machine's network, or `0.0.0.0`
    /// together with [`PeerBuilder::advertise`] or `lan`. Default: a free port on loopback.
    pub fn listen(mut self, address: impl Into<SocketAddr>) -> Self {
        self.listen = address.into();
        self
    }

    /// The port to listen on.
    pub fn port(mut self, port: u16) -> Self {
        self.listen.set_port(port);
        self
    }

    /// The `HOST:PORT` that others dial, if it is not the address listened on.
    pub fn advertise(mut self, endpoint: impl ToString) -> Self {
        self.advertise = Some(endpoint.to_string());
        self
    }

    /// The registry to register with, `http://HOST:PORT` or `https://HOST:PORT`. The peer finds others through it, and leaves it when it stops.
    /// May be called several times, for replicas of one registry: the peer uses one at a time, and another one when it fails.
    pub fn registry(mut self, url: impl ToString) -> Self {
        self.registries.push(url.to_string());
        self
    }

    /// Its network: it talks to the registries and peers of that one only. Default: `default`.
    pub fn network(mut self, name: impl ToString) -> Self {
        self.network = name.to_string();
        self
    }

    /// A peer to link to at the start and whenever all links are lost, retried until it answers: `NAME:PORT` on this machine,
    /// `NAME@HOST:PORT` or `HOST:PORT`. May be called several times. To learn whether the link was made, use [`PeerHandle::join`].
    ///
    /// [`PeerHandle::join`]: super::PeerHandle::join
    pub fn bootnode(mut self, peer: impl ToString) -> Self {
        self.bootnodes.push(peer.to_string());
        self
    }

    /// Whether it finds peers on the LAN by multicast DNS and lets them find it. Default: no, so that tests find no other peers.
    #[cfg(feature = "mdns")]
    pub fn lan(mut self, lan: bool) -> Self {
        self.lan = lan;
        self
    }

    /// A label that others can filter by in the registry. May be called several times.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// The folder to share, with its subfolders.
    pub fn share(mut self, folder: impl Into<PathBuf>) -> Self {
        self.share = Some(folder.into());
        self
    }

    /// Documents to keep present in the shared folder, as they appear and change in the network. May be called several times.
    pub fn mirror(mut self, mirror: Mirror) -> Self {
        self.mirrors.push(mirror);
        self
    }

    /// Most bytes for documents that it fetched; the least recently used go first, and never those that were put there otherwise. Default:
    /// no limit.
    pub fn quota(mut self, bytes: u64) -> Self {
        self.quota = Some(bytes);
        self
    }

    /// How much of the shared folder's disk stays free of documents that it fetched. Default: no limit.
    pub fn min_free(mut self, min_free: MinFree) -> Self {
        self.min_free = Some(min_free);
        self
    }

    /// Most bytes a second that it sends of documents. Default: no limit.
    pub fn upload_limit(mut self, bytes_per_second: u64) -> Self {
        self.upload_limit = Some(bytes_per_second);
        self
    }

    /// Most bytes a second that it fetches of documents. Default: no limit.
    pub fn download_limit(mut self, bytes_per_second: u64) -> Self {
        self.download_limit = Some(bytes_per_second);
        self
    }

    /// The folder for its id, its cookie and its index; each peer needs its own. Without it, the peer gets a new id each time.
    pub fn state(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state = State::Folder(folder.into());
        self
    }

    /// Keeps them where the program `peerd` does: in the user's state folder (`~/.local/state/p2pdi/peerd`), by the peer's name.
    pub fn state_of_user(mut self) -> Self {
        self.state = State::User;
        self
    }

    /// Its certificate, which must be for its name, and the CAs of its network: all connections have TLS then, in both directions. Default:
    /// none has.
    pub fn tls(mut self, tls: Tls) -> Self {
        self.tls = Some(tls);
        self
    }

    /// Joins the network of a token, which `p2pctl token create` printed: the peer gets a certificate for its name from the registry of the
    /// token, registers there, and renews the certificate for as long as it runs. With [`PeerBuilder::state`] later starts use what is stored.
    pub fn join_with(mut self, token: impl Into<String>) -> Self {
        self.token = Some(token.into());
        self
    }

    /// Who may call its `Control` service, as `p2pctl` does. Default: programs on this machine.
    pub fn control(mut self, control: ControlFrom) -> Self {
        self.control = control;
        self
    }

    /// Whether [`PeerBuilder::build`] also starts it, which is the default. Otherwise call [`Peer::start`], for example after setting
    /// handlers.
    pub fn autostart(mut self, autostart: bool) -> Self {
        self.autostart = autostart;
        self
    }

    /// Binds the port, opens the folders, and starts the peer unless [`PeerBuilder::autostart`] is off.
    ///
    /// # Errors
    /// When a setting is not valid, the port is taken, or a folder cannot be used.
    pub async fn build(self) -> Result<Peer, PeerError> {
        let name: PeerName = self.name.parse()?;
        validate_labels(&self.labels)?;
        if self.share.is_none() && !self.mirrors.is_empty() {
            return Err(InvalidField::new("mirror", "needs a folder to fetch into; give it with share()").into());
        }
        let (state, folder) = match self.state {
            State::Folder(folder) => (folder, None),
            State::User => {
                let unset = || InvalidField::new("state", "neither XDG_STATE_HOME nor HOME is set; give a folder");
                (state_folder().ok_or_else(unset)?.join("peerd").join(name.key()), None)
            }
            State::Temporary => {
                let folder = tempfile::Builder::new().prefix("p2pdi-").tempdir().map_err(PeerError::State)?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        let token: Option<JoinToken> = self.token.as_deref().map(str::parse).transpose()?;
        let network = token.as_ref().map(|token| token.network.clone());
        let enrolment = match token {
            Some(token) => {
                let joining = Joining {
                    token,
                    name: Some(name.clone()),
                    name_default: None,
                    from: None,
                    auth: ClientAuth::Required,
                    is_peer: true,
                };
                Some(identity::join(&state, &joining).await?)
            }
            None => None,
        };
        let tls = enrolment.as_ref().map(|enrolment| enrolment.tls().clone()).or(self.tls);
        let registries: Vec<RegistryUrl> = self.registries.iter().map(|url| url.parse()).collect::<Result<_, _>>()?;
        let registries = match &enrolment {
            Some(enrolment) => enrolment.registries().to_vec(),
            None => checked_registries(&registries, tls.is_some())?,
        };
        let config = NodeConfig {
            network: network.map_or_else(|| self.network.parse(), Ok)?,
            advertise: self.advertise.map(|endpoint| endpoint.parse()).transpose()?,
            registries,
            bootnodes: self.bootnodes.iter().map(|bootnode| bootnode.parse()).collect::<Result<_, _>>()?,
            lan: self.lan,
            labels: self.labels,
            share: self.share,
            mirrors: self.mirrors,
            quota: self.quota,
            min_free: self.min_free,
            upload_limit: self.upload_limit,
            download_limit: self.download_limit,
            tls,
            enrolment,
            control: self.control,
            temporary_state: folder.is_some(),
            ..NodeConfig::new(name, state)
        };
        let address = self.listen;
        let listener = TcpListener::bind(address).await.map_err(|source| PeerError::Listen { address, source })?;
        let node = spawn_blocking(move || Node::open(config, listener)).await.map_err(NodeError::from)??;
        let mut peer = Peer::new(node, folder);
        if self.autostart {
            peer.start();
        }
        Ok(peer)
    }
}
