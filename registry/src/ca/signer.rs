//! An authority without a ledger: it signs what its caller says, and knows of no tokens and no revocations.

use super::{
    certificates::{self, Validity, seconds},
    error::CaError,
    generations::{Generations, OVERLAP, check_network},
    ledger::{CLOCK_SKEW, Subject},
};
use p2pdi::{
    name::PeerName,
    network::NetworkName,
    tls::{Pem, certificates_pem},
    token::CaHash,
};
use rcgen::{CertificateParams, KeyPair};
use rustls_pki_types::CertificateDer;
use std::{
    collections::BTreeMap,
    path::Path,
    time::{Duration, SystemTime},
};

/// Life of the certificate of [`operator_of_folder`]: one call, and clocks that differ.
const OPERATOR_OF_FOLDER_LIFE: Duration = Duration::from_secs(10 * 60);

/// Signs with the key of an authority's folder. Nothing of what it signs is kept: who uses it keeps the certificates.
pub struct Signer {
    generations: Generations,
}

impl Signer {
    /// Opens the authority in `folder`, or makes one there for `network`. One whose key is older than `rotate_after` gets a new key, which
    /// the old one signs.
    ///
    /// # Errors
    /// When the folder has the authority of another network, a file is damaged, or the folder cannot be used.
    pub fn open(folder: &Path, network: &NetworkName, rotate_after: Duration, now: SystemTime) -> Result<Self, CaError> {
        let mut generations = Generations::open_or_create(folder, network, seconds(now))?;
        check_network(folder, generations.network(), network)?;
        let age = seconds(now).saturating_sub(generations.newest().validity.not_before + CLOCK_SKEW);
        if age >= rotate_after.as_secs() {
            generations.rotate(seconds(now))?;
        }
        Ok(Self { generations })
    }

    pub(super) fn of(generations: Generations) -> Self {
        Self { generations }
    }

    /// The certificates of the authorities that are trusted, as PEM.
    pub fn trusted(&self, now: SystemTime) -> String {
        certificates_pem(&self.trusted_certificates(now))
    }

    /// Whether the key that signs now signed this certificate.
    pub fn has_signed(&self, certificate: &CertificateDer<'_>) -> bool {
        let of_issuer = certificates::issuer_key_identifier(certificate);
        of_issuer.is_some() && of_issuer == certificates::key_identifier(&self.generations.newest().certificate)
    }

    /// A key and a certificate for a registry. `hosts`: how it is dialled.
    ///
    /// # Errors
    /// When a host cannot be in a certificate.
    pub fn registry(&self, hosts: &[String], life: Duration, now: SystemTime) -> Result<Pem, CaError> {
        let network = self.generations.network();
        self.sign(&certificates::of_registry(network, hosts, &certificates::serial()?, Validity::new(life, now))?, now)
    }

    /// A key and a certificate for a peer or an operator.
    ///
    /// # Errors
    /// When it cannot be signed.
    pub fn subject(&self, subject: &Subject, life: Duration, now: SystemTime) -> Result<Pem, CaError> {
        let network = self.generations.network();
        self.sign(&certificates::of_subject(subject, network, &certificates::serial()?, Validity::new(life, now))?, now)
    }

    fn sign(&self, params: &CertificateParams, now: SystemTime) -> Result<Pem, CaError> {
        let key = KeyPair::generate().map_err(|error| CaError::Signing(error.to_string()))?;
        let mut chain = vec![self.generations.sign(params, &key)?];
        chain.extend(self.generations.chain(OVERLAP.as_secs(), seconds(now)));
        Ok(Pem {
            cert: Some(certificates_pem(&chain).into()),
            key: Some(key.serialize_pem().into()),
            ca: self.trusted(now).into(),
        })
    }

    fn trusted_certificates(&self, now: SystemTime) -> Vec<CertificateDer<'static>> {
        let trusted = self.generations.trusted(OVERLAP.as_secs(), seconds(now));
        trusted.into_iter().map(|generation| generation.certificate.clone()).collect()
    }
}

/// A certificate for somebody who can read the authority's own key, and so may do all that an operator may: for some minutes, known to
/// no ledger. A registry may have the folder open.
///
/// # Errors
/// When there is no authority, or its key cannot be read.
pub fn operator_of_folder(folder: &Path, now: SystemTime) -> Result<Pem, CaError> {
    let name: PeerName = "ca-folder".parse()?;
    let subject = Subject { name, labels: BTreeMap::new(), operator: true };
    Signer::of(Generations::read(folder)?).subject(&subject, OPERATOR_OF_FOLDER_LIFE, now)
}

/// Replaces the key in a folder that has no ledger: of registries that share theirs, which get the new files from there.
///
/// # Errors
/// When there is no authority, or it cannot be written.
pub fn rotate_in_folder(folder: &Path, now: SystemTime) -> Result<CaHash, CaError> {
    let mut generations = Generations::open(folder)?;
    generations.rotate(seconds(now))?;
    generations.write_bundle(&generations.trusted(OVERLAP.as_secs(), seconds(now)))?;
    Ok(CaHash::of(&generations.newest().certificate))
}
