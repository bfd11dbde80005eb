//! Who may have a certificate.

use super::{Certificate, Change, KeyHash, Ledger, RENEWAL_GRACE, Refusal, SerialBytes, Subject, Token};
use p2pdi::{name::PeerName, token::TokenHash};

/// Most certificates of one key, or one name, that are valid at once. With the usual life and renewals there are two; a peer that starts anew
/// again and again is told to wait, and the list of revoked ones stays short.
const CERTIFICATES_MAX: usize = 64;
/// Names of the registry's own certificate.
const RESERVED: [&str; 2] = ["localhost", "registry"];

/// How the caller shows that it may have a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::ca) enum By {
    /// With a token.
    Token(TokenHash),
    /// With the certificate that it called with, which was checked.
    Certificate(SerialBytes),
    /// With the key alone: it signed the request.
    Key,
}

/// A request for a certificate, whose signature was checked.
#[derive(Debug, Clone)]
pub(in crate::ca) struct Admit {
    pub(in crate::ca) by: By,
    /// The key that the certificate is for.
    pub(in crate::ca) key: KeyHash,
    /// The name asked for; `None`: the one that it may have.
    pub(in crate::ca) wanted: Option<PeerName>,
}

/// Somebody may have a certificate.
#[derive(Debug)]
pub(in crate::ca) struct Admission {
    pub(in crate::ca) subject: Subject,
    key: KeyHash,
    token: Option<TokenHash>,
    /// The token as it is after this use.
    spent: Option<Token>,
}

impl Ledger {
    /// Whether the caller may have a certificate at `now`, and what it says.
    ///
    /// Who joined with a token may come again with it and the same key, as often as it likes: the answer may have been lost.
    pub(in crate::ca) fn admit(&self, request: &Admit, now: u64) -> Result<Admission, Refusal> {
        let admission = match &request.by {
            By::Token(hash) => self.admit_token(hash, request, now)?,
            By::Certificate(serial) => {
                let present = self.certificates.get(serial).ok_or(Refusal::KeyUnknown)?;
                renewal(present, request.key)?
            }
            By::Key => self.admit_key(&request.key, now)?,
        };
        let name = &admission.subject.name;
        if let Some(wanted) = request.wanted.as_ref().filter(|wanted| *wanted != name) {
            return Err(Refusal::NameNotYours { wanted: wanted.clone(), allowed: name.to_string() });
        }
        if !admission.subject.operator {
            self.check_reserved(name, &[])?;
        }
        let key = name.key();
        // Whoever had the key before the name was revoked must not keep its owner from joining anew.
        let is_valid = |certificate: &&Certificate| certificate.not_after > now && !certificate.is_revoked();
        let valid = self.certificates_of_name(&key).filter(is_valid);
        if valid.count() >= CERTIFICATES_MAX {
            return Err(Refusal::TooManyCertificates(name.clone()));
        }
        Ok(admission)
    }

    /// The changes by which an admission becomes a certificate.
    pub(in crate::ca) fn issue(admission: Admission, serial: SerialBytes, not_after: u64) -> Vec<Change> {
        let Admission { subject, key, token, spent } = admission;
        let certificate = Certificate { serial, key, subject, token, not_after, revoked_at: 0 };
        spent.map(Change::Token).into_iter().chain([Change::Certificate(certificate)]).collect()
    }

    /// A certificate that the authority gave without a token.
    pub(in crate::ca) fn issue_file(subject: Subject, key: KeyHash, serial: SerialBytes, not_after: u64) -> Change {
        Change::Certificate(Certificate { serial, key, subject, token: None, not_after, revoked_at: 0 })
    }

    fn admit_token(&self, hash: &TokenHash, request: &Admit, now: u64) -> Result<Admission, Refusal> {
        let latest = self.latest(&request.key);
        if let Some(present) = latest.filter(|latest| latest.token == Some(*hash) && !latest.is_revoked()) {
            let is_in_time = present.not_after + RENEWAL_GRACE > now;
            if is_in_time && request.wanted.as_ref().is_none_or(|wanted| *wanted == present.subject.name) {
                return renewal(present, request.key);
            }
        }
        let token = self.tokens.get(hash).ok_or(Refusal::TokenUnknown)?;
        let id = || token.hash.id();
        if token.revoked {
            return Err(Refusal::TokenRevoked { id: id() });
        }
        if token.expires_at <= now {
            return Err(Refusal::TokenExpired { id: id(), ago: now - token.expires_at });
        }
        if token.used >= token.uses {
            return Err(Refusal::TokenUsed { id: id(), uses: token.uses });
        }
        let name = self.name_by_token(token, request, now)?;
        let subject = Subject { name, labels: token.labels.clone(), operator: token.operator };
        let spent = Token { used: token.used + 1, ..token.clone() };
        Ok(Admission { subject, key: request.key, token: Some(*hash), spent: Some(spent) })
    }

    /// Refuses a name that the registry is dialled by, `hosts` among them: programs that check host names only would take its holder for the
    /// registry.
    pub(super) fn check_reserved(&self, name: &PeerName, hosts: &[String]) -> Result<(), Refusal> {
        let hosts = self.tokens.values().flat_map(|token| &token.hosts).chain(hosts).map(String::as_str);
        match RESERVED.into_iter().chain(hosts).any(|reserved| reserved.eq_ignore_ascii_case(name.as_str())) {
            true => Err(Refusal::NameReserved(name.clone())),
            false => Ok(()),
        }
    }

    fn name_by_token(&self, token: &Token, request: &Admit, now: u64) -> Result<PeerName, Refusal> {
        let pattern = &token.names;
        let not_yours = |wanted: &PeerName| Refusal::NameNotYours { wanted: wanted.clone(), allowed: pattern.to_string() };
        if let Some(only) = pattern.exact() {
            let name = only.parse().map_err(|_| Refusal::TokenUnknown)?;
            return match &request.wanted {
                Some(wanted) if *wanted != name => Err(not_yours(wanted)),
                // In the spelling of the caller.
                Some(wanted) => Ok(wanted.clone()),
                None => Ok(name),
            };
        }
        let wanted = request.wanted.as_ref().ok_or_else(|| Refusal::NameNeeded { pattern: pattern.clone() })?;
        if !pattern.matches(wanted.as_str()) {
            return Err(not_yours(wanted));
        }
        // Uses that are left are not for those who were revoked. Their certificates are kept for as long as a token lives.
        let was_revoked = |certificate: &&Certificate| certificate.is_revoked() && certificate.token == Some(token.hash);
        let name = wanted.key();
        if let Some(revoked) = self.certificates_of_name(&name).chain(self.certificates_of_key(&request.key)).find(was_revoked) {
            return Err(Refusal::CertificateRevoked(revoked.subject.name.clone()));
        }
        // Whoever made the token did not mean that one of them takes the name of another, which can renew its certificate for so long.
        let is_another = |certificate: &Certificate| {
            let is_same = certificate.key == request.key || (token.rejoin && certificate.token == Some(token.hash));
            !is_same && !certificate.is_revoked() && certificate.not_after + RENEWAL_GRACE > now
        };
        if self.certificates_of_name(&name).any(is_another) {
            return Err(Refusal::NameInUse(wanted.clone()));
        }
        Ok(wanted.clone())
    }

    fn admit_key(&self, key: &KeyHash, now: u64) -> Result<Admission, Refusal> {
        let latest = self.latest(key).filter(|latest| latest.not_after + RENEWAL_GRACE > now);
        renewal(latest.ok_or(Refusal::KeyUnknown)?, *key)
    }
}

/// What `present` says, for `key`.
fn renewal(present: &Certificate, key: KeyHash) -> Result<Admission, Refusal> {
    if present.is_revoked() {
        return Err(Refusal::CertificateRevoked(present.subject.name.clone()));
    }
    Ok(Admission { subject: present.subject.clone(), key, token: present.token, spent: None })
}
