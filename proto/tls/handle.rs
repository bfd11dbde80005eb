//! A program's certificate, key and CAs, which can change while it runs.

use super::{
    ClientAuth, Expected, Identity, Pem, Serial, TlsError, TlsFiles, loaded::Loaded, material::Material, text, verify::Revoked,
};
use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::CertificateDer;
use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};
use tokio::sync::watch;

/// A program's own certificate with its key, and the CAs of its network. Clones share it. Connections that are made after a change use
/// the new certificates; those that are open go on.
#[derive(Clone)]
pub struct Tls(Arc<Shared>);

struct Shared {
    files: Option<TlsFiles>,
    auth: ClientAuth,
    /// What was read last, whether it can be used or not. Locked while it is replaced.
    seen: Mutex<Material>,
    loaded: watch::Sender<Arc<Loaded>>,
    revoked: Arc<Revoked>,
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
        let revoked = Arc::default();
        let loaded = watch::Sender::new(Arc::new(Loaded::new(&material, auth, &revoked)?));
        Ok(Self(Arc::new(Shared { files, auth, seen: Mutex::new(material), loaded, revoked })))
    }

    /// Uses `pem` from now on, such as a certificate that was renewed.
    ///
    /// # Errors
    /// When something of it cannot be used; then all stays as it was.
    pub fn replace(&self, pem: Pem) -> Result<(), TlsError> {
        let material = pem.into_material()?;
        self.use_material(&mut self.seen(), material)
    }

    /// Reads the files again, if it was made from files; whether they had changed. Blocks while it reads. What cannot be used is an
    /// error once, until the files change again.
    ///
    /// # Errors
    /// When a file cannot be read, or its new content cannot be used; then all stays as it was.
    pub fn reload(&self) -> Result<bool, TlsError> {
        let Some(files) = &self.0.files else { return Ok(false) };
        let material = files.read()?;
        let mut seen = self.seen();
        if *seen == material {
            return Ok(false);
        }
        self.use_material(&mut seen, material).map(|()| true)
    }

    fn use_material(&self, seen: &mut Material, material: Material) -> Result<(), TlsError> {
        let loaded = Loaded::new(&material, self.0.auth, &self.0.revoked);
        *seen = material;
        self.0.loaded.send_replace(Arc::new(loaded?));
        Ok(())
    }

    /// What the program's own certificate says; `None`: it has none.
    pub fn identity(&self) -> Option<Arc<Identity>> {
        self.0.loaded.borrow().identity.clone()
    }

    /// Waits until the certificate, the key or the CAs are replaced.
    pub async fn changed(&self) {
        // Fails only without a sender, and this is one.
        let _changed = self.0.loaded.subscribe().changed().await;
    }

    /// Refuses certificates with these serial numbers from now on, instead of those that were set before. Open connections go on.
    pub fn set_revoked(&self, serials: impl IntoIterator<Item = Serial>) {
        self.0.revoked.set(serials.into_iter().collect());
    }

    /// Whether certificates with this serial number are refused.
    pub fn is_revoked(&self, serial: &Serial) -> bool {
        self.0.revoked.contains(serial)
    }

    /// Checks a chain that was not shown on a connection, such as one that came with a signature: signatures up to a CA of the network,
    /// times, revocation.
    ///
    /// # Errors
    /// When it is refused.
    pub fn check(&self, chain: Vec<CertificateDer<'static>>, now: SystemTime) -> Result<Identity, TlsError> {
        let loaded = Arc::clone(&self.0.loaded.borrow());
        loaded.check(&chain, now, &self.0.revoked).map_err(|error| TlsError::Refused(text::describe(&error)))?;
        Identity::of_chain(chain).map_err(|error| TlsError::Refused(error.to_string()))
    }

    /// How to serve with it; `None`: it has no certificate.
    pub(crate) fn server_config(&self) -> Option<Arc<ServerConfig>> {
        self.0.loaded.borrow().server.clone()
    }

    /// How to dial `expected`.
    pub(crate) fn client_config(&self, expected: Expected) -> ClientConfig {
        let loaded = Arc::clone(&self.0.loaded.borrow());
        loaded.client(expected, &self.0.revoked)
    }

    fn seen(&self) -> MutexGuard<'_, Material> {
        self.0.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("identity", &self.identity()).finish_non_exhaustive()
    }
}
