//! get-rfc and get: a document, verified, into a folder.

use crate::{
    args::{DocumentRef, Fetching, Get, GetRfc, Global},
    failure::{Failure, Outcome},
    printer::{Printer, bytes, rate, span},
    registry_client::{RegistrySession, direct},
    via,
};
use indicatif::{ProgressBar, ProgressStyle};
use p2pdi::{content::ContentHash, endpoint::Endpoint, json, v1::Document};
use peerd::{
    connections::channels::ChannelPool,
    documents::selector::DocumentSelector,
    holders::{
        search::{Found, ask, query_for},
        source::Source,
    },
    transfer::{FetchError, FetchOptions, Fetched, FindHolders, Progress, fetch},
};
use serde_json::json;
use std::{convert::Infallible, path::PathBuf, sync::Arc, time::Duration};
use tokio::sync::Mutex;

/// How often a progress bar is drawn.
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
    let finder = Finder {
        registry: Mutex::new(Registry { session: None }),
        state: global.state.clone(),
        global,
        via: fetching.via.via.clone(),
        channels: channels.clone(),
    };
    let fetched = finder.fetch(wanted, &fetching, printer).await;
    print(&fetched?, printer)
}

/// Finds holders through the registry, which is joined when it is first needed: peers named by their address need none.
struct Finder<'a> {
    registry: Mutex<Registry>,
    state: Option<PathBuf>,
    global: &'a Global,
    /// Asked in the registry's place.
    via: Option<Endpoint>,
    channels: ChannelPool,
}

struct Registry {
    session: Option<RegistrySession>,
}

impl Finder<'_> {
    async fn fetch(&self, asked: DocumentSelector, fetching: &Fetching, printer: Printer) -> Outcome<Fetched> {
        let options =
            FetchOptions { out: fetching.out.clone(), save_as: None, replace: fetching.force, stall: fetching.stall_timeout };
        if !fetching.from.is_empty() {
            let sources = self.named(&fetching.from).await?;
            return Ok(self.watched(&asked, sources, &options, printer).await?);
        }
        let mut candidates = self.search(&asked, printer).await?.into_iter().peekable();
        let mut failed = None;
        while let Some(Found { document, holders, .. }) = candidates.next() {
            // The name it was found by: the first holder asked may have the same content under another one.
            let options = FetchOptions { save_as: Some(document.name), ..options.clone() };
            match self.watched(&DocumentSelector::Hash(document.hash), holders, &options, printer).await {
                // The user asked for a number or a name, not for the hash it was found to be.
                Err(FetchError::Sources { sources, kept_bytes, .. }) => {
                    let error = Failure::from(FetchError::Sources { wanted: asked.clone(), sources, kept_bytes });
                    if candidates.peek().is_some() {
                        printer.note(&format!("note: that one cannot be had, trying the next; {error}"));
                    }
                    failed = Some(error);
                }
                fetched => return Ok(fetched?),
            }
        }
        Err(failed.unwrap_or_else(|| Failure::refused(format!("nobody has {asked}"))))
    }

    /// One fetch, with a progress bar where somebody watches.
    async fn watched(
        &self,
        wanted: &DocumentSelector,
        sources: Vec<Source>,
        options: &FetchOptions,
        printer: Printer,
    ) -> Result<Fetched, FetchError> {
        let progress = Arc::new(Progress::default());
        // Boxed: a fetch carries the state of a piece's hash, which is large.
        let fetching = Box::pin(fetch(&self.channels, wanted, sources, self, options, &progress));
        if !printer.is_watched() {
            return fetching.await;
        }
        tokio::select! {
            fetched = fetching => fetched,
            never = draw(&progress) => match never {},
        }
    }

    async fn named(&self, names: &[String]) -> Outcome<Vec<Source>> {
        let mut sources = Vec::new();
        for name in names {
            sources.push(match (direct(name), &self.via) {
                (Some(direct), _) => direct,
                (None, Some(via)) => via::find(&self.channels, via, name).await?,
                (None, None) => self.with_member(async |session| session.find(name).await).await?,
            });
        }
        Ok(sources)
    }

    /// Asks all peers. Of several contents of one number or name, the one that most peers hold themselves comes first.
    async fn search(&self, wanted: &DocumentSelector, printer: Printer) -> Outcome<Vec<Found>> {
        let peers = self.peers().await?;
        if peers.is_empty() {
            return Err(Failure::refused(format!("nobody has {wanted}: no peers are registered with {}", self.global.registry))
                .hint("start one with `peerd --share DIR`"));
        }
        let answers = ask(&self.channels, &peers, &query_for(wanted)).await;
        let Some(best) = answers.found.first() else {
            return Err(Failure::refused(format!("nobody has {wanted}; {}", answers.summary())));
        };
        if answers.found.len() > 1 {
            printer.note(&format!(
                "note: {} different documents are called {wanted}; taking the one that most peers hold, {} b3:{}",
                answers.found.len(),
                best.document.name,
                best.document.hash
            ));
        }
        Ok(answers.found)
    }

    /// Peers to ask.
    async fn peers(&self) -> Outcome<Vec<Source>> {
        match &self.via {
            Some(via) => via::sources(&self.channels, via).await,
            None => self.with_member(async |session| session.sources().await).await,
        }
    }

    async fn with_member<T>(&self, call: impl AsyncFnOnce(&mut RegistrySession) -> Outcome<T>) -> Outcome<T> {
        let mut registry = self.registry.lock().await;
        let session = match &mut registry.session {
            Some(session) => session,
            none => {
                none.insert(RegistrySession::connect(&self.global.registry, self.state.as_deref(), &self.global.leaving).await?)
            }
        };
        call(session).await
    }
}

impl FindHolders for Finder<'_> {
    async fn holders(&self, hash: ContentHash) -> Vec<Source> {
        match self.peers().await {
            Ok(peers) => {
                let answers = ask(&self.channels, &peers, &query_for(&DocumentSelector::Hash(hash))).await;
                answers.found.into_iter().flat_map(|found| found.holders).collect()
            }
            Err(failure) => {
                tracing::info!(%failure, "cannot look for further holders");
                Vec::new()
            }
        }
    }
}

/// Draws until it is dropped; nothing for what takes no time.
async fn draw(progress: &Progress) -> Infallible {
    let template = "{wide_bar} {binary_bytes} of {binary_total_bytes}  {binary_bytes_per_sec}  {eta}";
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    let mut bar: Option<ProgressBar> = None;
    loop {
        tokio::time::sleep(DRAW_INTERVAL).await;
        if progress.size() == 0 {
            continue;
        }
        let bar = bar.get_or_insert_with(|| {
            let bar =
                ProgressBar::new(progress.size()).with_style(style.clone()).with_finish(indicatif::ProgressFinish::AndClear);
            // What an earlier fetch left counts as done, not as speed.
            bar.reset_elapsed();
            bar.set_position(progress.verified());
            bar.reset_eta();
            bar
        });
        bar.set_position(progress.verified());
    }
}

fn print(fetched: &Fetched, printer: Printer) -> Outcome {
    let document = &fetched.document;
    let used: Vec<_> = fetched.sources.iter().filter(|report| report.bytes > 0 || report.dropped.is_some()).collect();
    if printer.is_json() {
        let sources: Vec<_> = used
            .iter()
            .map(|report| {
                json!({
                    "peer_name": report.source.name,
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
