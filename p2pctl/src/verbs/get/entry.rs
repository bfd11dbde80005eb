//! One document to fetch.

use peerd::{
    documents::{info::DocumentInfo, selector::DocumentSelector},
    holders::{search::Found, source::Source},
    transfer::is_small,
};

/// One document to fetch.
#[derive(Debug, Clone)]
pub(super) struct Entry {
    /// What is fetched.
    pub(super) selector: DocumentSelector,
    /// What is known of it before it is fetched.
    pub(super) document: Option<DocumentInfo>,
    /// Who has it, as far as that is known.
    pub(super) holders: Vec<Source>,
    /// Bytes that room is set aside for until it begins.
    pub(super) missing: u64,
    /// The name or number that it was found by, and is searched for again by, once, if its content changes meanwhile.
    pub(super) found_by: Option<DocumentSelector>,
}

impl Entry {
    /// A document that nothing is known of.
    pub(super) fn wanted(selector: DocumentSelector) -> Self {
        Self { selector, document: None, holders: Vec::new(), missing: 0, found_by: None }
    }

    /// A document that was found by `selector`.
    pub(super) fn found(selector: &DocumentSelector, found: Found) -> Self {
        let Found { document, holders, .. } = found;
        let found_by = Some(selector.clone()).filter(|selector| !matches!(selector, DocumentSelector::Hash(_)));
        Self { selector: DocumentSelector::Hash(document.hash), document: Some(document), holders, missing: 0, found_by }
    }

    /// What to search for after the content that was found is gone; `None`: only that content was wanted, or it was searched for again already.
    pub(super) fn search_again(&self) -> Option<Self> {
        self.found_by.clone().map(Self::wanted)
    }

    /// Its name for people.
    pub(super) fn label(&self) -> String {
        self.document.as_ref().map_or_else(|| self.selector.to_string(), |document| document.name.to_string())
    }

    /// Its bytes; 0: not known.
    pub(super) fn size(&self) -> u64 {
        self.document.as_ref().map_or(0, DocumentInfo::size)
    }

    /// The bytes that it counts with while it arrives; 0: not known.
    pub(super) fn weight(&self) -> u64 {
        self.document.as_ref().map_or(0, |document| document.size().max(1))
    }

    /// Whether it is a smaller one, and known to be.
    pub(super) fn is_small(&self) -> bool {
        is_small(self.weight())
    }
}
