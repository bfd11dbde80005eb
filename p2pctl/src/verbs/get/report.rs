//! Prints the results of get and get-rfc.

use crate::{
    failure::{Failure, Outcome},
    printer::{Printer, bytes, holder, rate, span},
    progress::Display,
};
use p2pdi::{json, phrases::counted, v1::Document};
use peerd::{
    holders::announcer::ANNOUNCED_SIZE_MIN,
    transfer::{Fetched, KEPT_MAX, SourceReport, SourceTotals},
};
use serde_json::json;
use std::{io, time::Instant};

/// How the fetches ended.
#[derive(Debug, Default)]
pub(super) struct Ended {
    pub(super) interrupted: bool,
    /// A partial file has verified pieces.
    pub(super) keeps_pieces: bool,
    /// Documents that were not begun or not finished, because another one failed or the user interrupted.
    pub(super) not_tried: u64,
}

/// Results so far. Each document is printed when it is there.
pub(super) struct Report {
    printer: Printer,
    quiet: bool,
    /// The command names one document.
    is_single: bool,
    begun: Instant,
    documents: u64,
    already_there: u64,
    fetched_bytes: u64,
    /// Bytes of all documents that are there.
    bytes: u64,
    /// Documents that others can find and fetch from this program.
    shared: usize,
    sources: SourceTotals,
    failed: Vec<(String, Failure)>,
    /// Why a result could not be printed.
    unprinted: Option<io::Error>,
}

impl Report {
    pub(super) fn new(printer: Printer, quiet: bool, is_single: bool) -> Self {
        Self {
            printer,
            quiet,
            is_single,
            begun: Instant::now(),
            documents: 0,
            already_there: 0,
            fetched_bytes: 0,
            bytes: 0,
            shared: 0,
            sources: SourceTotals::default(),
            failed: Vec::new(),
            unprinted: None,
        }
    }

    /// Documents that are there.
    pub(super) fn documents(&self) -> u64 {
        self.documents
    }

    /// Their bytes.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Bytes that were fetched of them.
    pub(super) fn fetched_bytes(&self) -> u64 {
        self.fetched_bytes
    }

    /// Documents that others can find and fetch from this program, those of the limit.
    pub(super) fn shared(&self) -> usize {
        self.shared.min(KEPT_MAX)
    }

    /// Whether all results so far were printed.
    pub(super) fn is_printed(&self) -> bool {
        self.unprinted.is_none()
    }

    /// Documents that failed.
    pub(super) fn failures(&self) -> u64 {
        self.failed.len() as u64
    }

    /// A document is there.
    pub(super) fn done(&mut self, fetched: Fetched, display: &Display) {
        self.documents += 1;
        self.already_there += u64::from(fetched.already_there);
        self.fetched_bytes += fetched.fetched_bytes;
        self.bytes += fetched.document.size();
        // Nobody finds smaller ones here, and what was there already has no swarm.
        self.shared += usize::from(!fetched.already_there && fetched.document.size() >= ANNOUNCED_SIZE_MIN);
        self.sources.add(&fetched.sources);
        let (quiet, is_single) = (self.quiet, self.is_single);
        let printed = display.above(|printer| match (printer.is_json(), quiet, is_single) {
            (true, ..) => print_json(&fetched, printer),
            (false, false, true) => print_single(&fetched, printer),
            (false, ..) => printer.text(&fetched.path.display().to_string()),
        });
        if let Err(error) = printed {
            self.unprinted.get_or_insert(error);
        }
    }

    /// A document failed. It is said at once if others go on.
    pub(super) fn failed(&mut self, label: String, failure: Failure, display: &Display) {
        if !self.is_single {
            display.above(|printer| printer.note(&format!("note: {label}: {}", failure.message())));
        }
        self.failed.push((label, failure));
    }

    /// Something is not fetched at all, which is said at the end.
    pub(super) fn not_found(&mut self, label: String, failure: Failure) {
        self.failed.push((label, failure));
    }

    /// Prints the summary of several documents.
    ///
    /// # Errors
    /// When a document failed, the user interrupted, or a result could not be printed.
    pub(super) fn finish(mut self, ended: Ended) -> Outcome {
        if let Some(error) = self.unprinted {
            return Err(error.into());
        }
        if !self.is_single && !self.quiet && !self.printer.is_json() && self.documents > 0 {
            self.summary()?;
        }
        if ended.interrupted {
            let failure = Failure::interrupted();
            let kept = ended.keeps_pieces || (!self.is_single && self.documents > 0);
            return Err(if kept {
                failure.hint("verified bytes are kept; run the same command again to resume")
            } else {
                failure
            });
        }
        match (self.failed.len(), self.is_single) {
            (0, _) => Ok(()),
            (1, true) => Err(self.failed.remove(0).1),
            (count, _) => {
                let all = self.documents + count as u64 + ended.not_tried;
                let failure = Failure::of_several(format!("{count} of {} failed", counted(all, "document")), self.failed);
                Err(match ended.not_tried {
                    0 => failure,
                    left => failure.hint(format!(
                        "{} not tried or not finished; --keep-going goes on with the others after one fails",
                        were(left)
                    )),
                })
            }
        }
    }

    fn summary(&self) -> io::Result<()> {
        let fetched = self.documents - self.already_there;
        let there = format!("{} there already, verified", were(self.already_there));
        let took = self.begun.elapsed();
        let summary = format!(
            "{} fetched, {} in {}, {}",
            counted(fetched, "document"),
            bytes(self.fetched_bytes),
            span(took),
            rate(self.fetched_bytes, took)
        );
        self.printer.text(&match (fetched, self.already_there) {
            (_, 0) => format!("  {summary}"),
            (0, _) => format!("  {there}"),
            (_, _) => format!("  {summary}; {there}"),
        })?;
        self.sources.by_bytes().into_iter().try_for_each(|total| {
            let line = holder(&total.source.to_string(), total.bytes, total.faults, &total.first_fault);
            self.printer.text(&format!("  {line}"))
        })
    }
}

fn were(documents: u64) -> String {
    if documents == 1 { "1 document was".to_owned() } else { format!("{documents} documents were") }
}

/// The holders that sent something, or were dropped.
fn used(fetched: &Fetched) -> impl Iterator<Item = &SourceReport> {
    fetched.sources.iter().filter(|report| report.bytes > 0 || report.dropped.is_some())
}

fn print_json(fetched: &Fetched, printer: Printer) -> io::Result<()> {
    let source = |report: &SourceReport| {
        json!({
            "peer_name": report.source.label(),
            "endpoint": report.source.endpoint.as_str(),
            "bytes": report.bytes,
            "dropped": report.dropped,
        })
    };
    printer.json(&json!({
        "document": json::value(&Document::from(&fetched.document)),
        "path": fetched.path.to_string_lossy(),
        "already_there": fetched.already_there,
        "fetched_bytes": fetched.fetched_bytes,
        "resumed_bytes": fetched.resumed_bytes,
        "elapsed": format!("{:.6}s", fetched.elapsed.as_secs_f64()),
        "sources": used(fetched).map(source).collect::<Vec<_>>(),
    }))
}

fn print_single(fetched: &Fetched, printer: Printer) -> io::Result<()> {
    let document = &fetched.document;
    printer.text(&fetched.path.display().to_string())?;
    let number = document.number.map(|number| format!("RFC {number}: ")).unwrap_or_default();
    printer.text(&format!("  {number}{}", document.title))?;
    if fetched.already_there {
        printer.text(&format!("  {} were there already, verified", bytes(document.size())))?;
    } else {
        let resumed = match fetched.resumed_bytes {
            0 => String::new(),
            resumed => format!(", after {} from an earlier fetch", bytes(resumed)),
        };
        printer.text(&format!(
            "  {} in {}, {}{resumed}",
            bytes(fetched.fetched_bytes),
            span(fetched.elapsed),
            rate(fetched.fetched_bytes, fetched.elapsed)
        ))?;
    }
    printer.text(&format!("  b3:{}", document.hash))?;
    for report in used(fetched) {
        // It may have been asked again after that.
        let failed = report.dropped.as_ref().map(|why| format!(", last failure: {why}")).unwrap_or_default();
        printer.text(&format!("  from {}: {}{failed}", report.source, bytes(report.bytes)))?;
    }
    Ok(())
}
