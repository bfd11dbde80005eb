//! Announces this peer on the LAN and listens for others: multicast DNS (RFC 6762) with DNS-SD (RFC 6763).

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
use p2pdi::{contact::Contact, endpoint::Endpoint, field::Quoted};
use std::{collections::BTreeMap, convert::Infallible, net::SocketAddr, time::Duration};
use tokio::{
    sync::mpsc,
    time::{Instant, MissedTickBehavior, interval, sleep, sleep_until, timeout},
};
use tokio_util::sync::CancellationToken;

/// How often the announcement is brought up to date at most: RFC 6762, section 8.4, wants no more than ten changes a minute.
const UPDATE_INTERVAL: Duration = Duration::from_secs(10);
/// An announcement takes a second: three probes, 250 ms apart (RFC 6762, section 8.1). One that takes longer than this has failed.
const ANNOUNCED_WITHIN: Duration = Duration::from_secs(10);
/// How often all that are there are looked through again: one of them may have found no room before.
const REVIEW_INTERVAL: Duration = Duration::from_secs(300);
/// Records of others kept: three or four for each of [`super::lan_peers::NEARBY_MAX`] peers, on several interfaces. With more, somebody floods
/// the LAN, and all are dropped.
const RECORDS_MAX: i64 = 8_192;
/// Lines logged of peers that came, in one [`TOLD_INTERVAL`]: anybody can announce thousands.
const TOLD_MAX: usize = 50;
/// See [`TOLD_MAX`].
const TOLD_INTERVAL: Duration = Duration::from_secs(600);
/// How long a goodbye may hold up a stop.
const GOODBYE_TIMEOUT: Duration = Duration::from_secs(1);
/// A goodbye is sent twice, the second time 120 ms after the first.
const GOODBYE_TWICE: Duration = Duration::from_millis(150);

/// Announces one peer, and tells who else is there.
pub(crate) struct Lan {
    me: Contact,
    bound: SocketAddr,
    advertised: Option<Endpoint>,
    tell: mpsc::Sender<LanEvent>,
    told: Told,
    announced: bool,
    warned: bool,
}

/// Why listening has to begin anew.
#[derive(Debug, thiserror::Error)]
enum Interrupted {
    #[error(transparent)]
    Failed(#[from] mdns_sd::Error),
    #[error("{0}")]
    Unannounced(&'static str),
    #[error("the LAN has more announcements than can be followed")]
    Flooded,
    #[error("multicast was cut off, by a flood of announcements or by the system")]
    Closed,
}

impl Lan {
    /// The peer `me`, which listens on `bound`; `advertised` is what its user wants others to dial.
    pub(crate) fn new(me: Contact, bound: SocketAddr, advertised: Option<Endpoint>) -> (Self, LanEvents) {
        let (tell, events) = LanEvents::channel();
        (Self { me, bound, advertised, tell, told: Told::default(), announced: false, warned: false }, events)
    }

    /// Announces and listens until `stop`, then says goodbye. `busy` is asked now and then.
    pub(crate) async fn run(mut self, busy: impl Fn() -> Load, stop: CancellationToken) {
        let own: Vec<_> = interfaces().iter().map(Interface::ip).collect();
        let (scope, port) = scope(self.bound, self.advertised.as_ref(), &own);
        if let Scope::Machine(ip) = scope {
            tracing::info!(
                "peers of this machine are found by themselves, those of the LAN are not, since this one listens on {ip} only; \
                 with --listen 0.0.0.0:{port} they are"
            );
        }
        let mut backoff = Backoff::default();
        loop {
            let mut announced = false;
            match self.listen(scope, port, &busy, &mut announced, &stop).await {
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

    /// One line, however often it happens.
    fn warn(&mut self, why: &str) {
        if std::mem::replace(&mut self.warned, true) {
            tracing::debug!(why, "LAN discovery does not work");
        } else {
            tracing::warn!("LAN discovery does not work: {why}; the peer runs on and tries again. --no-lan leaves it out");
        }
    }

    async fn listen(
        &mut self,
        scope: Scope,
        port: u16,
        busy: &impl Fn() -> Load,
        announced: &mut bool,
        stop: &CancellationToken,
    ) -> Result<(), Interrupted> {
        let daemon = ServiceDaemon::new()?;
        let outcome = tokio::select! {
            () = stop.cancelled() => Ok(()),
            Err(why) = self.follow(&daemon, scope, port, busy, announced) => Err(why),
        };
        goodbye(&daemon, &self.me, scope, port).await;
        outcome
    }

    async fn follow(
        &mut self,
        daemon: &ServiceDaemon,
        scope: Scope,
        port: u16,
        busy: &impl Fn() -> Load,
        announced: &mut bool,
    ) -> Result<Infallible, Interrupted> {
        let (left_out, taken_in) = scope.interfaces();
        daemon.disable_interface(left_out)?;
        if !taken_in.is_empty() {
            daemon.enable_interface(taken_in)?;
        }
        let (doings, mut seen) = (daemon.monitor()?, daemon.browse(SERVICE)?);
        let mut said = busy();
        daemon.register(announce(&self.me, scope, port, said)?)?;
        let late = Instant::now() + ANNOUNCED_WITHIN;
        let mut update = interval(UPDATE_INTERVAL);
        update.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut review = Instant::now() + REVIEW_INTERVAL;
        let mut own = InterfaceCache::default();
        loop {
            tokio::select! {
                event = seen.recv_async() => match event {
                    Ok(event) => self.on_seen(event, &mut own).await,
                    // It is closed when too much waits in it, and when the daemon ends.
                    Err(_) => return Err(Interrupted::Closed),
                },
                doing = doings.recv_async() => match doing {
                    Ok(DaemonEvent::Announce(name, on)) => {
                        if !std::mem::replace(announced, true) && !std::mem::replace(&mut self.announced, true) {
                            tracing::info!(%name, on = on.rsplit(':').next(), "announced by multicast DNS");
                        }
                    }
                    // A network is back, on which nothing was announced yet.
                    Ok(DaemonEvent::IpAdd(address)) => {
                        tracing::debug!(%address, "LAN discovery");
                        daemon.register(announce(&self.me, scope, port, said)?)?;
                    }
                    Ok(event) => tracing::debug!(?event, "LAN discovery"),
                    Err(_) => return Err(Interrupted::Closed),
                },
                () = sleep_until(late), if !*announced => return Err(Interrupted::Unannounced(unannounced(scope))),
                () = sleep_until(review) => {
                    // Takes the place of the browsing before it, and says again what is known.
                    seen = daemon.browse(SERVICE)?;
                    review = Instant::now() + REVIEW_INTERVAL;
                }
                _ = update.tick() => {
                    let now = busy();
                    if now != said {
                        said = now;
                        daemon.register(announce(&self.me, scope, port, now)?)?;
                    }
                    if records(daemon).await > RECORDS_MAX {
                        return Err(Interrupted::Flooded);
                    }
                }
            }
        }
    }

    async fn on_seen(&mut self, event: ServiceEvent, own: &mut InterfaceCache) {
        let sight = match event {
            ServiceEvent::ServiceResolved(service) => match read(&service, own.interfaces()) {
                Ok(sighting) if sighting.contact.id() == self.me.id() => return,
                Ok(sighting) => {
                    let contact = &sighting.contact;
                    if self.told.is_news(contact) {
                        tracing::info!(peer = %contact.name(), endpoint = %contact.endpoint(), "seen on the LAN");
                    } else {
                        tracing::debug!(peer = %contact.name(), endpoint = %contact.endpoint(), "seen on the LAN");
                    }
                    LanEvent::Here(sighting)
                }
                Err(error) => {
                    tracing::debug!(service = %Quoted(service.get_fullname()), %error, "what is announced on the LAN is no peer that could be dialled");
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
        let _ = self.tell.send(sight).await;
    }
}

/// Why nothing could be announced, as far as can be told.
fn unannounced(scope: Scope) -> &'static str {
    let is_usable = |interface: &Interface| interface.is_loopback() == matches!(scope, Scope::Machine(_));
    if interfaces().iter().any(is_usable) {
        "UDP port 5353 or multicast is not to be had"
    } else {
        "this machine has no network to announce anything on"
    }
}

/// Tells others that this peer is going, and ends the daemon.
async fn goodbye(daemon: &ServiceDaemon, me: &Contact, scope: Scope, port: u16) {
    if let Ok(info) = announce(me, scope, port, Load { load: 0, links: 0 })
        && let Ok(done) = daemon.unregister(info.get_fullname())
        && answered(&done).await.is_some()
    {
        sleep(GOODBYE_TWICE).await;
    }
    if let Ok(done) = daemon.shutdown()
        && answered(&done).await.is_none()
    {
        tracing::debug!("LAN discovery did not end in time");
    }
}

/// Records of others that the daemon keeps.
async fn records(daemon: &ServiceDaemon) -> i64 {
    let Ok(answer) = daemon.get_metrics() else { return 0 };
    let metrics: Metrics = answered(&answer).await.unwrap_or_default();
    metrics.iter().filter(|(name, _)| name.starts_with("cached-")).map(|(_, count)| count).sum()
}

async fn answered<T>(answer: &Receiver<T>) -> Option<T> {
    timeout(GOODBYE_TIMEOUT, answer.recv_async()).await.ok()?.ok()
}

/// Peers named in the log of late.
#[derive(Default)]
struct Told {
    peers: BTreeMap<PeerId, Endpoint>,
    lines: usize,
    since: Option<Instant>,
}

impl Told {
    /// Whether a peer is worth a line: it is new, or somewhere else. One that only has another load is not.
    fn is_news(&mut self, contact: &Contact) -> bool {
        if self.peers.get(&contact.id()) == Some(contact.endpoint()) {
            return false;
        }
        if self.since.is_none_or(|since| since.elapsed() > TOLD_INTERVAL) {
            *self = Self { since: Some(Instant::now()), ..Self::default() };
        }
        if self.lines >= TOLD_MAX {
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
    async fn a_flood_of_announcements_is_no_flood_of_lines() {
        let contact = |id, port: u16| Contact::parse(PeerId::from_u128(id), "liar", &format!("10.0.0.1:{port}")).unwrap();
        let mut told = Told::default();
        // Now it is another peer, now another address.
        let told_of_peers = (0..10_000).filter(|id| told.is_news(&contact(*id, 1))).count();
        let told_of_places = (1..10_000).filter(|port| told.is_news(&contact(7, *port))).count();
        assert_eq!((told_of_peers, told_of_places), (TOLD_MAX, 0));
        tokio::time::advance(TOLD_INTERVAL * 2).await;
        assert_eq!((0..10_000).filter(|_| told.is_news(&contact(7, 2))).count(), 1);
    }
}
