//! get-rfc and get: fetches a document, verified, into a folder.

use crate::{
    args::{DocumentRef, Fetching, Get, GetRfc, Global},
    failure::{Failure, Outcome},
    printer::{Printer, bytes, rate, span},
    registry_client::{Leaving, RegistrySession, direct},
    via,
};
use indicatif::{ProgressBar, ProgressFinish, ProgressStyle};
use p2pdi::{endpoint::Endpoint, json, phrases::counted, v1::Document};
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::{search::SearchError, source::Source},
    transfer::{
        FetchOptions, Fetched, Progress,
        fetch::job::{FetchEvent, FetchJob, FetchRequest, FetchWatch, FindPeers, JobError, PeerSample},
    },
};
use serde_json::json;
use std::{path::PathBuf, sync::Arc, time::Duration};
use tokio::{sync::Mutex, time::sleep};

/// Its numbers fit 40 columns; a line that wraps leaves a part behind at each redraw.
const BAR: &str = "{wide_bar} {percent:>3}%  {binary_bytes_per_sec}  {eta}";
/// How often the progress bar is drawn.
const DRAW_INTERVAL: Duration = Duration::from_millis(100);

pub(super) async fn get_rfc(global: &Global, channels: &ChannelPool, args: GetRfc, printer: Printer) -> Outcome {
    get_wanted(global, channels, DocumentSelector::Number(args.number), args.fetching, printer).await
}

pub(super) async fn get(global: &Global, channels: &ChannelPool, args: Get, printer: Printer) -> Outcome {
    let wanted = match args.document {
        DocumentRef::Name(name) => DocumentSelector::Name(name),
        DocumentRef::Hash(hash) => DocumentSelector::Hash(hash),
    };
    get_wanted(global, channels, wanted, args.fetching, printer).await
}

async fn get_wanted(
    global: &Global,
    channels: &ChannelPool,
    wanted: DocumentSelector,
    fetching: Fetching,
    printer: Printer,
) -> Outcome {
    let peers = Arc::new(Peers {
        session: Mutex::default(),
        registry: global.registry.clone(),
        state: global.state.clone(),
        leaving: global.leaving.clone(),
        via: fetching.via.via.clone(),
        channels: channels.clone(),
    });
    let from = peers.find_all(&fetching.from).await?;
    let options = FetchOptions { out: fetching.out, save_as: None, replace: fetching.force, stall: fetching.stall_timeout };
    let request = FetchRequest { wanted: wanted.clone(), from, options };
    let (job, mut watch) = FetchJob::new(request, channels.clone(), Arc::clone(&peers));
    // Dropped when the verb is cancelled; a spawned job could outlive the registry session's end.
    let (fetched, ()) = tokio::join!(Box::pin(job.run()), show(&mut watch, &wanted, printer));
    let fetched = fetched.map_err(|error| match error {
        JobError::Search(SearchError::Peers(failure)) => failure,
        JobError::Search(SearchError::NoPeers { wanted }) => {
            Failure::refused(format!("nobody has {wanted}: no peers are registered with {}", peers.registry))
                .hint("start one with `peerd --share DIR`")
        }
        JobError::Search(error @ SearchError::NotFound { .. }) => Failure::refused(error.to_string()),
        JobError::Search(SearchError::Ambiguous { wanted, found }) => Failure::ambiguous(&wanted, &found),
        JobError::Fetch(error) => error.into(),
    });
    print(&fetched?, printer)
}

/// The peers to ask: those of the registry, or of the peer of --via. The registry is joined when it is first needed.
struct Peers {
    session: Mutex<Option<RegistrySession>>,
    registry: Endpoint,
    state: Option<PathBuf>,
    leaving: Leaving,
    via: Option<Endpoint>,
    channels: ChannelPool,
}

impl Peers {
    /// The peers with these names or addresses.
    async fn find_all(&self, peers: &[String]) -> Outcome<Vec<Source>> {
        let mut found = Vec::new();
        for peer in peers {
            found.push(match (direct(peer), &self.via) {
                (Some(direct), _) => direct,
                (None, Some(via)) => via::find(&self.channels, via, peer).await?,
                (None, None) => self.with_session(async |session| session.find(peer).await).await?,
            });
        }
        Ok(found)
    }

    async fn with_session<T>(&self, call: impl AsyncFnOnce(&mut RegistrySession) -> Outcome<T>) -> Outcome<T> {
        let mut session = self.session.lock().await;
        let session = match &mut *session {
            Some(session) => session,
            none => none.insert(RegistrySession::connect(&self.registry, self.state.as_deref(), &self.leaving).await?),
        };
        call(session).await
    }
}

impl FindPeers for Peers {
    type Error = Failure;

    async fn sample(&self, count: usize) -> Outcome<PeerSample> {
        match &self.via {
            Some(via) => via::sample(&self.channels, via, count).await,
            None => self.with_session(async |session| session.sample(count).await).await,
        }
    }
}

/// Shows the job's events, and a progress bar if stderr is a terminal, until the job ends.
async fn show(watch: &mut FetchWatch, wanted: &DocumentSelector, printer: Printer) {
    let mut bar: Option<ProgressBar> = None;
    loop {
        tokio::select! {
            event = watch.event() => {
                // A note would be overwritten by the bar.
                bar = None;
                match event {
                    Some(FetchEvent::Chosen { chosen }) => printer.note(&format!(
                        "note: {} different documents are called {wanted}; fetching the one that {} of {} have, {} b3:{}",
                        chosen.contents,
                        chosen.votes,
                        counted(chosen.all_votes as u64, "peer"),
                        chosen.found.document.name,
                        chosen.found.document.hash
                    )),
                    Some(FetchEvent::Changed { now, .. }) => printer.note(&format!(
                        "note: {wanted} changed since it was searched for; fetching what it is now, b3:{}", now.hash
                    )),
                    Some(_) => {}
                    None => return,
                }
            }
            () = sleep(DRAW_INTERVAL), if printer.is_watched() => draw(&mut bar, watch.progress()),
        }
    }
}

fn draw(bar: &mut Option<ProgressBar>, progress: &Progress) {
    if progress.size() == 0 {
        return;
    }
    let bar = bar.get_or_insert_with(|| {
        let style = ProgressStyle::with_template(BAR).unwrap_or_else(|_| ProgressStyle::default_bar());
        let bar = ProgressBar::new(progress.size()).with_style(style).with_finish(ProgressFinish::AndClear);
        // Bytes of an earlier fetch count as done, not as speed.
        bar.reset_elapsed();
        bar.set_position(progress.verified());
        bar.reset_eta();
        bar
    });
    bar.set_length(progress.size());
    bar.set_position(progress.verified());
}

fn print(fetched: &Fetched, printer: Printer) -> Outcome {
    let document = &fetched.document;
    let used: Vec<_> = fetched.sources.iter().filter(|report| report.bytes > 0 || report.dropped.is_some()).collect();
    if printer.is_json() {
        let sources: Vec<_> = used
            .iter()
            .map(|report| {
                json!({
                    "peer_name": report.source.label(),
                    "endpoint": report.source.endpoint.as_str(),
                    "bytes": report.bytes,
                    "dropped": report.dropped,
                })
            })
            .collect();
        printer.json(&json!({
            "document": json::value(&Document::from(document)),
            "path": fetched.path.to_string_lossy(),
            "already_there": fetched.already_there,
            "fetched_bytes": fetched.fetched_bytes,
            "resumed_bytes": fetched.resumed_bytes,
            "elapsed": format!("{:.6}s", fetched.elapsed.as_secs_f64()),
            "sources": sources,
        }))?;
        return Ok(());
    }
    printer.text(&fetched.path.display().to_string())?;
    let number = document.number.map(|number| format!("RFC {number}: ")).unwrap_or_default();
    printer.text(&format!("  {number}{}", document.title))?;
    if fetched.already_there {
        printer.text(&format!("  {} were there already, verified", bytes(document.size())))?;
    } else {
        let resumed = if fetched.resumed_bytes > 0 {
            format!(", after {} from an earlier fetch", bytes(fetched.resumed_bytes))
        } else {
            String::new()
        };
        printer.text(&format!(
            "  {} in {}, {}{resumed}",
            bytes(fetched.fetched_bytes),
            span(fetched.elapsed),
            rate(fetched.fetched_bytes, fetched.elapsed)
        ))?;
    }
    printer.text(&format!("  b3:{}", document.hash))?;
    for report in used {
        let dropped = report.dropped.as_ref().map(|why| format!(", dropped: {why}")).unwrap_or_default();
        printer.text(&format!("  from {}: {}{dropped}", report.source, bytes(report.bytes)))?;
    }
    Ok(())
}
