//! The certificate authority of a running registry: its calls, and what it serves with.

use crate::ca::{Authority, CaError, Refusal};
use axum::{extract::Request, middleware::Next, response::Response};
use p2pdi::{
    field::InvalidField,
    log_limit::{Line, LogLimit},
    name::PeerName,
    server::Caller,
    status::{Reason, internal},
    tls::{ClientAuth, Identity, Tls},
    v1::{
        CreateTokenRequest, CreateTokenResponse, EnrollRequest, EnrollResponse, ListTokensResponse, RevokeNameResponse,
        RevokeTokenResponse, RotateAuthorityResponse, Trust,
    },
};
use rustls_pki_types::CertificateDer;
use std::{
    future::pending,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    task::spawn_blocking,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;
use tonic::Status;

/// Longest pause between two looks at what is due. A machine that was suspended is looked after soon.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(60);
/// Pause after it failed, such as while etcd is away.
const UPKEEP_RETRY: Duration = Duration::from_secs(2);
/// Shortest pause.
const UPKEEP_SHORTEST: Duration = Duration::from_millis(250);

/// The authority, and the certificate that it gave to this registry. Clones share both.
#[derive(Clone)]
pub(crate) struct Enrolling {
    authority: Arc<Authority>,
    tls: Tls,
    /// The revision of the list of revoked certificates that was set. Held from reading the list until then: of two revocations at once, neither
    /// sets a list without the other.
    revoking: Arc<Mutex<u64>>,
    /// The authorities that the registry's certificate is served with, and which of them signed it.
    served: Arc<Mutex<(Vec<CertificateDer<'static>>, u32)>>,
}

impl Enrolling {
    /// Makes the registry's own certificate. Clients may show none: whoever joins has none yet.
    pub(crate) fn new(authority: Authority) -> Result<Self, CaError> {
        let now = SystemTime::now();
        let served = Arc::new(Mutex::new(authority.authorities(now)));
        let tls = Tls::from_pem(authority.for_registry(now)?, ClientAuth::Optional)?;
        let enrolling = Self { authority: Arc::new(authority), tls, revoking: Arc::default(), served };
        enrolling.refuse_revoked(now);
        Ok(enrolling)
    }

    /// This registry itself refuses at once whoever is revoked. After the change is stored.
    fn refuse_revoked(&self, now: SystemTime) {
        let mut set = self.revoking.lock().unwrap_or_else(PoisonError::into_inner);
        // Before the list: what is revoked meanwhile is set once more.
        let revision = self.authority.revision();
        self.tls.set_revoked(self.authority.revoked(now));
        *set = revision;
    }

    fn revoke(&self, name: &PeerName, now: SystemTime) -> Result<RevokeNameResponse, CaError> {
        let answer = self.authority.answer_revoke_name(name, now)?;
        self.refuse_revoked(now);
        Ok(answer)
    }

    /// What the registry serves with.
    pub(crate) fn tls(&self) -> &Tls {
        &self.tls
    }

    /// The revision of what everyone must know.
    pub(crate) fn revision(&self) -> u64 {
        self.authority.revision()
    }

    /// Does what is due, from time to time and whenever others that share the ledger changed it, until `stop`: replaces an old authority,
    /// forgets what ended, renews the registry's certificate, refuses who was revoked elsewhere.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let pause = (self.authority.life() / 20).clamp(UPKEEP_SHORTEST, UPKEEP_INTERVAL);
        let mut changes = self.authority.changes();
        let mut next = Instant::now() + pause;
        loop {
            let changed = async {
                let told = match &mut changes {
                    Some(changes) => changes.changed().await.is_ok(),
                    None => false,
                };
                if !told {
                    pending::<()>().await;
                }
            };
            let is_due = tokio::select! {
                () = stop.cancelled() => return,
                () = sleep_until(next) => true,
                () = changed => false,
            };
            if is_due {
                next = Instant::now() + pause;
            }
            let due = self.clone();
            // The runtime reports a panic in it.
            let kept = spawn_blocking(move || due.keep_up(is_due, SystemTime::now())).await;
            if let Ok(Err(error)) = kept {
                next = next.min(Instant::now() + UPKEEP_RETRY);
                static LOG: LogLimit = LogLimit::new(4);
                if let Some(Line { suppressed }) = LOG.line() {
                    tracing::error!(%error, suppressed, "the certificate authority cannot do what is due; trying again");
                }
            }
        }
    }

    fn keep_up(&self, is_due: bool, now: SystemTime) -> Result<(), CaError> {
        // What needs no store is done even if that is away.
        let kept = if is_due { self.authority.maintain(now) } else { self.authority.learn() };
        let is_old = self.tls.identity().is_none_or(|own| {
            let renewal_at = p2pdi::enrol::renewal_at(own.not_before(), own.not_after(), 0.0);
            now >= renewal_at || now < own.not_before()
        });
        let served = self.serve_authorities(is_old, now);
        // What others revoked counts here, too, and those that ended are forgotten.
        let set = *self.revoking.lock().unwrap_or_else(PoisonError::into_inner);
        if is_due || self.authority.revision() != set {
            self.refuse_revoked(now);
        }
        kept.and(served)
    }

    /// Serves with another certificate if the present one is old, or says nothing of a new authority.
    fn serve_authorities(&self, is_old: bool, now: SystemTime) -> Result<(), CaError> {
        let mut served = self.served.lock().unwrap_or_else(PoisonError::into_inner);
        let authorities = self.authority.authorities(now);
        let is_new = *served != authorities;
        if is_new && served.1 != authorities.1 {
            tracing::info!("the certificate authority was replaced; the old one stays trusted for 30 days");
        }
        if is_old || is_new {
            self.tls.replace(self.authority.for_registry(now)?)?;
            *served = authorities;
        }
        Ok(())
    }

    pub(crate) async fn enroll(&self, request: EnrollRequest, caller: Option<Arc<Identity>>) -> Result<EnrollResponse, Status> {
        let enrolling = self.blocking(move |authority| {
            authority.answer_enroll(request, caller.as_ref().map(|caller| caller.serial()), SystemTime::now())
        });
        let answer = enrolling.await?;
        // Whoever has a certificate may renew it at any time.
        static LOG: LogLimit = LogLimit::new(20);
        if let Some(Line { suppressed }) = LOG.line() {
            tracing::info!(name = answer.name, operator = answer.operator, suppressed, "a certificate was given");
        }
        Ok(answer)
    }

    /// What everyone must know that is not of the revision `since` already.
    pub(crate) async fn trust(&self, since: u64) -> Result<Trust, Status> {
        self.blocking(move |authority| authority.answer_trust(since, SystemTime::now())).await
    }

    pub(crate) async fn create_token(&self, request: CreateTokenRequest) -> Result<CreateTokenResponse, Status> {
        self.blocking(move |authority| authority.answer_create_token(request, SystemTime::now())).await
    }

    pub(crate) async fn list_tokens(&self) -> Result<ListTokensResponse, Status> {
        self.blocking(|authority| Ok(authority.answer_list_tokens())).await
    }

    pub(crate) async fn revoke_token(&self, id: String) -> Result<RevokeTokenResponse, Status> {
        self.blocking(move |authority| authority.answer_revoke_token(&id)).await
    }

    pub(crate) async fn revoke_name(&self, name: PeerName) -> Result<RevokeNameResponse, Status> {
        let this = self.clone();
        self.blocking(move |_| {
            let answer = this.revoke(&name, SystemTime::now())?;
            tracing::info!(%name, certificates = answer.certificates, tokens = answer.tokens, "revoked");
            Ok(answer)
        })
        .await
    }

    pub(crate) async fn rotate(&self) -> Result<RotateAuthorityResponse, Status> {
        let this = self.clone();
        self.blocking(move |authority| {
            let now = SystemTime::now();
            let answer = authority.answer_rotate(now)?;
            this.serve_authorities(false, now)?;
            Ok(answer)
        })
        .await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        act: impl FnOnce(&Authority) -> Result<T, CaError> + Send + 'static,
    ) -> Result<T, Status> {
        let authority = Arc::clone(&self.authority);
        match spawn_blocking(move || act(&authority)).await {
            Ok(done) => done.map_err(status),
            Err(panicked) => Err(internal("using the certificate authority", &panicked)),
        }
    }
}

/// Refuses callers that are no operators.
pub(crate) fn require_operator(caller: Option<&Caller>) -> Result<(), Status> {
    // Only calls from inside the process have no caller.
    let Some(caller) = caller else { return Ok(()) };
    match caller.identity() {
        Some(identity) if identity.operator().is_some() => Ok(()),
        Some(identity) => Err(Reason::OperatorOnly.status(format!(
            "this call is for operators, and the certificate is for {identity}; log in with a token made with --operator"
        ))),
        None => Err(certificate_missing()),
    }
}

/// Refuses calls of those who show no certificate, but for the one by which they get it. Pages, health and reflection are not calls of this
/// contract.
pub(crate) async fn require_certificate(request: Request, next: Next) -> Response {
    /// Methods of the contract.
    const CONTRACT: &str = "/p2pdi.v1.";
    const ENROLL: &str = "/p2pdi.v1.Registry/Enroll";
    let path = request.uri().path();
    let is_open = path == ENROLL || !path.starts_with(CONTRACT);
    // Only calls from inside the process have no caller.
    if is_open || Caller::of(request.extensions()).is_none_or(|caller| caller.identity().is_some()) {
        return next.run(request).await;
    }
    certificate_missing().into_http()
}

/// The refusal of a call that came without a client certificate.
pub(crate) fn certificate_missing() -> Status {
    Reason::CertificateMissing
        .status("this call needs a client certificate of the network; get one with a token: `peerd --join TOKEN`, or `p2pctl login TOKEN`")
}

/// The refusal of a registry without an authority.
pub(crate) fn no_authority() -> Status {
    Reason::NoAuthority.status("this registry is no certificate authority; start it with --ca DIR")
}

fn status(error: CaError) -> Status {
    let text = error.to_string();
    let refusal = match error {
        CaError::Refused(refusal) => refusal,
        CaError::Invalid(field) => return field.into(),
        CaError::Request(_) => return InvalidField::new("certificate_request", text).into(),
        CaError::SharedKey => {
            let hint = error.hint().unwrap_or_default();
            return Reason::NoAuthority.status(format!("{text}; {hint}"));
        }
        CaError::NotStored(_) | CaError::Shared(_) | CaError::Io { .. } => {
            static LOG: LogLimit = LogLimit::new(1);
            if let Some(Line { suppressed }) = LOG.line() {
                tracing::error!(error = text, suppressed, "the certificate authority cannot store what it decides");
            }
            let message = "the registry cannot store what its certificate authority decides now; try again in a moment";
            return Reason::StoreUnavailable.status(message);
        }
        error => return internal("using the certificate authority", &error),
    };
    let token = |why: &str| Reason::TokenRefused.status_with(text.clone(), [("why", why.to_owned())]);
    match refusal {
        Refusal::TokenUnknown => token("unknown"),
        Refusal::TokenExpired { .. } => token("expired"),
        Refusal::TokenUsed { .. } => token("used"),
        Refusal::TokenRevoked { .. } => token("revoked"),
        Refusal::TokenOfOperator => token("operator"),
        Refusal::NameNeeded { .. } | Refusal::NameReserved(_) => InvalidField::new("name", text).into(),
        Refusal::NameNotYours { .. } => Reason::NameNotYours.status(text),
        Refusal::NameInUse(_) => Reason::NameTaken.status(text),
        Refusal::KeyUnknown | Refusal::CertificateRevoked(_) => Reason::CertificateRefused.status(text),
        Refusal::TooManyCertificates(_) => Reason::TooManyCertificates.status(text),
        Refusal::TooManyTokens(_) => Reason::TooManyTokens.status(text),
        Refusal::TokenIdUnknown(_) => Reason::TokenUnknown.status(text),
        Refusal::NameUnknown(_) => Reason::NameUnknown.status(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ca::{CaSettings, Subject};
    use std::collections::BTreeMap;

    #[test]
    fn of_two_revocations_at_once_none_is_lost() {
        let folder = tempfile::tempdir().unwrap();
        let now = SystemTime::now();
        let authority = Authority::open(folder.path(), CaSettings::default(), now).unwrap();
        let names = ["a", "b"].map(|name| name.parse::<PeerName>().unwrap());
        for name in &names {
            let subject = Subject { name: name.clone(), labels: BTreeMap::new(), operator: false };
            authority.issue(subject, Duration::from_secs(3_600), now).unwrap();
        }
        let enrolling = Enrolling::new(authority).unwrap();
        std::thread::scope(|threads| {
            // The first has stored its change and read the list. The second does all it can before the first sets its own.
            enrolling.authority.answer_revoke_name(&names[0], now).unwrap();
            let one_at_a_time = enrolling.revoking.lock().unwrap();
            let first = enrolling.authority.revoked(now);
            let second = threads.spawn(|| enrolling.revoke(&names[1], now).unwrap());
            let until = std::time::Instant::now() + Duration::from_secs(60);
            while enrolling.authority.revoked(now).len() < 2 {
                assert!(std::time::Instant::now() < until, "it is stored");
                std::thread::yield_now();
            }
            enrolling.tls.set_revoked(first);
            drop(one_at_a_time);
            second.join().unwrap();
        });
        for serial in enrolling.authority.revoked(now) {
            assert!(enrolling.tls.is_revoked(&serial));
        }
    }
}
