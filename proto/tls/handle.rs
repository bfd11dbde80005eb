//! A program's certificate, key and CAs, which can change while it runs.

use super::{
    ClientAuth, Expected, Identity, Pem, Serial, Signature, TlsError, TlsFiles,
    loaded::Loaded,
    material::Material,
    signature, text,
    verify::{OtherNetwork, Rules},
};
use crate::network::NetworkName;
use rustls::ClientConfig;
use rustls_pki_types::CertificateDer;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};
use tokio::{
    sync::watch,
    task::spawn_blocking,
    time::{MissedTickBehavior, interval, sleep},
};

/// How often the files are read again. Nobody waits for a new certificate for longer.
const RELOAD_INTERVAL: Duration = Duration::from_secs(2);
/// When files that do not fit together are read once more before that is reported: they are replaced one after the other.
const RETRY_DELAY: Duration = Duration::from_millis(300);

/// A program's own certificate with its key, and the CAs of its network. Clones share it. Connections that are made after a change use
/// the new certificates; those that are open go on.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: Option<TlsFiles>,
    auth: ClientAuth,
    /// What is used. Locked while it is replaced.
    used: Mutex<Material>,
    loaded: watch::Sender<Arc<Loaded>>,
    rules: Arc<Rules>,
}

impl Tls {
    /// Reads `files`. Blocks while it does. Each of them may change later: see [`Tls::reload`].
    ///
    /// # Errors
    /// When a file cannot be read, or what is in it cannot be used.
    pub fn from_files(files: TlsFiles, auth: ClientAuth) -> Result<Self, TlsError> {
        if files.is_key_readable_by_others() {
            let key = files.key.as_deref().unwrap_or(&files.ca).display();
            tracing::warn!("every user of this machine can read the key {key}; run `chmod 600 {key}`");
        }
        let material = files.read()?;
        Self::new(Some(files), material, auth)
    }

    /// From memory.
    ///
    /// # Errors
    /// When something of it cannot be used.
    pub fn from_pem(pem: Pem, auth: ClientAuth) -> Result<Self, TlsError> {
        Self::new(None, pem.into_material()?, auth)
    }

    fn new(files: Option<TlsFiles>, material: Material, auth: ClientAuth) -> Result<Self, TlsError> {
        let rules = Arc::default();
        let loaded = watch::Sender::new(Arc::new(Loaded::new(&material, auth, &rules)?));
        Ok(Self(Arc::new(Shared { files, auth, used: Mutex::new(material), loaded, rules })))
    }

    /// Uses `pem` from now on, such as a certificate that was renewed.
    ///
    /// # Errors
    /// When something of it cannot be used; then all stays as it was.
    pub fn replace(&self, pem: Pem) -> Result<(), TlsError> {
        let material = pem.into_material()?;
        self.use_material(&mut self.used(), material)
    }

    /// Reads the files again, if it was made from files; whether they had changed. Blocks while it reads.
    ///
    /// # Errors
    /// When a file cannot be read, or its new content cannot be used; then all stays as it was.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Some(files) = &self.0.files else { return Ok(false) };
        let material = files.read()?;
        let mut used = self.used();
        if *used == material {
            return Ok(false);
        }
        self.use_material(&mut used, material).map(|()| true)
    }

    fn use_material(&self, used: &mut Material, material: Material) -> Result<(), TlsError> {
        let loaded = Loaded::new(&material, self.0.auth, &self.0.rules)?;
        self.check_own_network(loaded.identity.as_deref())?;
        *used = material;
        self.0.loaded.send_replace(Arc::new(loaded));
        Ok(())
    }

    /// Reads the files again every few seconds, for ever, and calls `look` each time. What cannot be used is logged, and the old
    /// certificates stay in use.
    pub async fn follow_files(&self, mut look: impl FnMut(&Self)) {
        let mut ticks = interval(RELOAD_INTERVAL);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut reported = None;
        loop {
            ticks.tick().await;
            let mut outcome = self.reload_apart().await;
            if outcome.is_err() {
                sleep(RETRY_DELAY).await;
                outcome = self.reload_apart().await;
            }
            match outcome {
                Ok(changed) => {
                    reported = None;
                    if changed {
                        tracing::info!(certificate = ?self.identity(), "the files of certificates changed, and are used");
                    }
                }
                Err(error) if reported.as_ref() == Some(&error) => {}
                Err(error) => {
                    tracing::warn!("{error}; the certificates that were read before stay in use");
                    reported = Some(error);
                }
            }
            look(self);
        }
    }

    /// Whether they changed, or what is wrong with them.
    async fn reload_apart(&self) -> Result<bool, String> {
        let tls = self.clone();
        let reloaded = spawn_blocking(move || tls.reload()).await;
        reloaded.map_err(|error| error.to_string())?.map_err(|error| error.to_string())
    }

    /// What the program's own certificate says; `None`: it has none.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.0.loaded.borrow().identity.clone()
    }

    /// From now on certificates whose SPIFFE id is of another network than this are refused: those that others show, and the program's own.
    /// Certificates without a SPIFFE id of a network are of all.
    ///
    /// # Errors
    /// When the program's own certificate is of another network.
    pub fn set_network(&self, network: &NetworkName) -> Result<(), TlsError> {
        self.0.rules.set_network(network.clone());
        self.check_own_network(self.identity().as_deref())
    }

    fn check_own_network(&self, own: Option<&Identity>) -> Result<(), TlsError> {
        let checked = own.map_or(Ok(()), |own| self.0.rules.check_network(own));
        checked.map_err(|OtherNetwork { found, own }| TlsError::OtherNetwork { found, own })
    }

    /// Waits until the certificate, the key or the CAs are replaced.
    pub async fn changed(&self) {
        // Fails only without a sender, and this is one.
        let _changed = self.0.loaded.subscribe().changed().await;
    }

    /// Refuses certificates with these serial numbers from now on, instead of those that were set before. Open connections with their
    /// holders end.
    pub fn set_revoked(&self, serials: impl IntoIterator<Item = Serial>) {
        self.0.rules.revoked.set(serials.into_iter().collect());
    }

    /// Whether certificates with this serial number are refused.
    pub fn is_revoked(&self, serial: &Serial) -> bool {
        self.0.rules.revoked.contains(serial)
    }

    /// Completes once the certificate with this serial number is refused.
    pub(crate) fn until_revoked(&self, serial: &Serial) -> impl Future<Output = ()> + use<> {
        self.0.rules.revoked.until(serial.clone())
    }

    /// Checks a chain that was not shown on a connection, such as one that came with a signature: signatures up to a CA of the network,
    /// times, revocation.
    ///
    /// # Errors
    /// When it is refused.
    pub fn check(&self, chain: Vec<CertificateDer<'static>>, now: SystemTime) -> Result<Identity, TlsError> {
        let loaded = Arc::clone(&self.0.loaded.borrow());
        loaded.check(&chain, now, &self.0.rules).map_err(|error| TlsError::Refused(text::describe(&error)))?;
        Identity::of_chain(chain).map_err(|error| TlsError::Refused(error.to_string()))
    }

    /// Signs `message` with the key of the program's own certificate. Takes some 30 µs with ECDSA P-256 or Ed25519.
    ///
    /// # Errors
    /// When there is no certificate.
    pub fn sign(&self, message: &[u8]) -> Result<Signature, TlsError> {
        let loaded = Arc::clone(&self.0.loaded.borrow());
        let own = loaded.own.as_ref().ok_or(TlsError::NoCertificate)?;
        signature::sign(own, &loaded.algorithms(), message)
    }

    /// Whether the holder of a certificate signed `message`. The certificate itself is checked by [`Tls::check`].
    pub fn is_signed_by(&self, identity: &Identity, message: &[u8], signature: &Signature) -> bool {
        let loaded = Arc::clone(&self.0.loaded.borrow());
        signature::verifies(identity, &loaded.algorithms(), message, signature)
    }

    /// How to serve with it; `None`: it has no certificate.
    #[cfg(feature = "server")]
    pub(crate) fn server_config(&self) -> Option<Arc<rustls::ServerConfig>> {
        self.0.loaded.borrow().server.clone()
    }

    /// How to dial `expected`.
    pub(crate) fn client_config(&self, expected: Expected) -> ClientConfig {
        let loaded = Arc::clone(&self.0.loaded.borrow());
        loaded.client(expected, &self.0.rules)
    }

    fn used(&self) -> MutexGuard<'_, Material> {
        self.0.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity()).finish_non_exhaustive()
    }
}
