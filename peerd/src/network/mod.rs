//! The network as this peer finds it by asking: for the page, while somebody looks at it, and for the command line.
//!
//! One task ([`NetworkDriver`]) asks; it does so only while there is a watcher, and all watchers are shown the same picture, so
//! that a hundred browsers ask no more of the network than one.

mod history;
mod picture;
mod walk;

pub use history::{Event, What};
pub use picture::{Picture, Seen, Standing};
pub use walk::{Limits, ask, explore};

use crate::{dial::Dialer, mesh::Mesh, overlay::Contact, session::Session};
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
pub struct Snapshot {
    /// Peers and links; only this peer's own until others were asked.
    pub picture: Picture,
    /// What changed lately, the oldest first.
    pub events: Vec<Event>,
    /// When the peers in the picture were asked; `None`: they were not yet, for this watcher.
    pub asked_at: Option<SystemTime>,
}

/// Where to look. Cheap to clone.
#[derive(Clone)]
pub struct Network {
    shown: Arc<watch::Sender<Arc<Snapshot>>>,
    wanted: Arc<Notify>,
}

impl Network {
    /// The network around the peer of `mesh` and `session`, and what looks at it.
    pub fn new(mesh: Mesh, session: Session) -> (Self, NetworkDriver) {
        let network = Self { shown: Arc::new(watch::Sender::new(Arc::default())), wanted: Arc::default() };
        let driver = NetworkDriver {
            network: network.clone(),
            mesh,
            session,
            history: History::default(),
            dialer: Dialer::default(),
            answered: Vec::new(),
            silent: BTreeMap::new(),
        };
        (network, driver)
    }

    /// The network from now on. It is looked at as long as the receiver is kept.
    pub fn watch(&self) -> watch::Receiver<Arc<Snapshot>> {
        let watching = self.shown.subscribe();
        self.wanted.notify_one();
        watching
    }
}

/// A look under way: the picture it ends with.
type Look = Pin<Box<dyn Future<Output = Picture> + Send>>;

/// Looks at the network while somebody wants to see it, and notes this peer's own links all the time.
pub struct NetworkDriver {
    network: Network,
    mesh: Mesh,
    session: Session,
    history: History,
    /// Its connections end when nobody looks any more.
    dialer: Dialer,
    /// Peers that answered the last time: asked again, whether somebody names them or not.
    answered: Vec<Contact>,
    /// Peers that did not, and until when they are left alone.
    silent: BTreeMap<Endpoint, Instant>,
}

impl NetworkDriver {
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
                        let listed = self.session.known().all().into_iter().map(|peer| (peer.id, peer.name)).collect();
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
                picture = async { Some(look.as_mut()?.await) }, if look.is_some() => {
                    look = None;
                    if let Some(picture) = picture {
                        self.looked(picture);
                    }
                    due = Instant::now() + PAUSE;
                }
                () = sleep_until(due), if look.is_none() && looked => {
                    if watched {
                        look = Some(self.look());
                    } else {
                        looked = false;
                        self.look_away();
                    }
                }
            }
        }
    }

    /// What this peer says of itself. How busy it is, whoever shows the picture knows best.
    fn own(&self) -> Picture {
        let view = self.mesh.view();
        let mut picture = Picture::with_room_for(PEERS_MAX);
        picture.name(&view.me, Some(0));
        picture.answer(view.list());
        picture
    }

    /// Asks along links first, then whom the registry lists, then whoever answered before and is named by nobody now: of a network
    /// that fell apart, both parts are shown.
    fn look(&mut self) -> Look {
        let now = Instant::now();
        self.silent.retain(|_, until| *until > now);
        let resting: BTreeSet<_> = self.silent.keys().cloned().collect();
        let mut picture = self.own();
        let (dialer, known) = (self.dialer.clone(), self.session.known().clone());
        let answered = std::mem::take(&mut self.answered);
        Box::pin(async move {
            let others = |picture: &Picture| -> Vec<Contact> {
                let named = picture.peers().values().filter(|seen| seen.standing == Standing::Named);
                named.map(|seen| seen.contact.clone()).collect()
            };
            let linked = others(&picture);
            explore(&dialer, &mut picture, linked, &resting, LIMITS).await;
            let listed = known.all().into_iter().map(|peer| Contact::new(peer.id, peer.name, peer.endpoint));
            let unlinked = listed.chain(answered).filter(|contact| picture.name(contact, None)).collect();
            explore(&dialer, &mut picture, unlinked, &resting, LIMITS).await;
            picture
        })
    }

    fn looked(&mut self, picture: Picture) {
        let rested = Instant::now() + REST;
        for seen in picture.peers().values() {
            match seen.standing {
                Standing::Answers { .. } => self.answered.push(seen.contact.clone()),
                // Only when it was asked just now.
                Standing::Silent => drop(self.silent.entry(seen.contact.endpoint().clone()).or_insert(rested)),
                Standing::Named => {}
            }
        }
        let now = SystemTime::now();
        self.history.pictured(&picture, now);
        self.show(picture, Some(now));
    }

    fn look_away(&mut self) {
        self.history.look_away();
        self.dialer = Dialer::default();
        self.answered.clear();
        self.silent.clear();
    }

    fn show(&self, picture: Picture, asked_at: Option<SystemTime>) {
        let events = self.history.events().cloned().collect();
        self.network.shown.send_replace(Arc::new(Snapshot { picture, events, asked_at }));
    }

    fn show_events(&self) {
        self.network.shown.send_if_modified(|shown| {
            let events = self.history.events().cloned().collect();
            *shown = Arc::new(Snapshot { events, ..Snapshot::clone(shown) });
            true
        });
    }
}
