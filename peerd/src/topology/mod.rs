//! The topology of the network: this peer asks others for their neighbours, for the page and for the command line.
//!
//! One task ([`TopologyDriver`]) asks, only while there is a watcher. All watchers get the same snapshot, so that a hundred browsers cause
//! no more calls than one.

mod history;
mod snapshot;
mod walk;

pub use history::{Event, EventKind};
pub use snapshot::{Reachability, Snapshot, SnapshotPeer};
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

/// Most peers in a snapshot: as many as a drawing can show. Those fewest links away come first.
pub const PEERS_MAX: usize = 200;
/// Limits of one round of calls. Every peer in the snapshot is asked once; on a local network all answer within a moment.
const LIMITS: Limits = Limits {
    // Enough to hide the latency, and no burst that others notice.
    at_once: 16,
    // A peer that is busy for longer counts as silent until the next round.
    answer: Duration::from_secs(2),
    // A snapshot that took longer would be outdated.
    all: Duration::from_secs(8),
};
/// Pause from the end of one round to the next. A guess: it feels live, at 70 small calls a second for a full snapshot.
pub const PAUSE: Duration = Duration::from_secs(3);
/// The same after this peer's own links changed: soon, but not once for each of many changes.
const PAUSE_CHANGED: Duration = Duration::from_millis(500);
/// How long a peer that did not answer is not asked again: addresses that others claim are dialled no more often than this.
const SILENT_PAUSE: Duration = Duration::from_secs(10);

/// The latest snapshot and events.
#[derive(Debug, Clone, Default)]
pub struct TopologyState {
    /// Peers and links; only those of this peer until others were asked.
    pub snapshot: Snapshot,
    /// Recent changes, the oldest first.
    pub events: Vec<Event>,
    /// When the peers in the snapshot were asked; `None` before the first round since there is a watcher.
    pub asked_at: Option<SystemTime>,
}

/// Gives access to the topology. Cheap to clone.
#[derive(Clone)]
pub struct Topology {
    published: Arc<watch::Sender<Arc<TopologyState>>>,
    /// Notified when somebody begins to watch.
    watched: Arc<Notify>,
}

impl Topology {
    /// The topology around the peer of `mesh` and `session`, and its driver, which calls peers like `channels` does.
    pub fn new(mesh: Mesh, session: Session, channels: &ChannelPool) -> (Self, TopologyDriver) {
        let topology = Self { published: Arc::new(watch::Sender::new(Arc::default())), watched: Arc::default() };
        let driver = TopologyDriver {
            topology: topology.clone(),
            mesh,
            session,
            history: History::default(),
            channels: channels.separate(),
            answered: Vec::new(),
            silent: BTreeMap::new(),
        };
        (topology, driver)
    }

    /// The topology from now on. The driver asks the network as long as the receiver is kept.
    pub fn watch(&self) -> watch::Receiver<Arc<TopologyState>> {
        let watcher = self.published.subscribe();
        self.watched.notify_one();
        watcher
    }
}

/// A round of calls in progress: it returns a snapshot.
type Round = Pin<Box<dyn Future<Output = Snapshot> + Send>>;

/// Asks the network while there is a watcher, and records changes of this peer's own links all the time.
pub struct TopologyDriver {
    topology: Topology,
    mesh: Mesh,
    session: Session,
    history: History,
    /// Connections are closed when the last watcher is gone.
    channels: ChannelPool,
    /// Peers that answered in the last round: asked again, even if no other peer names them.
    answered: Vec<Contact>,
    /// Peers that did not answer, and when they may be asked again.
    silent: BTreeMap<Endpoint, Instant>,
}

impl TopologyDriver {
    /// Runs until `stop`.
    pub async fn run(mut self, stop: CancellationToken) {
        let (mut views, mut known) = (self.mesh.views(), self.session.known().changes());
        let mut round: Option<Round> = None;
        let mut due = Instant::now();
        let mut is_active = false;
        loop {
            let is_watched = self.topology.published.receiver_count() > 0;
            tokio::select! {
                () = stop.cancelled() => return,
                Ok(()) = views.changed() => {
                    let view = Arc::clone(&views.borrow_and_update());
                    if self.history.links(view.neighbours.iter().map(|(contact, _)| contact), SystemTime::now()) {
                        due = due.min(Instant::now() + PAUSE_CHANGED);
                        self.publish_events();
                    }
                }
                Ok(()) = known.changed() => {
                    // A random sample does not show who joined and left.
                    if self.session.known().are_all() {
                        let listed = self.session.known().all().into_iter().map(|peer| (peer.id(), peer.name().clone())).collect();
                        self.history.listed(listed, SystemTime::now());
                        due = due.min(Instant::now() + PAUSE_CHANGED);
                        self.publish_events();
                    }
                }
                () = self.topology.watched.notified() => if !is_active {
                    is_active = true;
                    self.publish(self.own(), None);
                    due = Instant::now();
                },
                snapshot = async { Some(round.as_mut()?.await) }, if round.is_some() => {
                    round = None;
                    if let Some(snapshot) = snapshot {
                        self.on_snapshot(snapshot);
                    }
                    due = Instant::now() + PAUSE;
                }
                () = sleep_until(due), if round.is_none() && is_active => {
                    if is_watched {
                        round = Some(self.start_round());
                    } else {
                        is_active = false;
                        self.stop_watching();
                    }
                }
            }
        }
    }

    /// The snapshot of this peer alone, without its load: the code that presents the snapshot adds it.
    fn own(&self) -> Snapshot {
        let view = self.mesh.view();
        let mut snapshot = Snapshot::with_capacity(PEERS_MAX);
        snapshot.add(&view.me, Some(0));
        snapshot.add_answer(view.list());
        snapshot
    }

    /// Asks peers along links first, then those that the registry lists, then those that answered before and are named by no other peer
    /// now: so both sides of a partition are shown.
    fn start_round(&mut self) -> Round {
        let now = Instant::now();
        self.silent.retain(|_, until| *until > now);
        let silent: BTreeSet<_> = self.silent.keys().cloned().collect();
        let mut snapshot = self.own();
        let (channels, known) = (self.channels.clone(), self.session.known().clone());
        let answered = std::mem::take(&mut self.answered);
        Box::pin(async move {
            let unasked = snapshot.peers().values().filter(|peer| peer.reachability == Reachability::Named);
            let linked = unasked.map(|peer| peer.contact.clone()).collect();
            explore(&channels, &mut snapshot, linked, &silent, LIMITS).await;
            let listed = known.all().into_iter();
            let unlinked = listed.chain(answered).filter(|contact| snapshot.add(contact, None)).collect();
            explore(&channels, &mut snapshot, unlinked, &silent, LIMITS).await;
            snapshot
        })
    }

    fn on_snapshot(&mut self, snapshot: Snapshot) {
        let until = Instant::now() + SILENT_PAUSE;
        for peer in snapshot.peers().values() {
            match peer.reachability {
                Reachability::Answers { .. } => self.answered.push(peer.contact.clone()),
                // One that was not asked in this round keeps its earlier time.
                Reachability::Silent => drop(self.silent.entry(peer.contact.endpoint().clone()).or_insert(until)),
                Reachability::Named => {}
            }
        }
        let now = SystemTime::now();
        self.history.snapshot(&snapshot, now);
        self.publish(snapshot, Some(now));
    }

    fn stop_watching(&mut self) {
        self.history.stop_watching();
        self.channels = self.channels.separate();
        self.answered.clear();
        self.silent.clear();
    }

    fn publish(&self, snapshot: Snapshot, asked_at: Option<SystemTime>) {
        let events = self.history.events().cloned().collect();
        self.topology.published.send_replace(Arc::new(TopologyState { snapshot, events, asked_at }));
    }

    fn publish_events(&self) {
        self.topology.published.send_if_modified(|published| {
            let events = self.history.events().cloned().collect();
            *published = Arc::new(TopologyState { events, ..TopologyState::clone(published) });
            true
        });
    }
}
