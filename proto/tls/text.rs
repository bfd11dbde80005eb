//! Failed handshakes as text for people: what was wrong with whose certificate, and what to do.

use super::verify::Wrong;
use jiff::Timestamp;
use rustls::{AlertDescription, CertificateError, Error};
use rustls_pki_types::UnixTime;

/// What is wrong with the other side, as the rest of a sentence about it: "its certificate expired on …".
pub(super) fn describe(error: &Error) -> String {
    match error {
        Error::InvalidCertificate(error) => certificate(error),
        Error::AlertReceived(alert) => received(*alert),
        Error::InvalidMessage(_) => {
            "it does not speak TLS; start it with --tls-cert, --tls-key and --tls-ca, or leave them out here too".to_owned()
        }
        Error::PeerIncompatible(_) => format!("it speaks no TLS 1.3, or nothing else of this program's TLS ({error})"),
        Error::NoApplicationProtocol => "it speaks neither HTTP/2 nor HTTP/1.1 over TLS".to_owned(),
        Error::NoCertificatesPresented => {
            "it shows no certificate; give it one with --tls-cert and --tls-key, signed by a CA of the network".to_owned()
        }
        error => error.to_string(),
    }
}

fn certificate(error: &CertificateError) -> String {
    match error {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => {
            "its certificate is not signed by a CA of this network; compare its CA with that of --tls-ca here".to_owned()
        }
        CertificateError::ExpiredContext { not_after, .. } => format!("its certificate expired on {}", time(*not_after)),
        CertificateError::NotValidYetContext { not_before, .. } => {
            format!("its certificate is valid from {} on only; check the clocks of both machines", time(*not_before))
        }
        CertificateError::Revoked => "its certificate was revoked".to_owned(),
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            "its certificate is not for this purpose; the extended key usage needs both serverAuth and clientAuth".to_owned()
        }
        CertificateError::Other(other) => {
            other.0.downcast_ref::<Wrong>().map_or_else(|| format!("its certificate is refused: {other}"), ToString::to_string)
        }
        error => format!("its certificate is refused: {error}"),
    }
}

/// What the other side said before it closed the connection.
fn received(alert: AlertDescription) -> String {
    match alert {
        AlertDescription::CertificateRequired => {
            "it asks for a certificate; give one with --tls-cert and --tls-key".to_owned()
        }
        AlertDescription::UnknownCA => {
            "it refuses this program's certificate: no CA of its network signed it; compare its --tls-ca with the CA of --tls-cert here"
                .to_owned()
        }
        AlertDescription::CertificateExpired => {
            "it refuses this program's certificate: it expired, or is not valid yet; check its dates and the clocks of both machines"
                .to_owned()
        }
        AlertDescription::CertificateRevoked => "it refuses this program's certificate: it was revoked".to_owned(),
        AlertDescription::BadCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::AccessDenied => format!("it refuses this program's certificate ({alert:?}); its log says more"),
        AlertDescription::ProtocolVersion => "it speaks no TLS 1.3".to_owned(),
        AlertDescription::NoApplicationProtocol => "it speaks no HTTP/2 over TLS".to_owned(),
        alert => format!("it ended the connection ({alert:?})"),
    }
}

fn time(time: UnixTime) -> String {
    let seconds = i64::try_from(time.as_secs()).ok().and_then(|seconds| Timestamp::from_second(seconds).ok());
    seconds.map_or_else(|| format!("second {}", time.as_secs()), |time| time.to_string())
}
