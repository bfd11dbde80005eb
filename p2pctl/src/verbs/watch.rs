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
    v1::{KeepAliveRequest, PeerEvent, PeerRecord, WatchPeersRequest, WatchPeersResponse, peer_event::Change},
    watched_peers::WatchedPeers,
};
use std::{collections::BTreeMap, time::Duration};
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
    let peers = WatchedPeers::new(args.since_revision.unwrap_or(0), pattern, labels);
    let mut view = View { printer, peers, listed: false };
    // An observer of its own: the lease of the name that `register` took is its user's to extend.
    let mut session = RegistrySession::new(&global.access(), None);
    session.observe().await?;
    let mut backoff = Backoff::default();
    let mut stream = begin(&mut session, view.peers.revision()).await?;
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
            match begin(&mut session, view.peers.revision()).await {
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

/// What is shown.
struct View {
    printer: Printer,
    peers: WatchedPeers,
    /// The list, or what changed meanwhile, has been shown.
    listed: bool,
}

impl View {
    fn show(&mut self, message: &WatchPeersResponse) -> Outcome {
        if message.start_over && self.peers.count() == 0 {
            self.printer.note("note: the registry does not remember that revision; the whole list follows");
        }
        let unreadable = |error| Failure::refused(format!("the registry told of a change that cannot be read: {error}"));
        for change in self.peers.take(message).map_err(unreadable)? {
            self.show_change(change)?;
        }
        if message.caught_up {
            self.listed = true;
            let count = counted(self.peers.count() as u64, "active peer");
            self.printer.note(&format!("{count} at revision {}; Ctrl-C ends it", self.peers.revision()));
        }
        Ok(())
    }

    fn show_change(&self, change: Change) -> Outcome {
        let text = match &change {
            Change::Joined(peer) => format!("joined   {}", details(peer)),
            Change::Changed(peer) => format!("changed  {}", details(peer)),
            Change::Left(gone) => format!("left     {}", gone.name),
        };
        match self.printer.is_json() {
            true => self.printer.json(&json::value(&PeerEvent { change: Some(change) }))?,
            false => self.printer.text(&text)?,
        }
        Ok(())
    }
}

fn details(peer: &PeerRecord) -> String {
    let labels: Vec<_> = peer.labels.iter().map(|(key, value)| format!("{key}={value}")).collect();
    format!("{} at {} {}", peer.name, peer.endpoint, labels.join(",")).trim_end().to_owned()
}
