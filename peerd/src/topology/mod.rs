//! The network as this peer finds it by asking: for the page, while somebody looks at it, and for the command line.
//!
//! One task ([`TopologyDriver`]) asks; it does so only while there is a watcher, and all watchers are shown the same picture, so
//! that a hundred browsers ask no more of the network than one.

mod history;
mod snapshot;
mod walk;

pub use history::{Event, EventKind};
pub use snapshot::{Reachability, Seen, Snapshot};
pub use walk::{Limits, ask, explore};

use crate::{connections::channels::ChannelPool, mesh::Mesh, overlay::Contact, session::Session};
use history::History;
use p2pdi::endpoint::Endpoint;
use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
    sync::Arc,
    time::{Duration, SystemTime},
};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

/// Peers in the picture: as many as a drawing can show. Those nearest along links come first.
pub const PEERS_MAX: usize = 200;
/// What one look may ask of the network. Every peer in the picture is asked once; on a local network all answer within a moment.
const LIMITS: Limits = Limits {
    // Enough to hide their latency, and no burst that anybody notices.
    at_once: 16,
    // A peer that is busy for longer shows as silent until the next look.
    answer: Duration::from_secs(2),
    // A picture that took longer would be a picture of the past.
    all: Duration::from_secs(8),
};
/// Time from the end of one look to the next. A guess: what feels live, at 70 small calls a second for a full picture.
pub const PAUSE: Duration = Duration::from_secs(3);
/// The same when this peer's own links changed: soon, and not for each of many changes.
const PAUSE_CHANGED: Duration = Duration::from_millis(500);
/// How long a peer that did not answer is left alone: whatever strangers name is dialled no more often than this.
const REST: Duration = Duration::from_secs(10);

/// How the network looked last.
#[derive(Debug, Clone, Default)]
pub struct Observation {
    /// Peers and links; only this peer's own until others were asked.
    pub snapshot: Snapshot,
    /// What changed lately, the oldest first.
    pub events: Vec<Event>,
    /// When the peers in the picture were asked; `None`: they were not yet, for this watcher.
    pub asked_at: Option<SystemTime>,
}

/// Where to look. Cheap to clone.
#[derive(Clone)]
pub struct Topology {
    shown: Arc<watch::Sender<Arc<Observation>>>,
    wanted: Arc<Notify>,
}

impl Topology {
    /// The network around the peer of `mesh` and `session`, and what looks at it.
    pub fn new(mesh: Mesh, session: Session, channels: &ChannelPool) -> (Self, TopologyDriver) {
        let network = Self { shown: Arc::new(watch::Sender::new(Arc::default())), wanted: Arc::default() };
        let driver = TopologyDriver {
            network: network.clone(),
            mesh,
            session,
            history: History::default(),
            channels: channels.separate(),
            answered: Vec::new(),
            silent: BTreeMap::new(),
        };
        (network, driver)
    }

    /// The network from now on. It is looked at as long as the receiver is kept.
    pub fn watch(&self) -> watch::Receiver<Arc<Observation>> {
        let watching = self.shown.subscribe();
        self.wanted.notify_one();
        watching
    }
}

/// A look under way: the picture it ends with.
type Look = Pin<Box<dyn Future<Output = Snapshot> + Send>>;

/// Looks at the network while somebody wants to see it, and notes this peer's own links all the time.
pub struct TopologyDriver {
    network: Topology,
    mesh: Mesh,
    session: Session,
    history: History,
    /// Its connections end when nobody looks any more.
    channels: ChannelPool,
    /// Peers that answered the last time: asked again, whether somebody names them or not.
    answered: Vec<Contact>,
    /// Peers that did not, and until when they are left alone.
    silent: BTreeMap<Endpoint, Instant>,
}

impl TopologyDriver {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut views, mut known) = (self.mesh.views(), self.session.known().changes());
        let mut look: Option<Look> = None;
        let mut due = Instant::now();
        let mut looked = false;
        loop {
            let watched = self.network.shown.receiver_count() > 0;
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = views.changed() => {
                    let view = Arc::clone(&views.borrow_and_update());
                    if self.history.links(view.neighbours.iter().map(|(contact, _)| contact), SystemTime::now()) {
                        due = due.min(Instant::now() + PAUSE_CHANGED);
                        self.show_events();
                    }
                }
                Ok(()) = known.changed() => {
                    // A sample of many says nothing of who came and left.
                    if self.session.known().are_all() {
                        let listed = self.session.known().all().into_iter().map(|peer| (peer.id(), peer.name().clone())).collect();
                        self.history.listed(listed, SystemTime::now());
                        due = due.min(Instant::now() + PAUSE_CHANGED);
                        self.show_events();
                    }
                }
                () = self.network.wanted.notified() => if !looked {
                    looked = true;
                    self.show(self.own(), None);
                    due = Instant::now();
                },
                snapshot = async { Some(look.as_mut()?.await) }, if look.is_some() => {
                    look = None;
                    if let Some(snapshot) = snapshot {
                        self.looked(snapshot);
                    }
                    due = Instant::now() + PAUSE;
                }
                () = sleep_until(due), if look.is_none() && looked => {
                    if watched {
                        look = Some(self.look());
                    } else {
                        looked = false;
                        self.stop_watching();
                    }
                }
            }
        }
    }

    /// What this peer says of itself. How busy it is, whoever shows the picture knows best.
    fn own(&self) -> Snapshot {
        let view = self.mesh.view();
        let mut snapshot = Snapshot::with_room_for(PEERS_MAX);
        snapshot.name(&view.me, Some(0));
        snapshot.answer(view.list());
        snapshot
    }

    /// Asks along links first, then whom the registry lists, then whoever answered before and is named by nobody now: of a network
    /// that fell apart, both parts are shown.
    fn look(&mut self) -> Look {
        let now = Instant::now();
        self.silent.retain(|_, until| *until > now);
        let resting: BTreeSet<_> = self.silent.keys().cloned().collect();
        let mut snapshot = self.own();
        let (channels, known) = (self.channels.clone(), self.session.known().clone());
        let answered = std::mem::take(&mut self.answered);
        Box::pin(async move {
            let others = |snapshot: &Snapshot| -> Vec<Contact> {
                let named = snapshot.peers().values().filter(|seen| seen.standing == Reachability::Named);
                named.map(|seen| seen.contact.clone()).collect()
            };
            let linked = others(&snapshot);
            explore(&channels, &mut snapshot, linked, &resting, LIMITS).await;
            let listed = known.all().into_iter();
            let unlinked = listed.chain(answered).filter(|contact| snapshot.name(contact, None)).collect();
            explore(&channels, &mut snapshot, unlinked, &resting, LIMITS).await;
            snapshot
        })
    }

    fn looked(&mut self, snapshot: Snapshot) {
        let rested = Instant::now() + REST;
        for seen in snapshot.peers().values() {
            match seen.standing {
                Reachability::Answers { .. } => self.answered.push(seen.contact.clone()),
                // Only when it was asked just now.
                Reachability::Silent => drop(self.silent.entry(seen.contact.endpoint().clone()).or_insert(rested)),
                Reachability::Named => {}
            }
        }
        let now = SystemTime::now();
        self.history.pictured(&snapshot, now);
        self.show(snapshot, Some(now));
    }

    fn stop_watching(&mut self) {
        self.history.stop_watching();
        self.channels = self.channels.separate();
        self.answered.clear();
        self.silent.clear();
    }

    fn show(&self, snapshot: Snapshot, asked_at: Option<SystemTime>) {
        let events = self.history.events().cloned().collect();
        self.network.shown.send_replace(Arc::new(Observation { snapshot, events, asked_at }));
    }

    fn show_events(&self) {
        self.network.shown.send_if_modified(|shown| {
            let events = self.history.events().cloned().collect();
            *shown = Arc::new(Observation { events, ..Observation::clone(shown) });
            true
        });
    }
}
