//! What is written into certificates and files of certificates.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use data_encoding::{BASE64, Encoding};
use std::fmt::Write as _;

/// Characters of a line of PEM (RFC 7468, section 2).
const LINE_CHARS: usize = 64;
/// The beginning of a URI that is a label.
pub(super) const LABEL_URI: &str = "p2pdi:label:";

/// The crate has constants, and borrows are of statics.
static BASE64_CODE: Encoding = BASE64;

/// Certificates in DER as PEM text, in the same order.
pub fn certificates_pem<T: AsRef<[u8]>>(certificates: &[T]) -> String {
    let mut text = String::new();
    for certificate in certificates {
        text.push_str("-----BEGIN CERTIFICATE-----\n");
        let code = BASE64_CODE.encode(certificate.as_ref());
        let mut rest = code.as_str();
        while !rest.is_empty() {
            let (line, after) = rest.split_at(rest.len().min(LINE_CHARS));
            // Writing to a string does not fail.
            let _ = writeln!(text, "{line}");
            rest = after;
        }
        text.push_str("-----END CERTIFICATE-----\n");
    }
    text
}

/// The URI among a certificate's alternative names that gives its holder a label. Keys and values of labels have only characters that a
/// URI may have.
pub fn label_uri(key: &str, value: &str) -> String {
    format!("{LABEL_URI}{key}={value}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls_pki_types::{CertificateDer, pem::PemObject as _};

    #[test]
    fn certificates_are_the_same_after_a_round_trip_as_text() {
        let all: Vec<Vec<u8>> = vec![vec![], vec![0; 48], vec![1; 49], (0..=255).collect()];
        let text = certificates_pem(&all);
        assert!(text.lines().all(|line| line.len() <= LINE_CHARS));
        let read: Vec<_> = CertificateDer::pem_slice_iter(text.as_bytes()).map(|read| read.unwrap().to_vec()).collect();
        assert_eq!(read, all);
    }
}
