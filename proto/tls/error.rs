//! What is wrong with certificates, keys and CAs.

use super::IdentityError;
use crate::network::NetworkName;
use std::{io, path::PathBuf};

/// Why certificates cannot be used. The text says what is wrong, and what to do.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read.
    #[error("cannot read the {what} file {}: {source}; give a PEM file that this user can read with --tls-{}", path.display(), flag(what))]
    Read {
        /// Which file: certificate, key or CA.
        what: &'static str,
        /// Where it is.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// A certificate was given without its key, or a key without its certificate.
    #[error("a certificate needs its key, and a key its certificate; give both --tls-cert and --tls-key, or neither")]
    CertWithoutKey,
    /// A server needs a certificate.
    #[error("a server needs a certificate; give it with --tls-cert and --tls-key")]
    NoCertificate,
    /// The text is not PEM.
    #[error("{place} is not PEM ({problem}); convert DER with `openssl x509 -inform der` or `openssl pkey -inform der`")]
    NotPem {
        /// Its file.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// The PEM text has no section of this kind.
    #[error("{place} holds no {what}; check that the files are not swapped")]
    Lacks {
        /// Its file.
        place: String,
        /// What is missing.
        what: &'static str,
    },
    /// The key has a password.
    #[error(
        "the key in {place} has a password; write one without it by `openssl pkey -in FILE -out NEW`, readable by its owner only"
    )]
    KeyEncrypted {
        /// Its file.
        place: String,
    },
    /// The kind of key is not supported.
    #[error("the key in {place} cannot be used ({problem}); use ECDSA P-256, Ed25519, or RSA of 2048 bits or more")]
    KeyUnsupported {
        /// Its file.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// The key is that of another certificate.
    #[error("the key in {key} does not belong to the certificate in {cert}; the certificate must be the first one of its file")]
    KeyMismatch {
        /// The key's file.
        key: String,
        /// The certificate's file.
        cert: String,
    },
    /// A certificate of the CA file is no CA's.
    #[error("{place} holds a certificate that is not a CA's ({subject}); give the certificate that signed those of the network")]
    NotCa {
        /// Its file.
        place: String,
        /// Whom the certificate is for.
        subject: String,
    },
    /// The certificate of the CA cannot be used.
    #[error("the CA in {place} cannot be used: {problem}")]
    CaUnusable {
        /// Its file.
        place: String,
        /// What is wrong.
        problem: String,
    },
    /// The certificate cannot be read.
    #[error("the certificate in {place} cannot be used: {source}")]
    Unreadable {
        /// Its file.
        place: String,
        /// What is wrong.
        source: IdentityError,
    },
    /// The certificate says nothing of its holder.
    #[error(
        "the certificate in {place} has no usable name; it needs a DNS name among its alternative names (the subject does not count)"
    )]
    NoName {
        /// Its file.
        place: String,
    },
    /// The certificate is signed by another CA.
    #[error("the certificate in {cert} is not signed by a CA in {ca}; other programs of the network would refuse it")]
    WrongCa {
        /// The certificate's file.
        cert: String,
        /// The CA's file.
        ca: String,
    },
    /// The program's certificate is of another network than the program.
    #[error(
        "the certificate is of the network {found}, and the program of {own}; give --network {found}, or a certificate of {own}"
    )]
    OtherNetwork {
        /// The network of its SPIFFE id.
        found: String,
        /// The program's.
        own: NetworkName,
    },
    /// A certificate that somebody else shows is refused.
    #[error("{0}")]
    Refused(String),
    /// The library refuses the configuration.
    #[error("TLS cannot be set up: {0}")]
    Setup(String),
}

/// The end of the flag that names a file.
fn flag(what: &str) -> &'static str {
    match what {
        "key" => "key",
        "certificate" => "cert",
        _ => "ca",
    }
}
