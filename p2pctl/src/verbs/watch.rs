//! peers --watch: who joins, changes and leaves, until Ctrl-C.

use crate::{
    args::{Global, Pquery},
    call::CALL_TIMEOUT,
    failure::{Failure, Outcome},
    printer::Printer,
    registry_client::RegistrySession,
};
use p2pdi::{
    backoff::Backoff,
    json,
    phrases::counted,
    selector::{NamePattern, validate_labels},
    status::{self, Reason},
    v1::{KeepAliveRequest, PeerEvent, PeerGone, PeerRecord, WatchPeersRequest, WatchPeersResponse, peer_event::Change},
};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

/// How often the lease is extended: three times in the shortest usual ttl. The registry's own interval comes with the first answer.
const KEEP_ALIVE_DEFAULT: Duration = Duration::from_secs(1);
/// A watch that says nothing for so long is begun anew: the registry gives a sign of life every 15 s.
const SILENCE_MAX: Duration = Duration::from_secs(60);

/// Prints changes until Ctrl-C, its normal end.
pub(super) async fn watch(global: &Global, args: Pquery, printer: Printer, stop: CancellationToken) -> Outcome {
    tokio::select! {
        ended = follow(global, args, printer) => ended,
        () = stop.cancelled() => Ok(()),
    }
}

async fn follow(global: &Global, args: Pquery, printer: Printer) -> Outcome {
    let labels: BTreeMap<_, _> = args.labels.into_iter().collect();
    validate_labels(&labels)?;
    let pattern = NamePattern::parse(&args.name.unwrap_or_default())?;
    let mut view = View {
        printer,
        pattern,
        labels,
        shown: BTreeMap::new(),
        relisted: None,
        revision: args.since_revision.unwrap_or(0),
        listed: false,
    };
    // An observer of its own: the lease of the name that `register` took is its user's to extend.
    let mut session = RegistrySession::new(&global.access(), None);
    session.observe().await?;
    let mut backoff = Backoff::default();
    let mut stream = begin(&mut session, view.revision).await?;
    loop {
        let ended = tokio::select! {
            ended = read(&mut stream, &mut view) => ended?,
            ended = keep_alive(&mut session) => ended,
        };
        if view.listed {
            backoff.reset();
            view.listed = false;
        }
        if Reason::of(&ended) != Some(Reason::Lagged) {
            printer.note(&format!("note: the watch ended ({}); trying again", status::describe(&ended)));
            sleep(backoff.next(rand::random())).await;
        }
        stream = loop {
            match begin(&mut session, view.revision).await {
                Ok(stream) => break stream,
                Err(failure) if failure.is_reason(Reason::CookieUnknown) || failure.is_reason(Reason::LeaseExpired) => {
                    // Also when it can: replicas that do not know each other's observers would be asked without a pause.
                    sleep(backoff.next(rand::random())).await;
                    if let Err(failure) = session.observe().await {
                        tracing::debug!(?failure, "cannot register as an observer again");
                    }
                }
                Err(failure) => {
                    tracing::debug!(?failure, "cannot watch");
                    sleep(backoff.next(rand::random())).await;
                }
            }
        };
    }
}

async fn begin(session: &mut RegistrySession, since_revision: u64) -> Outcome<Streaming<WatchPeersResponse>> {
    let watch = WatchPeersRequest { since_revision };
    session.call(watch, |mut client, request| async move { client.watch_peers(request).await }).await
}

/// Shows what the stream tells. Gives why it ended.
async fn read(stream: &mut Streaming<WatchPeersResponse>, view: &mut View) -> Outcome<Status> {
    loop {
        match timeout(SILENCE_MAX, stream.message()).await {
            Ok(Ok(Some(message))) => view.show(&message)?,
            Ok(Ok(None)) => return Ok(Status::unavailable("the registry ended it")),
            Ok(Err(status)) => return Ok(status),
            Err(_) => return Ok(Status::deadline_exceeded("the registry says nothing")),
        }
    }
}

/// Extends the lease. Gives why it is over.
async fn keep_alive(session: &mut RegistrySession) -> Status {
    let mut interval = KEEP_ALIVE_DEFAULT;
    loop {
        sleep(interval).await;
        let mut client = session.client().clone();
        match timeout(CALL_TIMEOUT, client.keep_alive(session.request(KeepAliveRequest::default()))).await {
            Ok(Ok(answer)) => {
                let given = answer.into_inner().keep_alive_interval.and_then(|given| Duration::try_from(given).ok());
                interval = given.map_or(KEEP_ALIVE_DEFAULT, |given| given.max(KEEP_ALIVE_DEFAULT / 4));
            }
            Ok(Err(status)) if matches!(Reason::of(&status), Some(Reason::CookieUnknown | Reason::LeaseExpired)) => {
                return status;
            }
            // The stream tells when the registry is away.
            Ok(Err(_)) | Err(_) => interval = KEEP_ALIVE_DEFAULT,
        }
    }
}

/// What is shown, and of whom.
struct View {
    printer: Printer,
    pattern: Option<NamePattern>,
    labels: BTreeMap<String, String>,
    /// Peers that were shown as active, by their names in lower case.
    shown: BTreeMap<String, PeerRecord>,
    /// While the registry lists all peers anew: those of the list so far.
    relisted: Option<BTreeSet<String>>,
    revision: u64,
    /// The list, or what changed meanwhile, has been shown.
    listed: bool,
}

impl View {
    fn show(&mut self, message: &WatchPeersResponse) -> Outcome {
        if message.start_over {
            if self.shown.is_empty() {
                self.printer.note("note: the registry does not remember that revision; the whole list follows");
            }
            self.relisted = Some(BTreeSet::new());
        }
        let unreadable = |error| Failure::refused(format!("the registry told of a change that cannot be read: {error}"));
        for event in message.events().map_err(unreadable)? {
            self.show_event(event)?;
        }
        if message.revision > 0 {
            self.revision = message.revision;
        }
        if message.caught_up {
            let listed = self.relisted.take();
            let gone: Vec<_> =
                self.shown.iter().filter(|(key, _)| listed.as_ref().is_some_and(|listed| !listed.contains(*key))).collect();
            let gone: Vec<_> = gone.into_iter().map(|(_, peer)| self::gone(peer.clone(), message.revision)).collect();
            for gone in gone {
                self.show_event(PeerEvent { change: Some(Change::Left(gone)) })?;
            }
            self.listed = true;
            let count = counted(self.shown.len() as u64, "active peer");
            self.printer.note(&format!("{count} at revision {}; Ctrl-C ends it", self.revision));
        }
        Ok(())
    }

    fn show_event(&mut self, event: PeerEvent) -> Outcome {
        let Some(change) = event.change else { return Ok(()) };
        let is_filtered = self.pattern.is_some() || !self.labels.is_empty();
        let change = match change {
            // To who asks for these peers, one that is not among them any more has left.
            Change::Joined(peer) | Change::Changed(peer) if !self.selects(&peer) => {
                let revision = peer.revision;
                Change::Left(gone(peer, revision))
            }
            change => change,
        };
        let text = match &change {
            Change::Joined(peer) => format!("joined   {}", details(peer)),
            Change::Changed(peer) => format!("changed  {}", details(peer)),
            Change::Left(gone) => format!("left     {}", gone.name),
        };
        match &change {
            Change::Joined(peer) | Change::Changed(peer) => {
                let key = peer.name.to_ascii_lowercase();
                let is_listed_again = self.relisted.as_mut().is_some_and(|listed| listed.insert(key.clone()));
                let before = self.shown.insert(key, peer.clone());
                if is_listed_again
                    && before.is_some_and(|before| before.endpoint == peer.endpoint && before.labels == peer.labels)
                {
                    return Ok(());
                }
            }
            Change::Left(gone) if self.shown.remove(&gone.name.to_ascii_lowercase()).is_none() && is_filtered => return Ok(()),
            Change::Left(_) => {}
        }
        match self.printer.is_json() {
            true => self.printer.json(&json::value(&PeerEvent { change: Some(change) }))?,
            false => self.printer.text(&text)?,
        }
        Ok(())
    }

    fn selects(&self, peer: &PeerRecord) -> bool {
        self.pattern.as_ref().is_none_or(|pattern| pattern.matches(&peer.name))
            && self.labels.iter().all(|(key, value)| peer.labels.get(key) == Some(value))
    }
}

fn gone(peer: PeerRecord, revision: u64) -> PeerGone {
    PeerGone { id: peer.id, name: peer.name, revision }
}

fn details(peer: &PeerRecord) -> String {
    let labels: Vec<_> = peer.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{} at {} {}", peer.name, peer.endpoint, labels.join(",")).trim_end().to_owned()
}
