//! Who may have a certificate, who has one, and which of them are revoked.
//!
//! Nothing here changes by a call: it returns the [`Change`]s, which are stored first and applied then ([`Ledger::apply`]).
//!
//! Times are seconds since 1970.
//!
//! Pure: no I/O, no clock, no randomness of its own.

mod enrol;
mod model;
mod refusal;
mod revoke;
mod tokens;

#[cfg(test)]
mod tests;

pub(super) use enrol::{Admit, By};
pub(super) use model::{Certificate, Change, KeyHash, SerialBytes};
pub use model::{Revoked, Subject, Token};
pub use refusal::Refusal;
pub(super) use revoke::RevokedSince;
pub(super) use tokens::check_token;
pub use tokens::{TOKEN_LIFE_MAX, TOKEN_USES_MAX};

use p2pdi::token::TokenHash;
use std::collections::{BTreeMap, BTreeSet};

/// How much clocks of a network may differ: a revoked certificate stays on the list for that long after its end, and a new one is
/// valid from that long before.
pub(super) const CLOCK_SKEW: u64 = 60 * 60;
/// How long after its end a certificate can still be renewed with its key: a machine that was off for a month comes back by itself.
pub(super) const RENEWAL_GRACE: u64 = 30 * 24 * 60 * 60;
/// How long a token is listed after its end, so that whoever comes late with it is told why it is refused.
const TOKEN_KEPT: u64 = 7 * 24 * 60 * 60;

/// The present state.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    tokens: BTreeMap<TokenHash, Token>,
    certificates: BTreeMap<SerialBytes, Certificate>,
    /// Serials by name in lower case.
    by_name: BTreeMap<String, BTreeSet<SerialBytes>>,
    /// Serials by key. The one that ends last is the latest.
    by_key: BTreeMap<KeyHash, BTreeSet<SerialBytes>>,
    /// Revoked certificates by the revision at which they were.
    by_revision: BTreeMap<u64, SerialBytes>,
    /// Grows with each revocation and each change of the authorities.
    revision: u64,
    /// The newest generation of the authority that `revision` counts.
    generation: u32,
}

impl Ledger {
    /// Whether nothing was ever given, and nobody knows of the authority.
    pub(super) fn is_empty(&self) -> bool {
        self.generation == 0 && self.tokens.is_empty() && self.certificates.is_empty()
    }

    /// What everyone must know is of this revision.
    pub(super) fn revision(&self) -> u64 {
        self.revision
    }

    /// The newest generation of the authority that everyone knows of; 0: of none.
    pub(super) fn generation(&self) -> u32 {
        self.generation
    }

    /// The change by which `generation` becomes known to everyone.
    pub(super) fn publish(&self, generation: u32) -> Change {
        Change::Trust { revision: self.revision.saturating_add(1), generation }
    }

    /// What `other` has and this one has not: tokens, certificates, and which of them are revoked.
    pub(super) fn missing(&self, other: &Self) -> Vec<Change> {
        let tokens = other.tokens.values().filter(|token| !self.tokens.contains_key(&token.hash)).cloned().map(Change::Token);
        let mut changes: Vec<_> = tokens.collect();
        // Above what anybody was told by either, so that all are told of it.
        let mut revision = self.revision.max(other.revision);
        for certificate in other.certificates.values() {
            let is_known =
                self.certificates.get(&certificate.serial).is_some_and(|known| known.is_revoked() || !certificate.is_revoked());
            if !is_known {
                let mut missing = certificate.clone();
                if missing.is_revoked() {
                    revision = revision.saturating_add(1);
                    missing.revoked_at = revision;
                }
                changes.push(Change::Certificate(missing));
            }
        }
        if !changes.is_empty() {
            changes.push(Change::Trust { revision, generation: self.generation });
        }
        changes
    }

    /// Applies a change that was stored, or was read from the store.
    pub(super) fn apply(&mut self, change: Change) {
        match change {
            Change::Token(token) => drop(self.tokens.insert(token.hash, token)),
            Change::ForgetToken(hash) => drop(self.tokens.remove(&hash)),
            Change::Certificate(certificate) => {
                self.forget(&certificate.serial);
                self.by_name.entry(certificate.subject.name.key()).or_default().insert(certificate.serial);
                self.by_key.entry(certificate.key).or_default().insert(certificate.serial);
                if certificate.is_revoked() {
                    self.by_revision.insert(certificate.revoked_at, certificate.serial);
                    self.revision = self.revision.max(certificate.revoked_at);
                }
                self.certificates.insert(certificate.serial, certificate);
            }
            Change::ForgetCertificate(serial) => self.forget(&serial),
            Change::Trust { revision, generation } => {
                self.revision = self.revision.max(revision);
                self.generation = generation;
            }
            Change::Authority { .. } => {}
        }
    }

    fn forget(&mut self, serial: &SerialBytes) {
        let Some(certificate) = self.certificates.remove(serial) else { return };
        remove(&mut self.by_name, &certificate.subject.name.key(), serial);
        remove(&mut self.by_key, &certificate.key, serial);
        self.by_revision.remove(&certificate.revoked_at);
    }

    /// What is of no use any more at `now`.
    pub(super) fn outdated(&self, now: u64) -> Vec<Change> {
        let tokens = self.tokens.values().filter(|token| token.expires_at + TOKEN_KEPT < now);
        let tokens = tokens.map(|token| Change::ForgetToken(token.hash));
        let certificates = self.certificates.values().filter(|certificate| {
            let is_latest = self.latest(&certificate.key).is_some_and(|latest| latest.serial == certificate.serial);
            let kept = if is_latest { RENEWAL_GRACE.max(CLOCK_SKEW) } else { CLOCK_SKEW };
            certificate.not_after + kept < now
        });
        tokens.chain(certificates.map(|certificate| Change::ForgetCertificate(certificate.serial))).collect()
    }

    fn certificates_of_key(&self, key: &KeyHash) -> impl Iterator<Item = &Certificate> {
        self.by_key.get(key).into_iter().flatten().filter_map(|serial| self.certificates.get(serial))
    }

    fn certificates_of_name(&self, name: &str) -> impl Iterator<Item = &Certificate> {
        self.by_name.get(name).into_iter().flatten().filter_map(|serial| self.certificates.get(serial))
    }

    /// The certificate of this key that ends last; of several, one that is not revoked: it was given after the revocation.
    fn latest(&self, key: &KeyHash) -> Option<&Certificate> {
        let order = |certificate: &&Certificate| (certificate.not_after, !certificate.is_revoked(), certificate.serial);
        self.certificates_of_key(key).max_by_key(order)
    }
}

fn remove<K: Ord>(index: &mut BTreeMap<K, BTreeSet<SerialBytes>>, key: &K, serial: &SerialBytes) {
    if let Some(serials) = index.get_mut(key) {
        serials.remove(serial);
        if serials.is_empty() {
            index.remove(key);
        }
    }
}
