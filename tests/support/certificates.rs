//! Certificates of networks that exist in a test only.

#![allow(dead_code, unreachable_pub, reason = "each test program uses its part")]

use p2pdi::tls::{ClientAuth, Pem, Tls, TlsFiles};
use rcgen::{BasicConstraints, Certificate, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType};
use std::{
    fs,
    path::{Path, PathBuf},
};

/// A CA.
pub struct Authority {
    ca: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key.
pub struct Issued {
    pub certificate: Certificate,
    pub key: KeyPair,
}

impl Authority {
    pub fn new(name: &str) -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, name);
        Self { ca: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    pub fn pem(&self) -> String {
        self.ca.pem()
    }

    /// A certificate for these names: DNS names, addresses and URIs.
    pub fn issue(&self, names: &[&str]) -> Issued {
        self.issue_with(names, |_| {})
    }

    /// The same, with its parameters changed.
    pub fn issue_with(&self, names: &[&str], change: impl FnOnce(&mut CertificateParams)) -> Issued {
        let (key, mut params) = (KeyPair::generate().unwrap(), params(names));
        change(&mut params);
        Issued { certificate: params.signed_by(&key, &self.ca).unwrap(), key }
    }

    /// What a program of the network uses whose certificate is for these names.
    pub fn tls(&self, names: &[&str]) -> Tls {
        self.tls_of(&self.issue(names))
    }

    pub fn tls_of(&self, issued: &Issued) -> Tls {
        issued.tls(&self.pem(), ClientAuth::Required).unwrap()
    }

    /// What a program uses that has no certificate.
    pub fn tls_without_certificate(&self) -> Tls {
        Tls::from_pem(Pem { cert: None, key: None, ca: self.pem().into_bytes() }, ClientAuth::Required).unwrap()
    }

    /// The files of a program, in `folder`.
    pub fn files(&self, folder: &Path, names: &[&str]) -> TlsFiles {
        fs::create_dir_all(folder).unwrap();
        let files =
            TlsFiles { cert: Some(folder.join("cert.pem")), key: Some(folder.join("key.pem")), ca: folder.join("ca.pem") };
        fs::write(&files.ca, self.pem()).unwrap();
        self.issue(names).write(&files);
        files
    }
}

impl Issued {
    pub fn tls(&self, ca: &str, auth: ClientAuth) -> Result<Tls, p2pdi::tls::TlsError> {
        Tls::from_pem(self.pem(ca), auth)
    }

    pub fn pem(&self, ca: &str) -> Pem {
        Pem {
            cert: Some(self.certificate.pem().into_bytes()),
            key: Some(self.key.serialize_pem().into_bytes()),
            ca: ca.as_bytes().to_vec(),
        }
    }

    /// Replaces the certificate and the key among these files, one after the other, each by a rename.
    pub fn write(&self, files: &TlsFiles) {
        replace(files.cert.as_ref().unwrap(), &self.certificate.pem());
        replace(files.key.as_ref().unwrap(), &self.key.serialize_pem());
    }
}

/// Writes a file by a rename.
pub fn replace(path: &PathBuf, text: &str) {
    let new = path.with_extension("new");
    fs::write(&new, text).unwrap();
    fs::rename(new, path).unwrap();
}

pub fn self_signed(names: &[&str]) -> Issued {
    let key = KeyPair::generate().unwrap();
    Issued { certificate: params(names).self_signed(&key).unwrap(), key }
}

fn params(names: &[&str]) -> CertificateParams {
    let (uris, names): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.starts_with("spiffe://"));
    let mut params = CertificateParams::new(names.into_iter().map(str::to_owned).collect::<Vec<_>>()).unwrap();
    params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
    params
}
