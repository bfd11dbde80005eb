//! Finds out which documents several names, hashes and patterns select, and who has them.

use super::{Setting, entry::Entry};
use crate::{
    failure::{Failure, Outcome},
    listing::{Filter, Offer, Offers, shared_by},
};
use alphanumeric_sort::compare_str;
use peerd::{
    documents::{pattern::PatternSet, selector::DocumentSelector, wanted::Wanted},
    holders::{search::ask, source::Source},
    transfer::fetch::job::FindPeers as _,
};
use std::collections::BTreeMap;

/// The documents to fetch.
#[derive(Debug, Default)]
pub(super) struct Selection {
    /// Each name once, in order.
    pub(super) entries: Vec<Entry>,
    /// What nobody has, and why. Empty unless --keep-going is given.
    pub(super) failed: Vec<(String, Failure)>,
    /// What the user should know.
    pub(super) notes: Vec<String>,
}

impl Selection {
    /// One document.
    pub(super) fn of(entry: Entry) -> Self {
        Self { entries: vec![entry], ..Self::default() }
    }
}

/// Asks the peers for all that is wanted.
///
/// # Errors
/// When there is nobody to ask, or nobody has something and --keep-going is not given.
pub(super) async fn select(setting: &Setting, wanted: &[Wanted], choice: &PatternSet) -> Outcome<Selection> {
    let peers = if setting.from.is_empty() { setting.peers.peers().await? } else { setting.from.clone() };
    if peers.is_empty() {
        let message = format!("nobody has any document: no peers are registered with {}", setting.peers.registry());
        return Err(Failure::refused(message).hint("start one with `peerd --share DIR`"));
    }
    let mut selection = Selection::default();
    let mut by_name = BTreeMap::new();
    for one in wanted {
        let found = match one {
            Wanted::One(selector) => find(setting, &peers, selector).await.map(|entry| vec![entry]),
            Wanted::Matching(pattern) => {
                let filter = Filter::of_pattern(Some(pattern.clone()));
                let offers = shared_by(&setting.channels, peers.clone(), &filter).await;
                matching(one, offers, choice, &mut selection.notes)
            }
        };
        match found {
            Ok(entries) => by_name.extend(entries.into_iter().map(|entry| (entry.label(), entry))),
            Err(failure) if setting.fetching.keep_going => selection.failed.push((one.to_string(), failure)),
            Err(failure) => return Err(failure),
        }
    }
    selection.entries = by_name.into_values().collect();
    selection.entries.sort_by(|a, b| compare_str(a.label(), b.label()));
    Ok(selection)
}

/// The document that most of the peers that hold it mean.
async fn find(setting: &Setting, peers: &[Source], selector: &DocumentSelector) -> Outcome<Entry> {
    let answers = ask(&setting.channels, peers, selector).await;
    let asked = answers.summary();
    let Some(found) = answers.found.into_iter().next() else {
        return Err(Failure::refused(format!("nobody has {selector}; {asked}")));
    };
    Ok(Entry::listed(Offer { document: found.document, holders: found.holders }))
}

/// Of each name that matches, the document that most peers hold.
fn matching(wanted: &Wanted, offers: Offers, choice: &PatternSet, notes: &mut Vec<String>) -> Outcome<Vec<Entry>> {
    let mut entries: Vec<Entry> = Vec::new();
    let Offers { offers, answered, failed, is_cut } = offers;
    for offer in offers.into_iter().filter(|offer| choice.matches(&offer.document.name)) {
        let name = &offer.document.name;
        let chosen = entries.last().and_then(|entry| entry.document.as_ref()).filter(|chosen| chosen.name == *name);
        match chosen {
            Some(chosen) => notes.push(format!(
                "note: different documents are called {name}; fetching the one that most peers hold, b3:{}",
                chosen.hash
            )),
            None => entries.push(Entry::listed(offer)),
        }
    }
    notes.dedup();
    let silent: Vec<_> = failed.iter().map(|(peer, why)| format!("{peer}: {why}")).collect();
    if is_cut {
        notes.push(format!("warning: too many documents match {wanted}; some are left out"));
    }
    if entries.is_empty() {
        let asked = if answered == 1 { "1 peer was asked".to_owned() } else { format!("{answered} peers were asked") };
        let failure = Failure::refused(format!("no document matches {wanted}; {asked}"));
        return Err(silent.iter().take(8).fold(failure, |failure, why| failure.hint(format!("no answer from {why}"))));
    }
    if !silent.is_empty() {
        notes.push(format!("warning: what these peers have is not known: {}", silent.join("; ")));
    }
    Ok(entries)
}
