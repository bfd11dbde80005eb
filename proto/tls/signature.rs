//! Signatures with the key of a certificate, over messages that travel without a connection to whoever signed them.

use super::{Identity, TlsError};
use rustls::{SignatureScheme, crypto::WebPkiSupportedAlgorithms, sign::CertifiedKey};
use x509_parser::prelude::{FromDer as _, X509Certificate};

/// A signature, with the scheme it was made by.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signature {
    /// Number of the scheme in the TLS registry (RFC 8446, section 4.2.3), such as 0x0403: ECDSA with P-256 and SHA-256.
    pub scheme: u16,
    /// The signature, in the form of that scheme.
    pub bytes: Vec<u8>,
}

pub(super) fn sign(own: &CertifiedKey, algorithms: &WebPkiSupportedAlgorithms, message: &[u8]) -> Result<Signature, TlsError> {
    let failed = |problem: &str| TlsError::Setup(format!("cannot sign: {problem}"));
    let signer = own.key.choose_scheme(&algorithms.supported_schemes()).ok_or_else(|| failed("no scheme for this key"))?;
    let bytes = signer.sign(message).map_err(|error| failed(&error.to_string()))?;
    Ok(Signature { scheme: signer.scheme().into(), bytes })
}

/// Whether the holder of the certificate made the signature over `message`.
pub(super) fn verifies(
    identity: &Identity,
    algorithms: &WebPkiSupportedAlgorithms,
    message: &[u8],
    signature: &Signature,
) -> bool {
    let scheme = SignatureScheme::from(signature.scheme);
    let Some((_, found)) = algorithms.mapping.iter().find(|(known, _)| *known == scheme) else { return false };
    let Some(Ok((_, parsed))) = identity.chain().first().map(|leaf| X509Certificate::from_der(leaf)) else { return false };
    let key = &parsed.tbs_certificate.subject_pki.subject_public_key.data;
    // As in TLS 1.3, the scheme says the curve: the first algorithm is that of it.
    found.first().is_some_and(|algorithm| algorithm.verify_signature(key, message, &signature.bytes).is_ok())
}
