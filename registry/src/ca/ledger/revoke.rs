//! Revoking certificates, and the list of those that are.

use super::{CLOCK_SKEW, Certificate, Change, Ledger, Refusal, Revoked, SerialBytes, Token};
use p2pdi::name::PeerName;
use std::collections::BTreeSet;

/// Most revoked certificates of one answer: about 250 KiB.
pub(in crate::ca) const REVOKED_PAGE: usize = 5_000;

/// What was revoked since some revision.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ca) struct RevokedSince {
    pub(in crate::ca) revoked: Vec<Revoked>,
    /// The list holds all that was revoked up to here.
    pub(in crate::ca) revision: u64,
    /// It is not a part of the list that the caller has: that was another registry's, or is of a later time than this one.
    pub(in crate::ca) start_over: bool,
    /// There is more, after `revision`.
    pub(in crate::ca) more: bool,
}

impl Ledger {
    /// Revokes all certificates and tokens of one name. Gives the changes, and how many certificates and tokens they are about.
    pub(in crate::ca) fn revoke_name(&self, name: &PeerName, now: u64) -> Result<(Vec<Change>, usize, usize), Refusal> {
        let is_only =
            |token: &&Token| token.names.exact() == Some(name.key().as_str()) && !token.revoked && token.expires_at > now;
        let tokens: Vec<_> = self.tokens.values().filter(is_only).map(|token| Token { revoked: true, ..token.clone() }).collect();
        // Those that ended too: their keys could renew them.
        let certificates: Vec<_> = self.certificates_of_name(&name.key()).filter(|found| !found.is_revoked()).collect();
        if tokens.is_empty() && certificates.is_empty() {
            return Err(Refusal::NameUnknown(name.clone()));
        }
        let counts = (certificates.len(), tokens.len());
        // Kept apart: the revision must not go back when the certificates are forgotten.
        let last =
            Change::Trust { revision: self.revision.saturating_add(certificates.len() as u64), generation: self.generation };
        let revoked = certificates.into_iter().zip(self.revision.saturating_add(1)..);
        let revoked = revoked.map(|(certificate, revision)| Certificate { revoked_at: revision, ..certificate.clone() });
        let changes = revoked.map(Change::Certificate).chain(tokens.into_iter().map(Change::Token)).chain([last]).collect();
        Ok((changes, counts.0, counts.1))
    }

    /// Tokens that whoever has `name` joined with, and that have uses left.
    pub(in crate::ca) fn open_tokens(&self, name: &PeerName, now: u64) -> Vec<Token> {
        let joined_with: BTreeSet<_> =
            self.certificates_of_name(&name.key()).filter_map(|certificate| certificate.token).collect();
        let tokens = joined_with.iter().filter_map(|hash| self.tokens.get(hash));
        tokens.filter(|token| !token.revoked && token.expires_at > now && token.used < token.uses).cloned().collect()
    }

    /// Whether the certificate with this serial number is revoked.
    pub(in crate::ca) fn is_revoked(&self, serial: &SerialBytes) -> bool {
        self.certificates.get(serial).is_some_and(Certificate::is_revoked)
    }

    /// What was revoked after the revision `since`, and has not ended at `now`.
    pub(in crate::ca) fn revoked_since(&self, since: u64, now: u64) -> RevokedSince {
        let start_over = since > self.revision;
        let after = if start_over { 0 } else { since };
        let found = self.by_revision.range(after.saturating_add(1)..).filter_map(|(_, serial)| self.certificates.get(serial));
        let mut found = found.filter(|certificate| certificate.not_after + CLOCK_SKEW > now);
        let listed = |certificate: &Certificate| Revoked {
            serial: certificate.serial,
            not_after: certificate.not_after,
            revision: certificate.revoked_at,
        };
        let revoked: Vec<_> = found.by_ref().take(REVOKED_PAGE).map(listed).collect();
        let more = found.next().is_some();
        let revision = revoked.last().filter(|_| more).map_or(self.revision, |last| last.revision);
        RevokedSince { revoked, revision, start_over, more }
    }
}
