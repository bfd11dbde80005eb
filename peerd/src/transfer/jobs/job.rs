//! One job: its request, its documents, and what it shows of itself.

use super::{
    items::{Items, Key, Outcome, Target},
    mirror::{Decision, take_offer},
    offers::{Chosen, Offer, with_own},
    request::JobRequest,
};
use crate::{
    documents::{
        selector::DocumentSelector,
        share::{Index, SharedDocument},
        wanted::Wanted,
    },
    holders::source::Source,
    transfer::{
        fetch::{
            progress::ProgressSnapshot,
            source_totals::{SourceTotal, SourceTotals},
        },
        rate_meter::RateMeter,
    },
};
use p2pdi::{
    backoff::Policy,
    v1::{self, JobSource, JobState},
};
use std::{
    collections::BTreeMap,
    time::{Duration, Instant, SystemTime},
};

/// Pauses between two looks for documents that match, while none does.
const LOOK: Policy = Policy { first: Duration::from_secs(1), longest: Duration::from_secs(30) };
/// A job that ran longer looks once more for documents that match before it ends: some may have appeared meanwhile.
const LOOK_AGAIN_AFTER: Duration = Duration::from_secs(5);
/// Most documents of one job. Each takes about 500 bytes while the job runs.
const DOCUMENTS_MAX: usize = 1_000_000;
/// Most sources that are listed.
const SOURCES_LISTED_MAX: usize = 100;

/// A job that has not ended.
#[derive(Debug)]
pub(super) struct Job {
    pub(super) id: u64,
    pub(super) request: JobRequest,
    pub(super) items: Items,
    pub(super) looking: Looking,
    /// What the sources of the documents did that are not under way.
    pub(super) sources: SourceTotals,
    /// What arrived of them: many small ones are under way for a moment each.
    pub(super) received: RateMeter,
    created_at: SystemTime,
    /// It began to fetch.
    begun: bool,
}

/// Whether the documents that match its patterns are known.
#[derive(Debug)]
pub(super) enum Looking {
    /// They are looked for at `at`, or are being looked for. `since`: when that began.
    Due { at: Instant, since: Instant, tries: u32, why: String },
    /// They were found at `at`. `missed`: what may be missing, and why, as text; empty: nothing.
    Found { at: Instant, missed: String },
}

impl Job {
    pub(super) fn new(id: u64, request: JobRequest, created_at: SystemTime, now: Instant) -> Self {
        let has_patterns = request.wanted.iter().any(|wanted| matches!(wanted, Wanted::Matching(_)));
        let looking = match has_patterns {
            true => Looking::Due { at: now, since: now, tries: 0, why: String::new() },
            false => Looking::Found { at: now, missed: String::new() },
        };
        Self {
            id,
            request,
            items: Items::default(),
            looking,
            sources: SourceTotals::default(),
            received: RateMeter::default(),
            created_at,
            begun: false,
        }
    }

    /// Takes over what its sources did before a restart.
    pub(super) fn restore_sources(&mut self, sources: Vec<JobSource>) {
        for JobSource { peer_name, endpoint, bytes, faults, first_fault } in sources {
            let Ok(endpoint) = endpoint.parse() else { continue };
            let source = Source::new(peer_name.parse().ok(), endpoint);
            self.sources.add_total(SourceTotal { source, bytes, faults, first_fault });
        }
    }

    /// Adds the documents that are named one by one. `known`: size and holders of what a selector selects, where they are known.
    pub(super) fn add_named(&mut self, index: &Index, known: impl Fn(&DocumentSelector) -> Option<Offer>, now: Instant) {
        for wanted in self.request.wanted.clone() {
            let Wanted::One(selector) = wanted else { continue };
            let offer = known(&selector);
            let own = match &selector {
                DocumentSelector::Hash(hash) => index.by_hash(hash).first(),
                DocumentSelector::Number(number) => index.by_number(*number).first(),
                DocumentSelector::Name(name) => index.by_name(name.as_str()),
            };
            let save_as = match (&selector, own) {
                // A fetched file that is replaced keeps its name.
                (DocumentSelector::Name(_), Some(own)) => Some(own.name.clone()),
                _ => None,
            };
            let key = key_of(&selector);
            let target = Target {
                label: selector.to_string(),
                save_as,
                size: offer.as_ref().map_or(0, |offer| offer.document.size()),
                // Which content a name or a number has is settled among all holders.
                holders: match (&selector, &offer) {
                    (DocumentSelector::Hash(_), Some(offer)) => offer.holders.clone(),
                    _ => Vec::new(),
                },
                modified: None,
                restricted: offer.as_ref().is_some_and(|offer| offer.document.restricted),
                found_by: None,
                selector,
            };
            let decision = match (&target.selector, own) {
                // What others have under the name of a file that is there is asked before it is fetched.
                (DocumentSelector::Name(_), _) | (_, None) => Decision::Fetch,
                (_, Some(own)) => Decision::Present(own.size),
            };
            decision.apply(&mut self.items, key, target, now);
        }
    }

    /// Takes the documents that match its patterns. `asked`: whom they come from, and `missed`: what may be missing, both as text.
    pub(super) fn add_found(
        &mut self,
        offers: BTreeMap<Key, Chosen>,
        (asked, missed): (&str, String),
        index: &Index,
        fetched: impl Fn(&SharedDocument) -> bool,
        now: Instant,
    ) {
        let matches = self.request.matcher();
        let own = |own: &&std::sync::Arc<SharedDocument>| matches(&own.name);
        let (mut found, offers) = (0_usize, with_own(offers, index));
        for own in index.documents().iter().filter(own).filter(|own| !offers.contains_key(own.name.as_str())) {
            found += 1;
            let target = Target {
                selector: DocumentSelector::Hash(own.hash),
                save_as: Some(own.name.clone()),
                label: own.name.to_string(),
                size: own.size,
                holders: Vec::new(),
                modified: None,
                restricted: false,
                found_by: None,
            };
            self.items.settle(own.name.as_str().into(), target, Outcome::Present(own.size), now);
        }
        for (key, (offer, own)) in offers.into_iter().take(DOCUMENTS_MAX) {
            found += 1;
            let offer = match offer {
                Ok(offer) => offer,
                Err(why) => {
                    let target = Target {
                        // Not fetched: only its name is shown.
                        selector: DocumentSelector::Number(0),
                        save_as: None,
                        label: key.to_string(),
                        size: 0,
                        holders: Vec::new(),
                        modified: None,
                        restricted: false,
                        found_by: None,
                    };
                    self.items.settle(key, target, Outcome::Failed(why), now);
                    continue;
                }
            };
            take_offer(&mut self.items, key, (offer, own), &fetched, false, now);
        }
        self.looking = match &self.looking {
            Looking::Due { since, tries, .. } if found == 0 => Looking::Due {
                at: now + LOOK.pause(*tries),
                since: *since,
                tries: tries.saturating_add(1),
                why: [format!("no document matches {}", self.request.raw.wanted.join(" ")), asked.to_owned(), missed]
                    .into_iter()
                    .filter(|part| !part.is_empty())
                    .collect::<Vec<_>>()
                    .join("; "),
            },
            _ => Looking::Found { at: now, missed },
        };
    }

    /// Looks soon, if nothing matched so far: peers appeared.
    pub(super) fn look_early(&mut self, now: Instant) {
        if let Looking::Due { at, why, .. } = &mut self.looking
            && !why.is_empty()
        {
            *at = (*at).min(now + LOOK.first);
        }
    }

    /// Whether the documents that match are to be looked for now.
    pub(super) fn must_look(&self, now: Instant) -> bool {
        matches!(&self.looking, Looking::Due { at, .. } if *at <= now)
    }

    /// How the job ends, if it ends now: state, and why it failed.
    pub(super) fn end(&mut self, now: Instant) -> Option<(JobState, String)> {
        match &self.looking {
            Looking::Due { since, why, .. } => {
                let patience =
                    self.request.wait_for_holders.filter(|patience| now.saturating_duration_since(*since) >= *patience)?;
                (!why.is_empty()).then(|| (JobState::Failed, format!("{why}; waited {} s", patience.as_secs())))
            }
            Looking::Found { .. } if !self.items.ended() => None,
            Looking::Found { at, missed } => {
                let has_patterns = self.request.wanted.iter().any(|wanted| matches!(wanted, Wanted::Matching(_)));
                if has_patterns && now.saturating_duration_since(*at) > LOOK_AGAIN_AFTER {
                    self.looking = Looking::Due { at: now, since: now, tries: 0, why: String::new() };
                    return None;
                }
                Some(match (self.items.failed(), self.items.len()) {
                    (0, _) => (JobState::Done, missed.clone()),
                    (1, 1) => (JobState::Failed, self.items.failures().pop().map(|failed| failed.why).unwrap_or_default()),
                    (failed, all) => (JobState::Failed, format!("{failed} of {all} documents could not be fetched")),
                })
            }
        }
    }

    pub(super) fn begin(&mut self) {
        self.begun = true;
    }

    /// The job as others see it. `running`: the progress of its documents under way; `sources`: what the sources of these did.
    pub(super) fn show(&self, running: &[ProgressSnapshot], sources: SourceTotals, now: Instant) -> v1::Job {
        let (state, detail) = self.state(now);
        let holders: std::collections::BTreeSet<&str> =
            running.iter().flat_map(|progress| &progress.holders).map(|holder| source_key(&holder.source)).collect();
        let mut all = self.sources.clone();
        all.merge(sources);
        let verified: u64 = running.iter().map(|progress| progress.verified).sum();
        v1::Job {
            id: self.id.to_string(),
            wanted: self.request.raw.wanted.clone(),
            priority: self.request.priority.into(),
            state: state.into(),
            detail,
            created_at: Some(self.created_at.into()),
            ended_at: None,
            documents: self.items.len() as u64,
            documents_done: self.items.present() as u64,
            bytes: self.items.bytes(),
            bytes_done: self.items.present_bytes().saturating_add(verified).min(self.items.bytes().max(verified)),
            bytes_per_second: running.iter().map(|progress| progress.bytes_per_second).sum::<u64>()
                + self.received.clone().rate(now),
            holders: u32::try_from(holders.len()).unwrap_or(u32::MAX),
            failed: self.items.failures(),
            sources: all.by_bytes().into_iter().take(SOURCES_LISTED_MAX).map(shown).collect(),
        }
    }

    fn state(&self, now: Instant) -> (JobState, String) {
        let since = |since: Instant| now.saturating_duration_since(since).as_secs();
        let waits = self.items.longest_wait().map(|(why, at)| format!("{why}; waited {} s so far", since(at)));
        if self.items.running() > 0 {
            return (JobState::Running, waits.unwrap_or_default());
        }
        match &self.looking {
            Looking::Due { since: at, why, .. } if !why.is_empty() => {
                (JobState::Waiting, format!("{why}; waited {} s so far", since(*at)))
            }
            Looking::Due { .. } if self.begun => (JobState::Running, "looking for documents that match".to_owned()),
            _ if self.items.waiting() > 0
                && self.items.waiting() + self.items.present() + self.items.failed() == self.items.len() =>
            {
                (JobState::Waiting, waits.unwrap_or_default())
            }
            _ if self.begun => (JobState::Running, waits.unwrap_or_default()),
            _ => (JobState::Queued, "other jobs run first".to_owned()),
        }
    }
}

/// The key of a document that is named by itself. Names have no `:`, so the others differ from them.
fn key_of(selector: &DocumentSelector) -> Key {
    match selector {
        DocumentSelector::Name(name) => name.as_str().into(),
        DocumentSelector::Number(number) => format!("rfc:{number}").into(),
        DocumentSelector::Hash(hash) => format!("b3:{hash}").into(),
    }
}

fn shown(total: &SourceTotal) -> JobSource {
    JobSource {
        peer_name: total.source.name.as_ref().map(ToString::to_string).unwrap_or_default(),
        endpoint: total.source.endpoint.to_string(),
        bytes: total.bytes,
        faults: total.faults,
        first_fault: total.first_fault.clone(),
    }
}

fn source_key(source: &Source) -> &str {
    source.endpoint.as_str()
}
