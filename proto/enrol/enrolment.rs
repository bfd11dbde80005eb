//! A certificate from a registry: joined for, stored, used, renewed.

use super::{
    EnrolError, client,
    folder::{Folder, certificate_request},
    renewal_at, retries,
};
use crate::{
    endpoint::Endpoint,
    name::PeerName,
    tls::{ClientAuth, Identity, Pem, Tls},
    token::JoinToken,
    v1::EnrollRequest,
};
use std::{
    fmt,
    net::IpAddr,
    path::Path,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{task::spawn_blocking, time::sleep};
use tokio_util::sync::CancellationToken;

/// Longest sleep until a renewal is due. Sleeps stand still while the machine is suspended, and the certificate's life does not.
const SLEEP_MAX: Duration = Duration::from_secs(60);

/// How to join a network.
#[derive(Debug, Clone)]
pub struct Joining {
    /// The token.
    pub token: JoinToken,
    /// The name wanted; `None`: the one that the token is for.
    pub name: Option<PeerName>,
    /// The name for a token that is for several names, if none is wanted.
    pub name_default: Option<PeerName>,
    /// The local address to dial from; `None`: the system chooses.
    pub from: Option<IpAddr>,
    /// Whether callers of the program must show a certificate.
    pub auth: ClientAuth,
    /// A peer has no use for the certificate of an operator: a token for one is refused, and keeps its use.
    pub is_peer: bool,
}

/// A program's certificate, in its folder and in use. Clones share it.
#[derive(Clone)]
pub struct Enrolment(Arc<Shared>);

struct Shared {
    folder: Folder,
    tls: Tls,
    /// Tried in order.
    registries: Vec<Endpoint>,
    from: Option<IpAddr>,
    /// What `tls` uses.
    pem: Mutex<Pem>,
}

impl Enrolment {
    /// What `folder` has of an earlier enrolment; `None`: nothing. Its certificate may have ended: [`Self::renew`] gets a new one.
    ///
    /// # Errors
    /// When the files cannot be read, or are damaged.
    pub fn stored(folder: &Path, from: Option<IpAddr>, auth: ClientAuth) -> Result<Option<Self>, EnrolError> {
        let folder = Folder::open(folder)?;
        let Some((pem, registries)) = folder.enrolled()? else { return Ok(None) };
        Ok(Some(Self::of(folder, pem, registries, from, auth)?))
    }

    /// The certificate that this token gave, if it did already, and otherwise one that it gives now. Of a certificate that ended, a new
    /// one.
    ///
    /// # Errors
    /// When the registry does not answer or refuses, what answers is not the token's registry, or the folder cannot be used.
    pub async fn join(folder: &Path, joining: &Joining) -> Result<Self, EnrolError> {
        let token = &joining.token;
        let files = Folder::open(folder)?;
        let stored = match Self::stored(folder, joining.from, joining.auth) {
            // As if they were gone: with the key the registry gives new ones.
            Err(EnrolError::Unusable(error)) => {
                tracing::warn!(folder = %folder.display(), %error, "what is stored of the certificates cannot be used; asking for new ones");
                None
            }
            stored => stored?,
        };
        if let Some(stored) = stored
            && files.is_of_token(token)?
            && joining.name.as_ref().is_none_or(|name| stored.identity().is_some_and(|own| own.has_name(name)))
        {
            if stored.has_ended(SystemTime::now())
                && let Err(error) = stored.renew().await
            {
                // After a power cut the registry may come back later than its peers.
                if !error.is_passing() {
                    return Err(error);
                }
                tracing::warn!(%error, "the certificate has ended, and cannot be renewed now; trying again while the program runs");
            }
            return Ok(stored);
        }
        let key = files.key()?;
        let mut last = None;
        for registry in &token.registries {
            match Self::join_at(registry, &files, &key, joining).await {
                Err(error) if error.is_of_one_address() => last = Some(error),
                joined => return joined,
            }
        }
        // A token has one address at least.
        Err(last.unwrap_or_else(|| EnrolError::Request("the token has no address".into())))
    }

    async fn join_at(registry: &Endpoint, files: &Folder, key: &rcgen::KeyPair, joining: &Joining) -> Result<Self, EnrolError> {
        let token = &joining.token;
        let authority = client::authority_at(registry, token.ca, joining.from).await?;
        let tls = client::without_certificate(crate::tls::certificates_pem(&[authority]).into())?;
        let request = |name: Option<&PeerName>| {
            Ok::<_, EnrolError>(EnrollRequest {
                secret: token.secret.reveal().to_vec().into(),
                certificate_request: certificate_request(key)?.into(),
                name: name.map(ToString::to_string).unwrap_or_default(),
                peer: joining.is_peer,
            })
        };
        let answer = match client::enroll(registry, &tls, joining.from, request(joining.name.as_ref())?).await {
            // The token is for several names.
            Err(error) if error.is_about("name") && joining.name.is_none() && joining.name_default.is_some() => {
                client::enroll(registry, &tls, joining.from, request(joining.name_default.as_ref())?).await?
            }
            answered => answered?,
        };
        let pem = client::pem_of(registry, &answer, key.serialize_pem())?;
        let enrolment =
            Self::of(files.clone(), pem.clone(), registries(registry, &token.registries), joining.from, joining.auth)?;
        files.store(&pem, &enrolment.0.registries)?;
        files.store_token(token)?;
        Ok(enrolment)
    }

    fn of(
        folder: Folder,
        pem: Pem,
        registries: Vec<Endpoint>,
        from: Option<IpAddr>,
        auth: ClientAuth,
    ) -> Result<Self, EnrolError> {
        let tls = Tls::from_pem(pem.clone(), auth)?;
        Ok(Self(Arc::new(Shared { folder, tls, registries, from, pem: Mutex::new(pem) })))
    }

    /// For the connections of the program. It always has the present certificate.
    pub fn tls(&self) -> &Tls {
        &self.0.tls
    }

    /// What the certificate says.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.0.tls.identity()
    }

    /// The registry's addresses, to be tried in order: the one that answered first, then the others of the token.
    pub fn registries(&self) -> &[Endpoint] {
        &self.0.registries
    }

    fn has_ended(&self, now: SystemTime) -> bool {
        self.identity().is_none_or(|own| own.not_after() <= now)
    }

    /// Gets a new certificate with the present one; if that has ended, with its key.
    ///
    /// # Errors
    /// When no registry answers, or one refuses. The present certificate stays in use.
    pub async fn renew(&self) -> Result<(), EnrolError> {
        // One that has ended is not accepted on a connection.
        let tls = match self.has_ended(SystemTime::now()) {
            true => client::without_certificate(self.pem().ca.clone())?,
            false => self.0.tls.clone(),
        };
        let key = self.0.folder.key()?;
        let request = EnrollRequest { certificate_request: certificate_request(&key)?.into(), ..Default::default() };
        let mut last = None;
        for registry in &self.0.registries {
            let answer = match client::enroll(registry, &tls, self.0.from, request.clone()).await {
                Err(error) if error.is_of_one_address() => {
                    last = Some(error);
                    continue;
                }
                answered => answered?,
            };
            let pem = client::pem_of(registry, &answer, key.serialize_pem())?;
            let (renewed, registries) = (self.clone(), self.0.registries.clone());
            let stored = spawn_blocking(move || renewed.take(pem, &registries)).await;
            return stored.map_err(|error| EnrolError::Request(error.to_string()))?;
        }
        Err(last.unwrap_or_else(|| EnrolError::Request("no address of the registry is known".into())))
    }

    /// Uses these certificates from now on, and stores them. If they cannot be stored they are used nevertheless.
    fn take(&self, pem: Pem, registries: &[Endpoint]) -> Result<(), EnrolError> {
        let mut present = self.pem();
        self.0.tls.replace(pem.clone())?;
        *present = pem;
        self.0.folder.store(&present, registries)
    }

    /// Trusts these authorities (PEM) from now on, and stores them.
    ///
    /// # Errors
    /// When one of them is none, or they cannot be stored.
    pub(super) fn set_authorities(&self, ca: Vec<u8>) -> Result<(), EnrolError> {
        let mut present = self.pem();
        if present.ca == ca {
            return Ok(());
        }
        let pem = Pem { ca, ..present.clone() };
        self.0.tls.replace(pem.clone())?;
        *present = pem;
        self.0.folder.store_ca(&present.ca)
    }

    /// The folder that it is kept in.
    pub(super) fn folder(&self) -> &Folder {
        &self.0.folder
    }

    /// Renews the certificate whenever two thirds of its life have passed, until `stop`. A registry that does not answer is asked again with
    /// growing pauses, without end: a certificate that ended meanwhile can still be renewed for a month.
    pub async fn keep_renewed(self, stop: CancellationToken) {
        let _stopped: Option<()> = stop.run_until_cancelled(self.renew_forever()).await;
    }

    async fn renew_forever(&self) {
        let Some(mut own) = self.identity() else { return };
        let mut due = renewal_at(own.not_before(), own.not_after(), rand_fraction());
        let mut backoff = retries(own.not_before(), own.not_after()).start();
        loop {
            let left = due.duration_since(SystemTime::now()).unwrap_or_default();
            if !left.is_zero() {
                sleep(left.min(SLEEP_MAX)).await;
                continue;
            }
            match self.renew().await {
                Ok(()) => {
                    own = self.identity().unwrap_or(own);
                    due = renewal_at(own.not_before(), own.not_after(), rand_fraction());
                    backoff = retries(own.not_before(), own.not_after()).start();
                    tracing::info!(until = %humantime_of(own.not_after()), "the certificate was renewed");
                }
                Err(error) => {
                    let pause = backoff.next(rand_fraction());
                    due = SystemTime::now() + pause;
                    report(&error, own.not_after());
                }
            }
        }
    }

    fn pem(&self) -> MutexGuard<'_, Pem> {
        self.0.pem.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Enrolment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Enrolment")
            .field("identity", &self.identity())
            .field("registries", &self.0.registries)
            .finish_non_exhaustive()
    }
}

fn report(error: &EnrolError, not_after: SystemTime) {
    let left = not_after.duration_since(SystemTime::now()).ok();
    match left {
        Some(left) => tracing::warn!(%error, ?left, "cannot renew the certificate; trying again"),
        None => tracing::error!(%error, "cannot renew the certificate, which has ended; trying again"),
    }
}

/// `first`, then the others.
fn registries(first: &Endpoint, all: &[Endpoint]) -> Vec<Endpoint> {
    [first].into_iter().chain(all.iter().filter(|other| *other != first)).cloned().collect()
}

/// In `0.0..1.0`; 0.5 where the system has no randomness.
fn rand_fraction() -> f64 {
    let mut bytes = [0; 4];
    match getrandom::fill(&mut bytes) {
        Ok(()) => f64::from(u32::from_le_bytes(bytes)) / (f64::from(u32::MAX) + 1.0),
        Err(_) => 0.5,
    }
}

fn humantime_of(time: SystemTime) -> String {
    jiff::Timestamp::try_from(time).map_or_else(|_| "?".to_owned(), |time| time.to_string())
}
