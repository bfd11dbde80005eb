//! What a peer is made of.

use super::{Peer, PeerError};
use crate::{
    config::{ControlFrom, NodeConfig, parse_registry, state_folder},
    node::{Node, NodeError},
};
use p2pdi::{field::InvalidField, name::PeerName, selector::validate_labels};
use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
};
use tokio::{net::TcpListener, task::spawn_blocking};

/// Where a peer keeps its id, its cookie and its index.
#[derive(Debug, Clone)]
enum State {
    /// In a folder that goes with it.
    Temporary,
    /// In the user's state folder, by its name.
    Users,
    Folder(PathBuf),
}

/// Makes a [`Peer`]. Nothing is checked before [`PeerBuilder::build`].
#[derive(Debug, Clone)]
#[must_use = "a builder does nothing until build()"]
pub struct PeerBuilder {
    name: String,
    listen: SocketAddr,
    advertise: Option<String>,
    registry: Option<String>,
    bootnodes: Vec<String>,
    lan: bool,
    labels: BTreeMap<String, String>,
    share: Option<PathBuf>,
    state: State,
    control: ControlFrom,
    autostart: bool,
}

impl PeerBuilder {
    pub(super) fn new(name: String) -> Self {
        Self {
            name,
            listen: (Ipv4Addr::LOCALHOST, 0).into(),
            advertise: None,
            registry: None,
            bootnodes: Vec::new(),
            lan: false,
            labels: BTreeMap::new(),
            share: None,
            state: State::Temporary,
            control: ControlFrom::Loopback,
            autostart: true,
        }
    }

    /// Listens here; port 0 picks a free one. An address of this machine's network lets others in, and so does `0.0.0.0`, with
    /// [`PeerBuilder::advertise`] or [`PeerBuilder::lan`]. By default a free port that only this machine can reach.
    pub fn listen(mut self, address: impl Into<SocketAddr>) -> Self {
        self.listen = address.into();
        self
    }

    /// Listens on this port.
    pub fn port(mut self, port: u16) -> Self {
        self.listen.set_port(port);
        self
    }

    /// Others dial it at this `HOST:PORT`, where that is not what it listens on.
    pub fn advertise(mut self, endpoint: impl ToString) -> Self {
        self.advertise = Some(endpoint.to_string());
        self
    }

    /// Registers with this registry, `http://HOST:PORT`, finds others through it, and leaves it at the end.
    pub fn registry(mut self, url: impl ToString) -> Self {
        self.registry = Some(url.to_string());
        self
    }

    /// A peer to link to at the start and whenever all others are lost, tried until it answers: `NAME:PORT` on this machine,
    /// `NAME@HOST:PORT` or `HOST:PORT`. May be called several times. To know whether it worked, use [`PeerHandle::join`] instead.
    ///
    /// [`PeerHandle::join`]: super::PeerHandle::join
    pub fn bootnode(mut self, peer: impl ToString) -> Self {
        self.bootnodes.push(peer.to_string());
        self
    }

    /// Whether it finds peers of its LAN by multicast DNS, and lets them find it. By default not: a program's tests find nobody then.
    pub fn lan(mut self, lan: bool) -> Self {
        self.lan = lan;
        self
    }

    /// A label that others can filter by in the registry.
    pub fn label(mut self, key: impl Into<String>, value: impl Into<String>) -> Self {
        self.labels.insert(key.into(), value.into());
        self
    }

    /// Shares this folder, with all below it.
    pub fn share(mut self, folder: impl Into<PathBuf>) -> Self {
        self.share = Some(folder.into());
        self
    }

    /// Keeps its id, its cookie and its index in this folder, one per peer. Without, it is another peer each time it is built.
    pub fn state(mut self, folder: impl Into<PathBuf>) -> Self {
        self.state = State::Folder(folder.into());
        self
    }

    /// Keeps them where `peerd` does: in the user's state folder (`~/.local/state/p2pdi/peerd`), by the peer's name.
    pub fn state_of_user(mut self) -> Self {
        self.state = State::Users;
        self
    }

    /// Who may call its `Control` service, as `p2pctl` does; by default programs on this machine.
    pub fn control(mut self, control: ControlFrom) -> Self {
        self.control = control;
        self
    }

    /// Whether [`PeerBuilder::build`] also starts it, as by default. Otherwise [`Peer::start`] does, after handlers are set, for one.
    pub fn autostart(mut self, autostart: bool) -> Self {
        self.autostart = autostart;
        self
    }

    /// Opens all it needs, and starts it unless told otherwise. Its port is bound then, started or not.
    ///
    /// # Errors
    /// When a value cannot be, the port is taken, or a folder cannot be used.
    pub async fn build(self) -> Result<Peer, PeerError> {
        let name: PeerName = self.name.parse()?;
        validate_labels(&self.labels)?;
        let (state, folder) = match self.state {
            State::Folder(folder) => (folder, None),
            State::Users => {
                let wrong = || InvalidField::new("state", "neither XDG_STATE_HOME nor HOME is set; give a folder");
                (state_folder().ok_or_else(wrong)?.join("peerd").join(name.key()), None)
            }
            State::Temporary => {
                let folder = tempfile::Builder::new().prefix("p2pdi-").tempdir().map_err(PeerError::State)?;
                (folder.path().to_owned(), Some(folder))
            }
        };
        let config = NodeConfig {
            advertise: self.advertise.map(|endpoint| endpoint.parse()).transpose()?,
            registry: self.registry.as_deref().map(parse_registry).transpose()?,
            bootnodes: self.bootnodes.iter().map(|bootnode| bootnode.parse()).collect::<Result<_, _>>()?,
            lan: self.lan,
            labels: self.labels,
            share: self.share,
            control: self.control,
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
