//! The keys and certificates of the authority: one file for each generation, `ca-1.pem`, `ca-2.pem` and so on.
//!
//! A file holds the private key (of the newest generation only), the self-signed certificate, and, of later generations, one more
//! certificate of the same key that the generation before signed: who trusts only the old one trusts what the new one signs, too. A file
//! is written whole or not at all, for its owner only. `ca.pem` has the certificates alone, for other programs.

use super::{
    certificates::{self, Validity},
    error::CaError,
};
use p2pdi::{
    network::NetworkName,
    platform::{Readers, readers},
    private_file,
    tls::certificates_pem,
    token::CaHash,
};
use rcgen::{CertificateParams, Issuer, KeyPair, PublicKeyData};
use rustls_pki_types::{
    CertificateDer, PrivateKeyDer,
    pem::{PemObject as _, SectionKind},
};
use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// The certificates of all generations that are trusted, for other programs.
const BUNDLE: &str = "ca.pem";
/// How long the generation that was replaced stays trusted: as long as a token lives that names it, and as long as a machine may be off
/// and renew its certificate by itself.
pub const OVERLAP: Duration = Duration::from_secs(30 * 24 * 60 * 60);
/// How long the key of a new generation may take to all registries that sign.
const SPREAD: Duration = Duration::from_secs(24 * 60 * 60);
/// Life of the authority's own certificate, in seconds: 10 years. It is replaced long before.
const AUTHORITY_LIFE: u64 = 10 * 365 * 24 * 60 * 60;

/// One generation.
pub(super) struct Generation {
    pub(super) number: u32,
    /// Self-signed.
    pub(super) certificate: CertificateDer<'static>,
    /// Signed by the generation before.
    pub(super) cross: Option<CertificateDer<'static>>,
    pub(super) validity: Validity,
}

/// All generations of a folder, the oldest first, and the key of the newest.
pub(super) struct Generations {
    folder: PathBuf,
    network: NetworkName,
    all: Vec<Generation>,
    /// The number of the one whose key this is.
    signing: u32,
    /// The certificates of those that the registries share, by number.
    shared: BTreeMap<u32, CertificateDer<'static>>,
    /// Those of the shared ledger that no known one signed.
    strangers: Vec<Generation>,
    issuer: Issuer<'static, KeyPair>,
}

/// A certificate of the authority, for people.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CaCertificate {
    /// Counts from 1; the one with the highest number signs.
    pub generation: u32,
    /// DER.
    pub certificate: CertificateDer<'static>,
    /// Of the DER.
    pub sha256: CaHash,
    /// In seconds since 1970.
    pub not_before: u64,
    /// In seconds since 1970.
    pub not_after: u64,
}

/// The certificates of the authority in `folder`, the oldest first. Needs no lock: a registry may have it open.
///
/// # Errors
/// When there is none, or a file cannot be read.
pub fn certificates_in(folder: &Path) -> Result<Vec<CaCertificate>, CaError> {
    let all = read_all(folder)?;
    if all.is_empty() {
        return Err(CaError::Missing(folder.to_owned()));
    }
    Ok(all.iter().map(|(generation, _)| generation.shown()).collect())
}

impl Generations {
    /// Whether `folder` has one.
    pub(super) fn are_in(folder: &Path) -> Result<bool, CaError> {
        Ok(!read_all(folder)?.is_empty())
    }

    /// Reads the generations of `folder`, or makes the first.
    pub(super) fn open_or_create(folder: &Path, network: &NetworkName, now: u64) -> Result<Self, CaError> {
        if !Self::are_in(folder)? {
            let (text, ..) = make(network, 1, None, now)?;
            write(&path_of(folder, 1), &text)?;
        }
        Self::open(folder)
    }

    /// Reads the generations of `folder`.
    pub(super) fn open(folder: &Path) -> Result<Self, CaError> {
        let mut all = read_all(folder)?;
        let Some((newest, key)) = all.last_mut() else { return Err(CaError::Missing(folder.to_owned())) };
        let key = key.take().ok_or_else(|| damaged(&path_of(folder, newest.number), "it has no private key"))?;
        let outdated: Vec<_> = all.iter().filter(|(_, key)| key.is_some()).map(|(found, _)| found.number).collect();
        let opened = Self::signing_with(folder, all.into_iter().map(|(generation, _)| generation).collect(), key)?;
        // A rotation that was killed leaves the old key; it is of no use any more.
        for generation in opened.all.iter().filter(|generation| outdated.contains(&generation.number)) {
            write(&path_of(folder, generation.number), &generation.certificates())?;
        }
        Ok(opened)
    }

    /// Reads the generations of `folder` and changes nothing in it: others read it, too.
    pub(super) fn read(folder: &Path) -> Result<Self, CaError> {
        let mut all = read_all(folder)?;
        let newest = all.iter_mut().rev().find_map(|(generation, key)| Some((generation.number, key.take()?)));
        let (signing, key) = newest.ok_or_else(|| CaError::Missing(folder.to_owned()))?;
        let all = all.into_iter().map(|(generation, _)| generation).filter(|found| found.number <= signing).collect();
        Self::signing_with(folder, all, key)
    }

    /// `key`: of the last of them.
    fn signing_with(folder: &Path, all: Vec<Generation>, key: KeyPair) -> Result<Self, CaError> {
        let Some(newest) = all.last() else { return Err(CaError::Missing(folder.to_owned())) };
        let (signing, path) = (newest.number, path_of(folder, newest.number));
        let network = check(&path, &newest.certificate, &key)?;
        let issuer = Issuer::from_ca_cert_der(&newest.certificate, key).map_err(|error| damaged(&path, &error.to_string()))?;
        Ok(Self { folder: folder.to_owned(), network, all, signing, shared: BTreeMap::new(), strangers: Vec::new(), issuer })
    }

    /// Warns if every user of this machine can read the key. Not each time that the folder is read again.
    pub(super) fn warn_of_readers(&self) {
        let path = path_of(&self.folder, self.signing);
        if readers(&path) == Readers::Everyone {
            let path = path.display();
            tracing::warn!(
                "every user of this machine can read the key of the certificate authority {path}; run `chmod 600 {path}`"
            );
        }
    }

    /// Reads the folder again: it may have the key of a newer generation. What is known of others stays.
    pub(super) fn read_again(&mut self) -> Result<(), CaError> {
        let found = Self::read(&self.folder)?;
        for generation in &found.all {
            self.check_shared(generation.number, &generation.certificate)?;
        }
        let signing = |of: &Self| of.all.iter().find(|known| known.number == of.signing).map(|known| known.certificate.clone());
        if signing(&found) == signing(self) {
            return Ok(());
        }
        let Self { all: known, shared, strangers, .. } = std::mem::replace(self, found);
        (self.shared, self.strangers) = (shared, strangers);
        for generation in known {
            if !self.all.iter().any(|found| found.number == generation.number) {
                self.all.push(generation);
            }
        }
        self.all.sort_unstable_by_key(|known| known.number);
        Ok(())
    }

    /// Another registry has a generation with these certificates. It is believed once one that is known here signed it, or it signed that one:
    /// whoever can write to the shared ledger cannot make an authority.
    pub(super) fn learn(&mut self, number: u32, certificates: &str) -> Result<(), CaError> {
        let row = Path::new("the shared ledger").join(format!("authorities/{number}"));
        let (generation, _) = of_pem(&row, number, certificates.as_bytes())?;
        if let Some(known) = self.all.iter().find(|known| known.number == number) {
            let certificate = known.certificate.clone();
            self.shared.insert(number, generation.certificate);
            return self.check_shared(number, &certificate);
        }
        self.strangers.push(generation);
        while let Some(at) = self.strangers.iter().position(|stranger| self.all.iter().any(|known| is_kin(known, stranger))) {
            let generation = self.strangers.swap_remove(at);
            self.shared.insert(generation.number, generation.certificate.clone());
            self.all.push(generation);
        }
        self.all.sort_unstable_by_key(|known| known.number);
        Ok(())
    }

    /// Generations of the shared ledger that are not believed.
    pub(super) fn strangers(&self) -> Vec<u32> {
        self.strangers.iter().map(|stranger| stranger.number).collect()
    }

    /// Whether the folder's certificate of this number is that of the others.
    fn check_shared(&self, number: u32, certificate: &CertificateDer<'_>) -> Result<(), CaError> {
        if self.shared.get(&number).is_none_or(|shared| shared == certificate) {
            return Ok(());
        }
        Err(CaError::OtherKey { path: path_of(&self.folder, number) })
    }

    /// The number of the one that signs here.
    pub(super) fn signing(&self) -> u32 {
        self.signing
    }

    /// The certificates of each, as PEM.
    pub(super) fn all(&self) -> impl Iterator<Item = (u32, String)> {
        self.all.iter().map(|generation| (generation.number, generation.certificates()))
    }

    /// The one that a token names: the newest, and where several registries sign the one before until all of them have its key, for a day.
    pub(super) fn named(&self, is_shared: bool, now: u64) -> &Generation {
        let newest = self.newest();
        let is_young = now < newest.validity.not_before + super::ledger::CLOCK_SKEW + SPREAD.as_secs();
        let before = self.all.iter().rev().nth(1).filter(|_| is_shared && is_young);
        before.unwrap_or(newest)
    }

    /// Makes the next generation, which signs from now on.
    pub(super) fn rotate(&mut self, now: u64) -> Result<(), CaError> {
        let number = self.newest().number + 1;
        let (text, generation, issuer) = make(&self.network, number, Some(&self.issuer), now)?;
        write(&path_of(&self.folder, number), &text)?;
        // The certificates that the old one signed stay valid; nobody needs its key.
        let old = self.newest();
        write(&path_of(&self.folder, old.number), &old.certificates())?;
        self.all.push(generation);
        self.signing = number;
        self.issuer = issuer;
        Ok(())
    }

    /// Writes the file for other programs: the certificates of those that are `trusted`.
    pub(super) fn write_bundle(&self, trusted: &[&Generation]) -> Result<(), CaError> {
        let certificates: Vec<_> = trusted.iter().map(|generation| &generation.certificate).collect();
        let text = certificates_pem(&certificates);
        let path = self.folder.join(BUNDLE);
        if fs::read_to_string(&path).is_ok_and(|present| present == text) {
            return Ok(());
        }
        write(&path, &text)
    }

    /// The network of the authority.
    pub(super) fn network(&self) -> &NetworkName {
        &self.network
    }

    #[expect(clippy::expect_used, reason = "there is one at least: `open` makes sure, and none is removed")]
    pub(super) fn newest(&self) -> &Generation {
        self.all.last().expect("a generation")
    }

    /// Those that are trusted at `now`: the newest, and others until `overlap` seconds after the one that replaced them began.
    pub(super) fn trusted(&self, overlap: u64, now: u64) -> Vec<&Generation> {
        let replaced_at = |index: usize| self.all.get(index + 1).map(|next| next.validity.not_before + super::ledger::CLOCK_SKEW);
        let is_trusted = |index: usize| replaced_at(index).is_none_or(|at| now < at + overlap);
        self.all.iter().enumerate().filter(|(index, _)| is_trusted(*index)).map(|(_, generation)| generation).collect()
    }

    /// The certificates between one that is signed here and the oldest that is trusted.
    pub(super) fn chain(&self, overlap: u64, now: u64) -> Vec<CertificateDer<'static>> {
        let trusted = self.trusted(overlap, now);
        let between = trusted.iter().skip(1).filter(|generation| generation.number <= self.signing);
        between.rev().filter_map(|generation| generation.cross.clone()).collect()
    }

    /// Signs a certificate.
    pub(super) fn sign(&self, params: &CertificateParams, key: &impl PublicKeyData) -> Result<CertificateDer<'static>, CaError> {
        let signed = params.signed_by(key, &self.issuer).map_err(|error| CaError::Signing(error.to_string()))?;
        Ok(signed.into())
    }
}

impl Generation {
    fn shown(&self) -> CaCertificate {
        CaCertificate {
            generation: self.number,
            certificate: self.certificate.clone(),
            sha256: CaHash::of(&self.certificate),
            not_before: self.validity.not_before,
            not_after: self.validity.not_after,
        }
    }

    fn certificates(&self) -> String {
        let all: Vec<_> = [Some(&self.certificate), self.cross.as_ref()].into_iter().flatten().collect();
        certificates_pem(&all)
    }
}

/// Whether what is in `folder` is of the network that was asked for.
pub(super) fn check_network(folder: &Path, found: &NetworkName, wanted: &NetworkName) -> Result<(), CaError> {
    if found == wanted {
        return Ok(());
    }
    Err(CaError::Network { path: folder.to_owned(), found: found.clone(), wanted: wanted.clone() })
}

/// Whether one of two generations signed the key of the other, and both are of one network.
fn is_kin(one: &Generation, other: &Generation) -> bool {
    let (older, newer) = if one.number < other.number { (one, other) } else { (other, one) };
    let Some(cross) = &newer.cross else { return false };
    let parsed = [&older.certificate, &newer.certificate, cross].map(|der| X509Certificate::from_der(der));
    let [Ok((_, older)), Ok((_, newer)), Ok((_, cross))] = parsed else { return false };
    let is_of_newer = cross.public_key().raw == newer.public_key().raw;
    let network = certificates::network_of(&older);
    is_of_newer
        && network.is_some()
        && network == certificates::network_of(&newer)
        && cross.verify_signature(Some(older.public_key())).is_ok()
}

/// A new generation: the text of its file, and what it is.
fn make(
    network: &NetworkName,
    number: u32,
    before: Option<&Issuer<'static, KeyPair>>,
    now: u64,
) -> Result<(String, Generation, Issuer<'static, KeyPair>), CaError> {
    let failed = |error: rcgen::Error| CaError::Signing(error.to_string());
    let key = KeyPair::generate().map_err(failed)?;
    let validity = Validity { not_before: now.saturating_sub(super::ledger::CLOCK_SKEW), not_after: now + AUTHORITY_LIFE };
    let params = || certificates::of_authority(network, number, &certificates::serial()?, validity);
    let certificate: CertificateDer<'static> = params()?.self_signed(&key).map_err(failed)?.into();
    let cross = match before {
        Some(before) => Some(params()?.signed_by(&key, before).map_err(failed)?.into()),
        None => None,
    };
    let key_text = key.serialize_pem();
    let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(failed)?;
    let generation = Generation { number, certificate, cross, validity };
    Ok((key_text + &generation.certificates(), generation, issuer))
}

/// All generations of `folder`, the oldest first, with their keys, as far as the files have them.
fn read_all(folder: &Path) -> Result<Vec<(Generation, Option<KeyPair>)>, CaError> {
    let cannot = |source| CaError::Io { doing: "read the folder", path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(cannot(error)),
    };
    let mut numbers = Vec::new();
    for entry in entries {
        let name = entry.map_err(cannot)?.file_name();
        let number = name.to_str().and_then(|name| name.strip_prefix("ca-")?.strip_suffix(".pem")?.parse::<u32>().ok());
        numbers.extend(number.filter(|number| *number > 0));
    }
    numbers.sort_unstable();
    numbers.into_iter().map(|number| read(&path_of(folder, number), number)).collect()
}

fn read(path: &Path, number: u32) -> Result<(Generation, Option<KeyPair>), CaError> {
    let bytes = fs::read(path).map_err(|source| CaError::Io { doing: "read", path: path.to_owned(), source })?;
    of_pem(path, number, &bytes)
}

fn of_pem(path: &Path, number: u32, bytes: &[u8]) -> Result<(Generation, Option<KeyPair>), CaError> {
    let sections = <(SectionKind, Vec<u8>)>::pem_slice_iter(bytes).collect::<Result<Vec<_>, _>>();
    let sections = sections.map_err(|error| damaged(path, &error.to_string()))?;
    let of_kind = |kind| sections.iter().filter(move |(found, _)| *found == kind).map(|(_, der)| der.clone());
    let key = of_kind(SectionKind::PrivateKey).next().map(|der| {
        let key = PrivateKeyDer::Pkcs8(der.into());
        KeyPair::try_from(&key).map_err(|error| damaged(path, &error.to_string()))
    });
    let mut certificates = of_kind(SectionKind::Certificate).map(CertificateDer::from);
    let certificate = certificates.next().ok_or_else(|| damaged(path, "it has no certificate"))?;
    let cross = certificates.next();
    let parsed = X509Certificate::from_der(&certificate).map_err(|error| damaged(path, &error.to_string()))?.1;
    let seconds = |time: x509_parser::time::ASN1Time| u64::try_from(time.timestamp()).unwrap_or(0);
    let validity =
        Validity { not_before: seconds(parsed.validity().not_before), not_after: seconds(parsed.validity().not_after) };
    Ok((Generation { number, certificate, cross, validity }, key.transpose()?))
}

/// Whether the key is that of the certificate; gives the certificate's network.
fn check(path: &Path, certificate: &CertificateDer<'_>, key: &KeyPair) -> Result<NetworkName, CaError> {
    let parsed = X509Certificate::from_der(certificate).map_err(|error| damaged(path, &error.to_string()))?.1;
    if parsed.public_key().raw != key.subject_public_key_info() {
        return Err(damaged(path, "its key is that of another certificate"));
    }
    certificates::network_of(&parsed).ok_or_else(|| damaged(path, "its certificate names no network"))
}

fn path_of(folder: &Path, number: u32) -> PathBuf {
    folder.join(format!("ca-{number}.pem"))
}

/// Mode 0600.
fn write(path: &Path, text: &str) -> Result<(), CaError> {
    private_file::write(path, text).map_err(|source| CaError::Io { doing: "write", path: path.to_owned(), source })
}

fn damaged(path: &Path, problem: &str) -> CaError {
    CaError::Damaged { path: path.to_owned(), problem: problem.to_owned() }
}
