//! LAN discovery: announces this peer and browses for others with multicast DNS (RFC 6762) and DNS-SD (RFC 6763).

use super::{
    announcement::{SERVICE, Scope, announce, read, scope},
    events::LanEvents,
    interfaces::{InterfaceCache, interfaces},
    lan_peers::{LanEvent, Load},
};
use crate::overlay::PeerId;
use if_addrs::Interface;
use mdns_sd::{DaemonEvent, Metrics, Receiver, ServiceDaemon, ServiceEvent};
use p2pdi::backoff::Backoff;
use p2pdi::{contact::Contact, endpoint::Endpoint, field::Quoted, network::NetworkName};
use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// Shortest time between two updates of the announcement: RFC 6762, section 8.4, allows at most ten changes a minute.
const UPDATE_INTERVAL: Duration = Duration::from_secs(10);
/// An announcement takes a second: three probes, 250 ms apart (RFC 6762, section 8.1). One that takes longer than this has failed.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(10);
/// How often the LAN is browsed again: a peer may have been dropped before because `LanPeers` was full.
const REVIEW_INTERVAL: Duration = Duration::from_secs(300);
/// Records of others in the daemon's cache: three or four for each of [`super::lan_peers::LAN_PEERS_MAX`] peers, on several
/// interfaces. More are a flood; the daemon is then restarted with an empty cache.
const RECORDS_MAX: i64 = 8_192;
/// Most log lines about announced peers per [`LOG_INTERVAL`]: anybody can announce thousands.
const LOG_LINES_MAX: usize = 50;
/// See [`LOG_LINES_MAX`].
const LOG_INTERVAL: Duration = Duration::from_secs(600);
/// How long the daemon has to answer a request; it bounds the delay of a stop.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(1);
/// Time for the second goodbye, which the daemon sends 120 ms after the first.
const SECOND_GOODBYE: Duration = Duration::from_millis(150);

/// Announces one peer and reports the others on the LAN.
pub(crate) struct Lan {
    me: Contact,
    network: NetworkName,
    bound: SocketAddr,
    advertised: Option<Endpoint>,
    events: mpsc::Sender<LanEvent>,
    log_limit: LogLimit,
    /// The announcement was logged.
    announced: bool,
    /// A failure was logged as a warning.
    warned: bool,
}

/// Why the daemon has to be restarted.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Failed(#[from] mdns_sd::Error),
    #[error("{0}")]
    Unannounced(&'static str),
    #[error("the LAN has more than {RECORDS_MAX} mDNS records")]
    Flooded,
    #[error("the mDNS daemon ended, or too many announcements arrived at once")]
    Closed,
}

impl Lan {
    /// LAN discovery for the peer `me` of `network`, which listens on `bound`; `advertised` is the endpoint that its user wants others to dial.
    pub(crate) fn new(me: Contact, network: NetworkName, bound: SocketAddr, advertised: Option<Endpoint>) -> (Self, LanEvents) {
        let (sender, events) = LanEvents::channel();
        let log_limit = LogLimit::default();
        (Self { me, network, bound, advertised, events: sender, log_limit, announced: false, warned: false }, events)
    }

    /// Announces and browses until `stop`, then says goodbye. `load` is read every [`UPDATE_INTERVAL`].
    pub(crate) async fn run(mut self, load: impl Fn() -> Load, stop: CancellationToken) {
        let own: Vec<_> = interfaces().iter().map(Interface::ip).collect();
        let (scope, port) = scope(self.bound, self.advertised.as_ref(), &own);
        if let Scope::Machine(ip) = scope {
            tracing::info!(
                "LAN discovery finds peers of this machine only, because this peer listens on {ip}; \
                 to find peers of the LAN, use --listen 0.0.0.0:{port}"
            );
        }
        let mut backoff = Backoff::default();
        loop {
            let mut announced = false;
            match self.listen(scope, port, &load, &mut announced, &stop).await {
                Ok(()) => return,
                Err(why) => self.warn(&why.to_string()),
            }
            if announced {
                backoff.reset();
            }
            tokio::select! {
                () = stop.cancelled() => return,
                () = sleep(backoff.next(rand::random())) => {}
            }
        }
    }

    /// Warns once; repetitions are logged at debug level.
    fn warn(&mut self, why: &str) {
        if std::mem::replace(&mut self.warned, true) {
            tracing::debug!(why, "LAN discovery does not work");
        } else {
            tracing::warn!("LAN discovery does not work: {why}; retrying in the background; --no-lan turns it off");
        }
    }

    async fn listen(
        &mut self,
        scope: Scope,
        port: u16,
        load: &impl Fn() -> Load,
        announced: &mut bool,
        stop: &CancellationToken,
    ) -> Result<(), Interrupted> {
        let daemon = ServiceDaemon::new()?;
        let outcome = tokio::select! {
            () = stop.cancelled() => Ok(()),
            Err(why) = self.follow(&daemon, scope, port, load, announced) => Err(why),
        };
        goodbye(&daemon, &self.me, &self.network, scope, port).await;
        outcome
    }

    async fn follow(
        &mut self,
        daemon: &ServiceDaemon,
        scope: Scope,
        port: u16,
        load: &impl Fn() -> Load,
        announced: &mut bool,
    ) -> Result<Infallible, Interrupted> {
        let (disabled, enabled) = scope.interfaces();
        daemon.disable_interface(disabled)?;
        if !enabled.is_empty() {
            daemon.enable_interface(enabled)?;
        }
        let (daemon_events, mut services) = (daemon.monitor()?, daemon.browse(SERVICE)?);
        let mut announced_load = load();
        daemon.register(announce(&self.me, &self.network, scope, port, announced_load)?)?;
        let announce_deadline = Instant::now() + ANNOUNCED_WITHIN;
        let mut update = interval(UPDATE_INTERVAL);
        update.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut review = Instant::now() + REVIEW_INTERVAL;
        let mut interfaces = InterfaceCache::default();
        loop {
            tokio::select! {
                event = services.recv_async() => match event {
                    Ok(event) => self.on_service(event, &mut interfaces).await,
                    // The daemon closes the channel when it is full, and when the daemon ends.
                    Err(_) => return Err(Interrupted::Closed),
                },
                event = daemon_events.recv_async() => match event {
                    Ok(DaemonEvent::Announce(name, on)) => {
                        if !std::mem::replace(announced, true) && !std::mem::replace(&mut self.announced, true) {
                            tracing::info!(%name, on = on.rsplit(':').next(), "announced by multicast DNS");
                        }
                    }
                    // A network came up, on which nothing has been announced yet.
                    Ok(DaemonEvent::IpAdd(address)) => {
                        tracing::debug!(%address, "LAN discovery");
                        daemon.register(announce(&self.me, &self.network, scope, port, announced_load)?)?;
                    }
                    Ok(event) => tracing::debug!(?event, "LAN discovery"),
                    Err(_) => return Err(Interrupted::Closed),
                },
                () = sleep_until(announce_deadline), if !*announced => return Err(Interrupted::Unannounced(unannounced(scope))),
                () = sleep_until(review) => {
                    // Replaces the earlier query, and reports all known services again.
                    services = daemon.browse(SERVICE)?;
                    review = Instant::now() + REVIEW_INTERVAL;
                }
                _ = update.tick() => {
                    let current = load();
                    if current != announced_load {
                        announced_load = current;
                        daemon.register(announce(&self.me, &self.network, scope, port, current)?)?;
                    }
                    if records(daemon).await > RECORDS_MAX {
                        return Err(Interrupted::Flooded);
                    }
                }
            }
        }
    }

    async fn on_service(&mut self, event: ServiceEvent, interfaces: &mut InterfaceCache) {
        let event = match event {
            ServiceEvent::ServiceResolved(service) => match read(&service, &self.network, interfaces.interfaces()) {
                Ok(announced) if announced.contact.id() == self.me.id() => return,
                Ok(announced) => {
                    let contact = &announced.contact;
                    if self.log_limit.should_log(contact) {
                        tracing::info!(peer = %contact.name(), endpoint = %contact.endpoint(), "found on the LAN");
                    } else {
                        tracing::debug!(peer = %contact.name(), endpoint = %contact.endpoint(), "found on the LAN");
                    }
                    LanEvent::Here(announced)
                }
                Err(error) => {
                    tracing::debug!(service = %Quoted(service.get_fullname()), %error, "ignored an announcement on the LAN");
                    return;
                }
            },
            ServiceEvent::ServiceRemoved(_, instance) => {
                tracing::debug!(service = %Quoted(&instance), "gone from the LAN");
                LanEvent::Gone(instance)
            }
            _ => return,
        };
        // Fails only when the peer stops.
        let _ = self.events.send(event).await;
    }
}

/// The likely reason why nothing was announced.
fn unannounced(scope: Scope) -> &'static str {
    let is_usable = |interface: &Interface| interface.is_loopback() == matches!(scope, Scope::Machine(_));
    if interfaces().iter().any(is_usable) { "UDP port 5353 or multicast is not available" } else { "this machine has no network" }
}

/// Says goodbye (a TTL of 0, RFC 6762, section 10.1) and ends the daemon.
async fn goodbye(daemon: &ServiceDaemon, me: &Contact, network: &NetworkName, scope: Scope, port: u16) {
    if let Ok(info) = announce(me, network, scope, port, Load { uploads: 0, links: 0 })
        && let Ok(done) = daemon.unregister(info.get_fullname())
        && answered(&done).await.is_some()
    {
        sleep(SECOND_GOODBYE).await;
    }
    if let Ok(done) = daemon.shutdown()
        && answered(&done).await.is_none()
    {
        tracing::debug!("LAN discovery did not end in time");
    }
}

/// Records of others in the daemon's cache.
async fn records(daemon: &ServiceDaemon) -> i64 {
    let Ok(answer) = daemon.get_metrics() else { return 0 };
    let metrics: Metrics = answered(&answer).await.unwrap_or_default();
    metrics.iter().filter(|(name, _)| name.starts_with("cached-")).map(|(_, count)| count).sum()
}

async fn answered<T>(answer: &Receiver<T>) -> Option<T> {
    timeout(ANSWER_TIMEOUT, answer.recv_async()).await.ok()?.ok()
}

/// Bounds the log lines about announced peers.
#[derive(Default)]
struct LogLimit {
    /// Peers logged in this interval, each with its endpoint.
    peers: BTreeMap<PeerId, Endpoint>,
    lines: usize,
    since: Option<Instant>,
}

impl LogLimit {
    /// Whether to log a peer: it is new, or has another endpoint. Another load alone is no reason.
    fn should_log(&mut self, contact: &Contact) -> bool {
        if self.peers.get(&contact.id()) == Some(contact.endpoint()) {
            return false;
        }
        if self.since.is_none_or(|since| since.elapsed() > LOG_INTERVAL) {
            *self = Self { since: Some(Instant::now()), ..Self::default() };
        }
        if self.lines >= LOG_LINES_MAX {
            return false;
        }
        self.lines += 1;
        self.peers.insert(contact.id(), contact.endpoint().clone());
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_flood_of_announcements_does_not_flood_the_log() {
        let contact = |id, port: u16| Contact::parse(PeerId::from_u128(id), "liar", &format!("10.0.0.1:{port}")).unwrap();
        let mut limit = LogLimit::default();
        // New peers, then one peer with new endpoints.
        let peers = (0..10_000).filter(|id| limit.should_log(&contact(*id, 1))).count();
        let endpoints = (1..10_000).filter(|port| limit.should_log(&contact(7, *port))).count();
        assert_eq!((peers, endpoints), (LOG_LINES_MAX, 0));
        tokio::time::advance(LOG_INTERVAL * 2).await;
        assert_eq!((0..10_000).filter(|_| limit.should_log(&contact(7, 2))).count(), 1);
    }
}
