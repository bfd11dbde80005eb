//! What a verb fetches, others fetch from it while it runs.

use crate::{
    args::{Global, OptionalVia, Sharing as Options},
    failure::{Failure, Outcome},
    registry_client::{RegistryAccess, observer_name},
    registry_tracker::RegistryTracker,
};
use p2pdi::{
    contact::Contact,
    endpoint::Endpoint,
    id::PeerId,
    name::PeerName,
    server::Limits,
    v1::{RegisterRequest, StatusRequest},
};
use peerd::{
    config::{PORT_DEFAULT, local_address_towards, reachable_endpoint},
    connections::channels::ChannelPool,
    fetcher::Fetcher,
    holders::tracker::{Announced, Announcement, NoTracker, Tracker},
    session::AnnounceError,
    transfer::{Swarms, ZONE_LABEL},
};
use std::{
    collections::BTreeMap,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpListener, sync::OnceCell, task::JoinSet, time::timeout};
use tokio_util::sync::CancellationToken;

/// How long the peer of this machine may take to say its zone: it answers within a millisecond, and a fetch waits for it.
const LOCAL_TIMEOUT: Duration = Duration::from_millis(50);

/// The swarms of a verb. Dropped, it serves no more.
pub(crate) struct Sharing {
    swarms: Swarms,
    _server: JoinSet<()>,
    /// `None`: there is no registry.
    tracker: Option<Arc<LazyTracker>>,
}

impl Drop for Sharing {
    fn drop(&mut self) {
        if let Some(connected) = self.tracker.as_ref().and_then(|tracker| tracker.connected.get()) {
            connected.tracker.end();
        }
    }
}

impl Sharing {
    /// Binds the address to share at, unless sharing is off. Nothing is announced, and nobody is served, before the first document is
    /// fetched in a swarm.
    pub(crate) async fn start(global: &Global, channels: &ChannelPool, via: &OptionalVia, options: &Options) -> Outcome<Self> {
        let zone = match &options.zone {
            Some(zone) => zone.clone(),
            None => zone_of_this_machine(channels).await.unwrap_or_default(),
        };
        let labels = match zone.as_str() {
            "" => BTreeMap::new(),
            zone => BTreeMap::from([(ZONE_LABEL.to_owned(), zone.to_owned())]),
        };
        let id = PeerId::of_client(rand::random());
        // Others check the name of whoever they fetch from. A certificate without one, such as an operator's, cannot serve.
        let certified = global.dial.tls.as_ref().map(|tls| tls.identity().and_then(|identity| identity.name().cloned()));
        let may_share = !options.no_share && !matches!(certified, Some(None));
        let name: PeerName = match certified.flatten() {
            Some(name) => name,
            None => observer_name(&global.dial).parse()?,
        };
        // Others reach this program at the address from which it reaches the registry or the peer.
        let towards = via.via.clone().map_or_else(|| global.registries(), |via| vec![via]);
        let listener = if may_share { listen(options, &towards).await? } else { None };
        let endpoint = match &listener {
            Some(listener) => Some(reachable_endpoint(listener.local_addr()?, &towards)?),
            None => None,
        };
        let lazy = match &via.via {
            Some(_) => None,
            None => Some(Arc::new(LazyTracker {
                access: global.access(),
                observer: RegisterRequest { name: name.to_string(), id: id.to_field(), labels, ..Default::default() },
                endpoint: endpoint.clone(),
                connected: OnceCell::new(),
            })),
        };
        let tracker: Arc<dyn Tracker> = match &lazy {
            Some(lazy) => Arc::<LazyTracker>::clone(lazy),
            None => Arc::new(NoTracker),
        };
        let mut server = JoinSet::new();
        let swarms = match (listener, endpoint) {
            (Some(listener), Some(endpoint)) => {
                let fetcher = Fetcher::new(Contact::new(id, name, endpoint), zone, options.upload_limit, tracker);
                let swarms = fetcher.swarms().clone();
                let tls = global.dial.tls.clone();
                server.spawn(async move {
                    let serving = fetcher.serve(listener, Limits::default(), tls, CancellationToken::new());
                    if let Err(error) = serving.await {
                        tracing::warn!(%error, "what is fetched is not shared");
                    }
                });
                swarms
            }
            _ => Swarms::of_a_client(name, tracker).in_zone(zone),
        };
        Ok(Self { swarms, _server: server, tracker: lazy })
    }

    /// For the options of fetches.
    pub(crate) fn swarms(&self) -> &Swarms {
        &self.swarms
    }
}

/// The zone of the peer that runs on this machine, if there is one.
async fn zone_of_this_machine(channels: &ChannelPool) -> Option<String> {
    let here = Endpoint::from(SocketAddr::from((Ipv4Addr::LOCALHOST, PORT_DEFAULT)));
    let mut client = channels.control(&here, None);
    let answer = timeout(LOCAL_TIMEOUT, client.status(StatusRequest::default())).await.ok()?.ok()?;
    Some(answer.into_inner().zone).filter(|zone| !zone.is_empty())
}

/// Listens where the user says, or at any free port: on loopback only if the registry is on this machine.
async fn listen(options: &Options, towards: &[Endpoint]) -> Outcome<Option<TcpListener>> {
    if let Some(address) = &options.listen {
        let bound = TcpListener::bind((address.host(), address.port())).await;
        return bound.map(Some).map_err(|error| {
            Failure::refused(format!("cannot share at {address}: {error}")).hint("give another --listen HOST:PORT, or --no-share")
        });
    }
    // No route to it: the call to it says so.
    let Some(route) = towards.iter().find_map(local_address_towards) else { return Ok(None) };
    let any: IpAddr = if route.is_loopback() { route } else { Ipv4Addr::UNSPECIFIED.into() };
    match TcpListener::bind(SocketAddr::new(any, 0)).await {
        Ok(listener) => Ok(Some(listener)),
        Err(error) => {
            tracing::warn!(%error, "what is fetched is not shared");
            Ok(None)
        }
    }
}

/// The registry as tracker, joined with the first announce: most documents need none.
struct LazyTracker {
    access: RegistryAccess,
    observer: RegisterRequest,
    endpoint: Option<Endpoint>,
    connected: OnceCell<Connected>,
}

struct Connected {
    tracker: Arc<RegistryTracker>,
    _keep_alive: JoinSet<()>,
}

impl LazyTracker {
    async fn connect(&self) -> Result<Connected, AnnounceError> {
        let connecting = RegistryTracker::connect(&self.access, self.observer.clone(), self.endpoint.clone());
        let tracker = connecting.await.map_err(|failure| AnnounceError::Unavailable(failure.to_string()))?;
        let (tracker, mut keep_alive) = (Arc::new(tracker), JoinSet::new());
        let kept = Arc::clone(&tracker);
        keep_alive.spawn(async move { kept.keep_alive().await });
        Ok(Connected { tracker, _keep_alive: keep_alive })
    }
}

#[tonic::async_trait]
impl Tracker for LazyTracker {
    async fn announce(&self, announcement: Announcement) -> Result<Announced, AnnounceError> {
        self.connected.get_or_try_init(|| self.connect()).await?.tracker.announce(announcement).await
    }
}
