//! The authority: each call decides, stores and then answers. Calls block while they write.

mod opening;

use super::{
    certificates::{self, Request, Validity, seconds},
    error::CaError,
    generations::Generations,
    ledger::{Admit, By, CLOCK_SKEW, Change, Ledger, Refusal, Revoked, RevokedSince, Subject, Token, check_token},
    stored::Stored,
};
use p2pdi::{
    name::PeerName,
    network::NetworkName,
    selector::NamePattern,
    tls::{Pem, Serial, certificates_pem},
    token::{CaHash, TokenSecret},
};
use rcgen::KeyPair;
use rustls_pki_types::CertificateDer;
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, SystemTime},
};
use tokio::sync::watch;

/// Usual life of a certificate: short enough that a lost key is of no use after a day, long enough that a registry may be away for eight
/// hours before the first certificate ends.
pub const CERTIFICATE_LIFE: Duration = Duration::from_secs(24 * 60 * 60);
/// Age at which a generation of the authority is replaced.
pub const CA_ROTATE_AFTER: Duration = Duration::from_secs(365 * 24 * 60 * 60);
/// How often it is looked for what ended, in seconds: it looks at all certificates.
const OUTDATED_INTERVAL: u64 = 10 * 60;
/// How often it is said that a shared key is old, in seconds: a day.
const WARNING_INTERVAL: u64 = 24 * 60 * 60;
/// How often a secret is made anew whose id another token has.
const ID_ATTEMPTS: usize = 16;

/// How an authority works.
#[derive(Debug, Clone)]
pub struct CaSettings {
    /// The network that its certificates are for.
    pub network: NetworkName,
    /// Life of a certificate.
    pub life: Duration,
    /// Age at which the authority's own key and certificate are replaced.
    pub rotate_after: Duration,
    /// Names and addresses at which programs other than ours dial the registry: they are in its certificate.
    pub hosts: Vec<String>,
}

impl Default for CaSettings {
    fn default() -> Self {
        Self { network: NetworkName::default(), life: CERTIFICATE_LIFE, rotate_after: CA_ROTATE_AFTER, hosts: Vec::new() }
    }
}

/// A certificate authority, open in its folder.
pub struct Authority {
    settings: CaSettings,
    stored: Stored,
    /// When it was last looked for what ended, in seconds since 1970.
    looked_at: AtomicU64,
    warned: Warned,
}

/// When something about a shared authority was last said, in seconds since 1970: each has a time of its own.
#[derive(Default)]
struct Warned {
    of_age: AtomicU64,
    of_strangers: AtomicU64,
    of_newer_key: AtomicU64,
}

/// How a caller shows that it may have a certificate.
#[derive(Debug)]
pub enum Proof<'a> {
    /// With the secret of a token.
    Token(&'a TokenSecret),
    /// With the certificate of this serial number, with which it made the call.
    Certificate(&'a Serial),
    /// With its key, which signed the request.
    Key,
}

/// A certificate that was just given.
#[derive(Debug)]
pub struct Enrolled {
    /// Whom it is for.
    pub subject: Subject,
    /// The certificate, and those between it and the oldest authority that is trusted.
    pub chain: Vec<CertificateDer<'static>>,
}

/// What everyone of the network must know.
#[derive(Debug)]
pub struct Trust {
    /// The authorities that are trusted, the oldest first.
    pub authorities: Vec<CertificateDer<'static>>,
    /// Certificates that are revoked.
    pub revoked: Vec<Revoked>,
    /// All up to here is in this answer.
    pub revision: u64,
    /// `revoked` replaces what the caller had.
    pub start_over: bool,
    /// There is more, after `revision`.
    pub more: bool,
}

/// What the revocation of a name ended, and what it did not.
#[derive(Debug)]
pub struct RevokedName {
    /// Certificates that were revoked.
    pub certificates: usize,
    /// Tokens for the name alone, which were revoked.
    pub tokens: usize,
    /// Tokens for several names that it joined with, and that have uses left for others.
    pub open_tokens: Vec<Token>,
    /// Whoever has this revision knows.
    pub revision: u64,
}

/// A token to be made.
#[derive(Debug, Clone)]
pub struct NewToken {
    /// The name that it is for, or a pattern of names.
    pub names: NamePattern,
    /// Labels of those who join with it.
    pub labels: BTreeMap<String, String>,
    /// How long it can be used.
    pub life: Duration,
    /// How many may join with it.
    pub uses: u32,
    /// It makes operators, not peers.
    pub operator: bool,
    /// Another key may join under a name that was given with it.
    pub rejoin: bool,
    /// Hosts of the registry's addresses in it: no peer gets such a name.
    pub hosts: Vec<String>,
}

impl Authority {
    fn new(settings: CaSettings, stored: Stored) -> Self {
        Self { settings, stored, looked_at: AtomicU64::new(0), warned: Warned::default() }
    }

    /// The network that its certificates are for.
    pub fn network(&self) -> &NetworkName {
        &self.settings.network
    }

    /// Life of a certificate.
    pub fn life(&self) -> Duration {
        self.settings.life
    }

    /// Gives a certificate for the key of `request`, a PKCS #10 certificate request in DER.
    ///
    /// # Errors
    /// When the request is not valid, the caller may have no certificate, or it cannot be stored.
    pub fn enrol(
        &self,
        proof: &Proof<'_>,
        request: &[u8],
        wanted: Option<PeerName>,
        now: SystemTime,
    ) -> Result<Enrolled, CaError> {
        self.enrol_caller(proof, request, wanted, false, now)
    }

    /// As [`Authority::enrol`]; `is_peer`: the caller has no use for the certificate of an operator.
    pub(super) fn enrol_caller(
        &self,
        proof: &Proof<'_>,
        request: &[u8],
        wanted: Option<PeerName>,
        is_peer: bool,
        now: SystemTime,
    ) -> Result<Enrolled, CaError> {
        // Before the lock: checking a signature takes time.
        let request = Request::read(request)?;
        let by = match proof {
            Proof::Token(secret) => By::Token(secret.hash()),
            // A serial number of another length is no one of ours.
            Proof::Certificate(serial) => By::Certificate(serial.as_bytes().try_into().map_err(|_| Refusal::KeyUnknown)?),
            Proof::Key => By::Key,
        };
        let admit = Admit { by, key: request.key, wanted };
        let (serial, validity) = (certificates::serial()?, self.validity(now));
        self.stored.change(|state| {
            let admission = state.ledger.admit(&admit, seconds(now))?;
            let subject = admission.subject.clone();
            if is_peer && subject.operator {
                return Err(Refusal::TokenOfOperator.into());
            }
            // With the CA's own hosts: programs that check host names only would take its holder for the registry.
            if !subject.operator && self.settings.hosts.iter().any(|host| host.eq_ignore_ascii_case(subject.name.as_str())) {
                return Err(Refusal::NameReserved(subject.name).into());
            }
            let params = certificates::of_subject(&subject, self.network(), &serial, validity)?;
            let certificate = state.generations.sign(&params, &request.public_key)?;
            let chain = state.chain(certificate, now);
            Ok((Ledger::issue(admission, serial, validity.not_after), Enrolled { subject, chain }))
        })
    }

    /// Makes a key and a certificate without a token, for those who want files. PEM: certificates, key.
    ///
    /// # Errors
    /// When the name has too many certificates, or it cannot be stored.
    pub fn issue(&self, subject: Subject, life: Duration, now: SystemTime) -> Result<(String, String), CaError> {
        let key = KeyPair::generate().map_err(|error| CaError::Signing(error.to_string()))?;
        let (serial, validity) = (certificates::serial()?, Validity::new(life, now));
        let params = certificates::of_subject(&subject, self.network(), &serial, validity)?;
        let chain = self.stored.change(|state| {
            let certificate = state.generations.sign(&params, &key)?;
            let issued = Ledger::issue_file(subject.clone(), certificates::key_hash(&key), serial, validity.not_after);
            Ok((vec![issued], state.chain(certificate, now)))
        })?;
        Ok((certificates_pem(&chain), key.serialize_pem()))
    }

    /// What the registry serves with: a certificate of its own with a new key, and all authorities. Nothing of it is stored.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn for_registry(&self, now: SystemTime) -> Result<Pem, CaError> {
        let key = KeyPair::generate().map_err(|error| CaError::Signing(error.to_string()))?;
        let params =
            certificates::of_registry(self.network(), &self.settings.hosts, &certificates::serial()?, self.validity(now))?;
        let state = self.stored.read();
        let mut chain = state.chain(state.generations.sign(&params, &key)?, now);
        // With the authorities themselves, so that whoever has only a token finds the one that it names.
        chain.extend(state.authorities(now));
        let ca = certificates_pem(&state.authorities(now)).into();
        Ok(Pem { cert: Some(certificates_pem(&chain).into()), key: Some(key.serialize_pem().into()), ca })
    }

    /// Makes a token. Gives its secret, the authority that it names, and what is kept of it.
    ///
    /// # Errors
    /// When a value breaks a rule, too many tokens are kept, or it cannot be stored.
    pub fn create_token(&self, token: NewToken, now: SystemTime) -> Result<(TokenSecret, CaHash, Token), CaError> {
        let NewToken { names, labels, life, uses, operator, rejoin, hosts } = token;
        if !operator
            && let Some(name) = names.exact().and_then(|name| name.parse::<PeerName>().ok())
            && self.settings.hosts.iter().any(|host| host.eq_ignore_ascii_case(name.as_str()))
        {
            return Err(Refusal::NameReserved(name).into());
        }
        let created_at = seconds(now);
        let expires_at = created_at.saturating_add(life.as_secs());
        self.stored.change(|state| {
            let mut secret = TokenSecret::generate().map_err(|error| CaError::System(error.into()))?;
            for _ in 0..ID_ATTEMPTS {
                if state.ledger.has_token_id(&secret.hash().id()) {
                    secret = TokenSecret::generate().map_err(|error| CaError::System(error.into()))?;
                }
            }
            let (hash, names, labels, hosts) = (secret.hash(), names.clone(), labels.clone(), hosts.clone());
            let token =
                Token { hash, names, labels, operator, created_at, expires_at, uses, used: 0, revoked: false, rejoin, hosts };
            check_token(&token)?;
            let change = state.ledger.add_token(token.clone())?;
            let named = state.generations.named(self.stored.is_shared(), seconds(now));
            Ok((vec![change], (secret, CaHash::of(&named.certificate), token)))
        })
    }

    /// All tokens, the newest first.
    pub fn tokens(&self) -> Vec<Token> {
        self.stored.read().ledger.tokens()
    }

    /// Revokes a token. Who joined with it stays; `revoke_name` ends them.
    ///
    /// # Errors
    /// When there is none with that id, or it cannot be stored.
    pub fn revoke_token(&self, id: &str) -> Result<Token, CaError> {
        self.stored.change(|state| {
            let token = state.ledger.revoke_token(id)?;
            Ok((vec![Change::Token(token.clone())], token))
        })
    }

    /// Revokes all certificates of a name, and the tokens for it alone.
    ///
    /// # Errors
    /// When there is none, or it cannot be stored.
    pub fn revoke_name(&self, name: &PeerName, now: SystemTime) -> Result<RevokedName, CaError> {
        let (certificates, tokens) = self.stored.change(|state| {
            let (changes, certificates, tokens) = state.ledger.revoke_name(name, seconds(now))?;
            Ok((changes, (certificates, tokens)))
        })?;
        let ledger = &self.stored.read().ledger;
        let open_tokens = ledger.open_tokens(name, seconds(now));
        Ok(RevokedName { certificates, tokens, open_tokens, revision: ledger.revision() })
    }

    /// Replaces the authority's key and certificate now. Gives the hash of the new one.
    ///
    /// # Errors
    /// When it cannot be stored, or others have the same key.
    pub fn rotate(&self, now: SystemTime) -> Result<CaHash, CaError> {
        if self.stored.is_shared() {
            return Err(CaError::SharedKey);
        }
        self.stored.with_generations(|generations| generations.rotate(seconds(now)))?;
        self.publish(now)?;
        Ok(CaHash::of(&self.stored.read().generations.newest().certificate))
    }

    /// The revision of what everyone of the network must know. Waits for nothing.
    pub fn revision(&self) -> u64 {
        self.stored.revision()
    }

    /// What everyone must know that is not of the revision `since` already.
    ///
    /// # Errors
    /// When another authority that shares the ledger said more already, and it cannot be read now: whoever asks must not forget it.
    pub fn trust(&self, since: u64, now: SystemTime) -> Result<Trust, CaError> {
        if self.stored.is_shared() && since > self.revision() {
            self.stored.catch_up()?;
        }
        let state = self.stored.read();
        let RevokedSince { revoked, revision, start_over, more } = state.ledger.revoked_since(since, seconds(now));
        Ok(Trust { authorities: state.authorities(now), revoked, revision, start_over, more })
    }

    /// The serial numbers of all revoked certificates, for this registry's own connections.
    pub fn revoked(&self, now: SystemTime) -> Vec<Serial> {
        let ledger = &self.stored.read().ledger;
        let mut found = ledger.revoked_since(0, seconds(now));
        let mut all = found.revoked;
        while found.more {
            found = ledger.revoked_since(found.revision, seconds(now));
            all.append(&mut found.revoked);
        }
        all.iter().map(|revoked| Serial::new(&revoked.serial)).collect()
    }

    /// Whether the certificate with this serial number is revoked.
    pub fn is_revoked(&self, serial: &Serial) -> bool {
        serial.as_bytes().try_into().is_ok_and(|serial| self.stored.read().ledger.is_revoked(&serial))
    }

    /// Takes over what others that share the ledger changed, as far as it is known here.
    ///
    /// # Errors
    /// When it cannot be read; the next call tries again.
    pub fn learn(&self) -> Result<(), CaError> {
        self.stored.learn()
    }

    /// Changes whenever others that share the ledger changed it; `None`: nobody shares it.
    pub fn changes(&self) -> Option<watch::Receiver<()>> {
        self.stored.changes()
    }

    /// The authorities that are trusted, and which of them signs: with others, the registry must serve with other certificates.
    pub fn authorities(&self, now: SystemTime) -> (Vec<CertificateDer<'static>>, u32) {
        let state = self.stored.read();
        (state.authorities(now), state.generations.signing())
    }

    /// What is due from time to time: rotates an authority of that age, or reads the key that all of several have now, and forgets what ended.
    ///
    /// # Errors
    /// When it cannot be stored; the next call tries again.
    pub fn maintain(&self, now: SystemTime) -> Result<(), CaError> {
        if self.stored.is_shared() {
            let learned = self.stored.learn();
            // Whether or not the ledger can be read.
            self.stored.with_generations(Generations::read_again)?;
            learned?;
        }
        let begun = self.stored.read().generations.newest().validity.not_before + CLOCK_SKEW;
        let age = seconds(now).saturating_sub(begun);
        if age >= self.settings.rotate_after.as_secs() {
            if self.stored.is_shared() {
                warn_daily(&self.warned.of_age, now, || {
                    let days = age / WARNING_INTERVAL;
                    tracing::warn!(
                        days,
                        "the key of the certificate authority is old; make the next with `p2pctl ca rotate --ca DIR`, and give it to every registry"
                    );
                });
            } else {
                self.stored.with_generations(|generations| generations.rotate(seconds(now)))?;
            }
        }
        self.publish(now)?;
        let (newest, signing) = {
            let generations = &self.stored.read().generations;
            (generations.newest().number, generations.signing())
        };
        let strangers = self.stored.read().generations.strangers();
        if !strangers.is_empty() {
            warn_daily(&self.warned.of_strangers, now, || {
                tracing::warn!(
                    ?strangers,
                    "the shared ledger has certificate authorities that this one did not sign; they are not trusted: somebody else can write to it"
                );
            });
        }
        if signing < newest {
            warn_daily(&self.warned.of_newer_key, now, || {
                tracing::warn!(
                    newest,
                    signing,
                    "other registries have a newer key of the certificate authority; copy their ca-*.pem to the CA folder of this one within 30 days"
                );
            });
        }
        if seconds(now).abs_diff(self.looked_at.load(Ordering::Relaxed)) >= OUTDATED_INTERVAL {
            self.looked_at.store(seconds(now), Ordering::Relaxed);
            self.stored.change(|state| Ok((state.ledger.outdated(seconds(now)), ())))?;
        }
        Ok(())
    }

    /// Counts a new generation, and writes the file for other programs. Done at each start, too, in case the process was killed between.
    fn publish(&self, now: SystemTime) -> Result<(), CaError> {
        let is_shared = self.stored.is_shared();
        self.stored.change(|state| Ok((state.unpublished(is_shared), ())))?;
        if is_shared {
            return Ok(());
        }
        let state = self.stored.read();
        state.generations.write_bundle(&state.trusted(now))
    }

    fn validity(&self, now: SystemTime) -> Validity {
        Validity::new(self.settings.life, now)
    }
}

fn warn_daily(warned_at: &AtomicU64, now: SystemTime, warn: impl FnOnce()) {
    if seconds(now).abs_diff(warned_at.load(Ordering::Relaxed)) >= WARNING_INTERVAL {
        warned_at.store(seconds(now), Ordering::Relaxed);
        warn();
    }
}
