//! The files of an enrolment: the key, which never leaves them, the certificates, and where the registry is.
//!
//! Each is PEM, for its owner only, and written whole or not at all, so other programs can use them, as in
//! `curl --cert certificate.pem --key key.pem --cacert ca.pem`.

use super::EnrolError;
use crate::{
    endpoint::Endpoint,
    hex,
    platform::create_private_folder,
    private_file,
    tls::{Pem, Serial},
    token::JoinToken,
};
use data_encoding::HEXLOWER_PERMISSIVE;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256};
use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs, io,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// The private key.
const KEY: &str = "key.pem";
/// The certificate, and those between it and the authorities.
const CERTIFICATE: &str = "certificate.pem";
/// The certificate authorities of the network.
const CA: &str = "ca.pem";
/// Addresses of the registry, one a line.
const REGISTRIES: &str = "registries";
/// The id of the token that the certificate was joined with: not its secret.
const TOKEN: &str = "token-id";

/// Longest serial number (RFC 5280, section 4.1.2.2).
const SERIAL_MAX_BYTES: usize = 20;
/// Serial numbers of revoked certificates, one a line, each with when it ends in seconds since 1970.
const REVOKED: &str = "revoked";

/// A folder with the files of one enrolment.
#[derive(Debug, Clone)]
pub(super) struct Folder(PathBuf);

impl Folder {
    /// Makes the folder, for its owner only.
    pub(super) fn open(path: &Path) -> Result<Self, EnrolError> {
        create_private_folder(path).map_err(|source| EnrolError::Io { doing: "make", path: path.to_owned(), source })?;
        Ok(Self(path.to_owned()))
    }

    /// The key, which is made if there is none. It is on disk before it is used: an enrolment whose answer was lost goes on with it.
    pub(super) fn key(&self) -> Result<KeyPair, EnrolError> {
        if let Some(text) = self.read(KEY)? {
            return KeyPair::from_pem(&text)
                .map_err(|error| EnrolError::Key { path: self.0.join(KEY), problem: error.to_string() });
        }
        self.new_key()
    }

    /// A new key, in place of the one that is there.
    pub(super) fn new_key(&self) -> Result<KeyPair, EnrolError> {
        let made = KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256);
        let key = made.map_err(|error| EnrolError::Key { path: self.0.join(KEY), problem: error.to_string() })?;
        self.write(KEY, key.serialize_pem())?;
        Ok(key)
    }

    /// What was enrolled; `None`: nothing yet.
    pub(super) fn enrolled(&self) -> Result<Option<(Pem, Vec<Endpoint>)>, EnrolError> {
        let (Some(key), Some(cert), Some(ca)) = (self.read(KEY)?, self.read(CERTIFICATE)?, self.read(CA)?) else {
            return Ok(None);
        };
        let registries = self.read(REGISTRIES)?.unwrap_or_default();
        // Others than those that this program wrote are left out.
        let registries = registries.lines().filter_map(|line| line.parse().ok()).collect();
        Ok(Some((Pem { cert: Some(cert.into()), key: Some(key.into()), ca: ca.into() }, registries)))
    }

    /// Stores what was enrolled. The certificate comes last: with it, the rest must be there.
    pub(super) fn store(&self, pem: &Pem, registries: &[Endpoint]) -> Result<(), EnrolError> {
        let lines: String = registries.iter().map(|registry| format!("{registry}\n")).collect();
        self.write(REGISTRIES, &lines)?;
        self.store_ca(&pem.ca)?;
        self.write(CERTIFICATE, pem.cert.as_deref().unwrap_or_default())
    }

    /// Stores the authorities alone.
    pub(super) fn store_ca(&self, ca: &[u8]) -> Result<(), EnrolError> {
        self.write(CA, ca)
    }

    /// Whether what was enrolled came with this token.
    pub(super) fn is_of_token(&self, token: &JoinToken) -> Result<bool, EnrolError> {
        Ok(self.read(TOKEN)?.is_some_and(|id| id.trim() == id_of(token)))
    }

    /// Remembers the token that the enrolment came with.
    pub(super) fn store_token(&self, token: &JoinToken) -> Result<(), EnrolError> {
        self.write(TOKEN, id_of(token))
    }

    /// Revoked certificates, with when each ends. Lines that this program did not write are left out.
    pub(super) fn revoked(&self) -> Result<BTreeMap<Serial, SystemTime>, EnrolError> {
        let text = self.read(REVOKED)?.unwrap_or_default();
        let entry = |line: &str| {
            let (serial, end) = line.split_once(' ')?;
            let end = UNIX_EPOCH.checked_add(Duration::from_secs(end.parse().ok()?))?;
            let serial = HEXLOWER_PERMISSIVE
                .decode(serial.as_bytes())
                .ok()
                .filter(|serial| (1..=SERIAL_MAX_BYTES).contains(&serial.len()))?;
            Some((Serial::new(&serial), end))
        };
        Ok(text.lines().filter_map(entry).collect())
    }

    /// Stores them, instead of those that were stored before.
    pub(super) fn store_revoked(&self, revoked: &BTreeMap<Serial, SystemTime>) -> Result<(), EnrolError> {
        let mut text = String::new();
        for (serial, end) in revoked {
            // Writing to a string does not fail.
            let _ = writeln!(text, "{serial} {}", end.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs());
        }
        self.write(REVOKED, text)
    }

    fn read(&self, name: &str) -> Result<Option<String>, EnrolError> {
        let path = self.0.join(name);
        match fs::read(&path) {
            // What is no text is damaged, which whoever looks into it finds out.
            Ok(bytes) => Ok(Some(String::from_utf8_lossy(&bytes).into_owned())),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(EnrolError::Io { doing: "read", path, source }),
        }
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> Result<(), EnrolError> {
        let path = self.0.join(name);
        private_file::write(&path, content).map_err(|source| EnrolError::Io { doing: "write", path, source })
    }
}

/// The whole hash of the secret, so that no two tokens have the same.
fn id_of(token: &JoinToken) -> String {
    hex::encode(&token.secret.hash().0)
}

/// A certificate request, signed by `key`: PKCS #10, DER. It names nobody; the registry knows who may have which name.
pub(super) fn certificate_request(key: &KeyPair) -> Result<Vec<u8>, EnrolError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(key).map_err(|error| EnrolError::Request(error.to_string()))?;
    Ok(request.der().to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_made_once_and_is_for_its_owner_only() {
        let state = tempfile::tempdir().unwrap();
        let folder = Folder::open(&state.path().join("tls")).unwrap();
        let key = folder.key().unwrap();
        assert_eq!(folder.key().unwrap().serialize_pem(), key.serialize_pem());
        assert!(folder.enrolled().unwrap().is_none());
        assert_ne!(folder.new_key().unwrap().serialize_pem(), key.serialize_pem());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
            assert_eq!((mode(&folder.0), mode(&folder.0.join(KEY))), (0o700, 0o600));
        }
    }

    #[test]
    fn what_was_enrolled_is_read_again() {
        let state = tempfile::tempdir().unwrap();
        let folder = Folder::open(state.path()).unwrap();
        let key = folder.key().unwrap().serialize_pem();
        let pem = Pem { cert: Some(b"c".to_vec()), key: Some(key.into()), ca: b"a".to_vec() };
        let registries: Vec<Endpoint> = vec!["r:7800".parse().unwrap(), "[::1]:7800".parse().unwrap()];
        folder.store(&pem, &registries).unwrap();
        assert!(folder.enrolled().unwrap() == Some((pem, registries)));
    }

    #[test]
    fn revoked_certificates_are_read_again_and_other_lines_are_left_out() {
        let state = tempfile::tempdir().unwrap();
        let folder = Folder::open(state.path()).unwrap();
        assert!(folder.revoked().unwrap().is_empty());
        let end = UNIX_EPOCH + Duration::from_secs(1_800_000_000);
        let revoked = BTreeMap::from([(Serial::new(&[1; 16]), end), (Serial::new(&[0x7f, 2]), end + Duration::from_secs(1))]);
        folder.store_revoked(&revoked).unwrap();
        assert_eq!(folder.revoked().unwrap(), revoked);
        let text = fs::read_to_string(state.path().join(REVOKED)).unwrap();
        fs::write(state.path().join(REVOKED), format!("nonsense\n01\nxy 7\n01 -3\n{text}")).unwrap();
        assert_eq!(folder.revoked().unwrap(), revoked);
    }

    #[test]
    fn a_key_that_is_damaged_is_named() {
        let state = tempfile::tempdir().unwrap();
        let folder = Folder::open(state.path()).unwrap();
        fs::write(state.path().join(KEY), "nonsense").unwrap();
        assert!(folder.key().unwrap_err().to_string().contains("key.pem"));
    }
}
