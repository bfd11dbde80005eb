//! Finds out which documents several names, hashes and patterns select, and who has them.

use super::{entry::Entry, run::chosen_note, setting::Setting};
use crate::failure::{Failure, Outcome};
use alphanumeric_sort::compare_str;
use p2pdi::phrases::first_of;
use peerd::{
    documents::{pattern::PatternSet, selector::DocumentSelector, wanted::Wanted},
    holders::{
        listing::{ListingFilter, Offer, Offers, shared_by},
        search::{Found, Freshness, HolderSearch, ask},
        settlement::{Settlement, settle},
    },
};
use std::{collections::BTreeMap, sync::Arc};

/// Peers named that did not answer; of more, the count is given.
const SILENT_SHOWN_MAX: usize = 8;

/// The documents to fetch.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Each name once, in order.
    pub(super) entries: Vec<Entry>,
    /// What nobody has, or is ambiguous. Empty unless --keep-going is given.
    pub(super) failed: Vec<(String, Failure)>,
    /// What the user should know.
    pub(super) notes: Vec<String>,
}

impl Selection {
    /// One document.
    pub(super) fn of(entry: Entry) -> Self {
        Self { entries: vec![entry], ..Self::default() }
    }

    /// Something is not found, or ambiguous.
    fn fail(&mut self, setting: &Setting, what: String, failure: Failure) -> Outcome {
        if !setting.fetching.keep_going {
            return Err(failure);
        }
        self.failed.push((what, failure));
        Ok(())
    }
}

/// Asks the peers for all that is wanted.
///
/// # Errors
/// When there is nobody to ask, or something is not found and --keep-going is not given.
pub(super) async fn select(setting: &Setting, wanted: &[Wanted], choice: &PatternSet) -> Outcome<Selection> {
    let mut selection = Selection::default();
    let mut by_name = BTreeMap::new();
    for one in wanted {
        let entries = match one {
            Wanted::One(selector) => match find(setting, selector, &mut selection.notes).await {
                Ok(entry) => vec![entry],
                Err(failure) => {
                    selection.fail(setting, one.to_string(), failure)?;
                    continue;
                }
            },
            Wanted::Matching(pattern) => {
                let peers = if setting.from.is_empty() {
                    let sample = setting.peers.all().await?;
                    let missing = sample.missing().map(|missing| format!("note: {missing}"));
                    // Once for all patterns.
                    let is_new = missing.as_ref().is_some_and(|missing| !selection.notes.contains(missing));
                    selection.notes.extend(missing.filter(|_| is_new));
                    sample.peers
                } else {
                    setting.from.clone()
                };
                let filter = ListingFilter::of_pattern(Some(pattern.clone()));
                let offers = shared_by(&setting.channels, peers, &filter).await;
                matching(setting, one, offers, choice, &mut selection)?
            }
        };
        by_name.extend(entries.into_iter().map(|entry| (entry.label(), entry)));
    }
    selection.entries = by_name.into_values().collect();
    selection.entries.sort_by(|a, b| compare_str(a.label(), b.label()));
    Ok(selection)
}

/// One document, as a fetch of it alone would settle it.
async fn find(setting: &Setting, selector: &DocumentSelector, notes: &mut Vec<String>) -> Outcome<Entry> {
    let settled = if setting.from.is_empty() {
        let search = HolderSearch::new(setting.channels.clone(), Arc::clone(&setting.peers));
        search.settle(selector, Freshness::Learned).await.map_err(|error| setting.peers.not_found(error))?
    } else {
        let answers = ask(&setting.channels, &setting.from, selector).await;
        match answers.settle() {
            Settlement::Settled(settled) => settled,
            Settlement::Nobody => return Err(Failure::no_document(format!("nobody has {selector}; {}", answers.summary()))),
            Settlement::Ambiguous(found) => return Err(Failure::ambiguous(selector, &found)),
        }
    };
    notes.extend((settled.contents > 1).then(|| chosen_note(selector, &settled)));
    Ok(Entry::found(selector, settled.found))
}

/// Of each name that matches, the document that is meant.
fn matching(
    setting: &Setting,
    wanted: &Wanted,
    offers: Offers,
    choice: &PatternSet,
    selection: &mut Selection,
) -> Outcome<Vec<Entry>> {
    let Offers { offers, answered, failed, is_cut } = offers;
    let silent = silent(&failed);
    if is_cut {
        selection.notes.push(format!("warning: too many documents match {wanted}; some are left out"));
    }
    let mut by_name: Vec<(DocumentSelector, Vec<Found>)> = Vec::new();
    for Offer { document, holders, held_by } in offers.into_iter().filter(|offer| choice.matches(&offer.document.name)) {
        let selector = DocumentSelector::Name(document.name.clone());
        let found = Found { confirmed: held_by, named_by: held_by, document, holders };
        match by_name.last_mut() {
            Some((name, contents)) if *name == selector => contents.push(found),
            _ => by_name.push((selector, vec![found])),
        }
    }
    if by_name.is_empty() {
        let asked = if answered == 1 { "1 peer was asked".to_owned() } else { format!("{answered} peers were asked") };
        let failure = Failure::no_document(format!("no document matches {wanted}; {asked}"));
        let failure = silent.into_iter().fold(failure, Failure::hint);
        selection.fail(setting, wanted.to_string(), failure)?;
        return Ok(Vec::new());
    }
    selection.notes.extend(silent.into_iter().map(|silent| format!("warning: {silent}")));
    let mut entries = Vec::new();
    for (selector, contents) in by_name {
        match settle(&selector, contents) {
            Settlement::Settled(settled) => {
                selection.notes.extend((settled.contents > 1).then(|| chosen_note(&selector, &settled)));
                entries.push(Entry::found(&selector, settled.found));
            }
            Settlement::Ambiguous(found) => {
                selection.fail(setting, selector.to_string(), Failure::ambiguous(&selector, &found))?;
            }
            // Each has a holder.
            Settlement::Nobody => {}
        }
    }
    Ok(entries)
}

/// The peers that did not answer, if there are some.
fn silent(failed: &[(String, String)]) -> Option<String> {
    let shown = first_of(failed.iter().map(|(peer, why)| format!("{peer} ({why})")), SILENT_SHOWN_MAX, "; ");
    (!failed.is_empty()).then(|| format!("what these peers have is not known: {shown}"))
}
