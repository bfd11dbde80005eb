//! Certificates, keys and CAs as PEM text: from files, or from memory.

use super::TlsError;
use crate::platform::{Readers, readers};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{self, PemObject as _},
};
use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

/// Largest file read, in bytes: hundreds of certificates.
const FILE_MAX_BYTES: u64 = 1024 * 1024;
/// Section of a key that needs a password (RFC 7468, section 11).
const ENCRYPTED: &[u8] = b"-----BEGIN ENCRYPTED PRIVATE KEY-----";

/// The PEM files of a program.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TlsFiles {
    /// The program's certificate, followed by those of intermediate CAs, if there are any. `None`: it shows none, and cannot serve.
    pub cert: Option<PathBuf>,
    /// The key of that certificate: PKCS #8, SEC1 or PKCS #1, without a password.
    pub key: Option<PathBuf>,
    /// The CAs of the network.
    pub ca: PathBuf,
}

/// The same in memory, as PEM text.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The program's certificate, followed by those of intermediate CAs, if there are any.
    pub cert: Option<Vec<u8>>,
    /// The key of that certificate.
    pub key: Option<Vec<u8>>,
    /// The CAs of the network.
    pub ca: Vec<u8>,
}

/// What was read, with where from, for errors.
#[derive(Clone, PartialEq, Eq)]
pub(super) struct Material {
    pub(super) own: Option<(Part, Part)>,
    pub(super) ca: Part,
}

#[derive(Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) place: String,
    pem: Vec<u8>,
}

impl TlsFiles {
    pub(super) fn read(&self) -> Result<Material, TlsError> {
        let own = match (&self.cert, &self.key) {
            (Some(cert), Some(key)) => Some((Part::read("certificate", cert)?, Part::read("key", key)?)),
            (None, None) => None,
            _ => return Err(TlsError::CertWithoutKey),
        };
        Ok(Material { own, ca: Part::read("CA", &self.ca)? })
    }

    /// Whether every user of this machine may read the key.
    pub(super) fn is_key_readable_by_others(&self) -> bool {
        self.key.as_deref().is_some_and(|key| readers(key) == Readers::Everyone)
    }
}

impl Pem {
    pub(super) fn into_material(self) -> Result<Material, TlsError> {
        let part = |what: &str, pem| Part { place: format!("the {what} given"), pem };
        let own = match (self.cert, self.key) {
            (Some(cert), Some(key)) => Some((part("certificate", cert), part("key", key))),
            (None, None) => None,
            _ => return Err(TlsError::CertWithoutKey),
        };
        Ok(Material { own, ca: part("CA", self.ca) })
    }
}

impl Part {
    fn read(what: &'static str, path: &Path) -> Result<Self, TlsError> {
        let failed = |source| TlsError::Read { what, path: path.to_owned(), source };
        let mut pem = Vec::new();
        File::open(path).and_then(|file| file.take(FILE_MAX_BYTES).read_to_end(&mut pem)).map_err(failed)?;
        Ok(Self { place: path.display().to_string(), pem })
    }

    /// Its certificates, of which there is at least one.
    pub(super) fn certificates(&self) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let read: Result<Vec<_>, pem::Error> = CertificateDer::pem_slice_iter(&self.pem).collect();
        let certificates = read.map_err(|error| self.not_pem(&error))?;
        if certificates.is_empty() { Err(self.lacks("certificate")) } else { Ok(certificates) }
    }

    pub(super) fn key(&self) -> Result<PrivateKeyDer<'static>, TlsError> {
        if self.pem.windows(ENCRYPTED.len()).any(|window| window == ENCRYPTED) {
            return Err(TlsError::KeyEncrypted { place: self.place.clone() });
        }
        PrivateKeyDer::from_pem_slice(&self.pem).map_err(|error| match error {
            pem::Error::NoItemsFound => self.lacks("private key"),
            error => self.not_pem(&error),
        })
    }

    /// Without a section of PEM at all it is something else, such as DER.
    fn lacks(&self, what: &'static str) -> TlsError {
        let place = self.place.clone();
        let is_pem = self.pem.windows(11).any(|window| window == b"-----BEGIN ");
        if is_pem {
            TlsError::Lacks { place, what }
        } else {
            TlsError::NotPem { place, problem: "it has no line -----BEGIN".into() }
        }
    }

    fn not_pem(&self, error: &pem::Error) -> TlsError {
        TlsError::NotPem { place: self.place.clone(), problem: error.to_string() }
    }
}
