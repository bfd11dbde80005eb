//! What is signed: certificates of peers, operators, the registry, and the authority itself.

use super::{
    error::CaError,
    ledger::{CLOCK_SKEW, KeyHash, SerialBytes, Subject},
};
use p2pdi::{endpoint::HOST_MAX_BYTES, network::NetworkName, tls::label_uri};
use rcgen::{
    BasicConstraints, CertificateParams, CertificateSigningRequestParams, DnType, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose,
    PublicKey, PublicKeyData, SanType, SerialNumber, date_time_ymd,
};
use rustls_pki_types::{CertificateDer, CertificateSigningRequestDer};
use std::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::{GeneralName, ParsedExtension},
    prelude::FromDer as _,
};

/// Longest certificate request, in bytes: one with an RSA key of 8192 bits fits.
const REQUEST_MAX_BYTES: usize = 4 * 1024;
/// How the URI of a network begins.
const TRUST_DOMAIN: &str = "spiffe://";
/// Most part of its life that a certificate is valid from before it is made, so that clocks may differ: a tenth.
const BACKDATED_PART: u64 = 10;
/// Longest common name (RFC 5280, appendix A.1, ub-common-name). A longer name is among the alternative names only.
const COMMON_NAME_MAX_BYTES: usize = 64;

/// When a certificate is valid, in seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Validity {
    pub(super) not_before: u64,
    pub(super) not_after: u64,
}

impl Validity {
    /// From a moment ago until `life` from now.
    pub(super) fn new(life: Duration, now: SystemTime) -> Self {
        let (life, now) = (life.as_secs(), seconds(now));
        Self { not_before: now.saturating_sub(CLOCK_SKEW.min(life / BACKDATED_PART)), not_after: now.saturating_add(life) }
    }
}

/// Since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

/// A certificate request whose signature is right: whoever sent it has the key.
pub(super) struct Request {
    pub(super) public_key: PublicKey,
    pub(super) key: KeyHash,
}

impl Request {
    /// Reads a PKCS #10 request. What it asks for beside its key is ignored: the registry decides what a certificate says.
    pub(super) fn read(der: &[u8]) -> Result<Self, CaError> {
        if der.len() > REQUEST_MAX_BYTES {
            return Err(CaError::Request(format!("it has {} bytes; at most {REQUEST_MAX_BYTES} fit", der.len())));
        }
        let read = CertificateSigningRequestParams::from_der(&CertificateSigningRequestDer::from(der));
        let public_key = read.map_err(|error| CaError::Request(error.to_string()))?.public_key;
        let key = key_hash(&public_key);
        Ok(Self { public_key, key })
    }
}

/// How the ledger knows a key.
pub(super) fn key_hash(key: &impl PublicKeyData) -> KeyHash {
    *blake3::hash(&key.subject_public_key_info()).as_bytes()
}

/// A new serial number.
pub(super) fn serial() -> Result<SerialBytes, CaError> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(|error| CaError::System(error.into()))?;
    // A positive number without leading zeros, so that its bytes are those of its encoding.
    bytes[0] = bytes[0] & 0x3f | 0x40;
    Ok(bytes)
}

/// The certificate of a peer or an operator.
pub(super) fn of_subject(
    subject: &Subject,
    network: &NetworkName,
    serial: &SerialBytes,
    validity: Validity,
) -> Result<CertificateParams, CaError> {
    let mut params = params(serial, validity);
    let name = &subject.name;
    common_name(&mut params, name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    if subject.operator {
        params.subject_alt_names.push(uri(format!("spiffe://{network}/operator/{name}"))?);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    } else {
        params.subject_alt_names.push(dns(name.as_str())?);
        params.subject_alt_names.push(uri(format!("spiffe://{network}/peer/{name}"))?);
        // A peer both dials and is dialled.
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    }
    for (key, value) in &subject.labels {
        params.subject_alt_names.push(uri(label_uri(key, value))?);
    }
    Ok(params)
}

/// The certificate that the registry serves with. `hosts`: how programs other than ours dial it.
pub(super) fn of_registry(
    network: &NetworkName,
    hosts: &[String],
    serial: &SerialBytes,
    validity: Validity,
) -> Result<CertificateParams, CaError> {
    let mut params = params(serial, validity);
    common_name(&mut params, "registry");
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.subject_alt_names = vec![uri(format!("spiffe://{network}/registry"))?, dns("localhost")?];
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V4(Ipv4Addr::LOCALHOST)));
    params.subject_alt_names.push(SanType::IpAddress(IpAddr::V6(Ipv6Addr::LOCALHOST)));
    for host in hosts.iter().filter(|host| host.len() <= HOST_MAX_BYTES && !host.eq_ignore_ascii_case("localhost")) {
        let name = match host.parse::<IpAddr>() {
            Ok(address) if address.is_loopback() || address.is_unspecified() => continue,
            Ok(address) => SanType::IpAddress(address),
            Err(_) => dns(host)?,
        };
        params.subject_alt_names.push(name);
    }
    Ok(params)
}

/// The authority's own certificate, of this generation.
pub(super) fn of_authority(
    network: &NetworkName,
    generation: u32,
    serial: &SerialBytes,
    validity: Validity,
) -> Result<CertificateParams, CaError> {
    let mut params = params(serial, validity);
    // The trust domain, without a path (X.509-SVID standard, section 3.1).
    params.subject_alt_names = vec![uri(format!("{TRUST_DOMAIN}{network}"))?];
    // Each generation has a name of its own: two certificates of one name with different keys confuse those who look for an issuer.
    common_name(&mut params, &format!("P2P-DI CA {generation} of {network}"));
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    Ok(params)
}

/// The network that the certificate of an authority is for.
pub(super) fn network_of(authority: &X509Certificate<'_>) -> Option<NetworkName> {
    let names = authority.subject_alternative_name().ok()??;
    names.value.general_names.iter().find_map(|name| match name {
        GeneralName::URI(uri) => uri.strip_prefix(TRUST_DOMAIN)?.parse().ok(),
        _ => None,
    })
}

/// The identifier of the key of an authority's certificate.
pub(super) fn key_identifier(authority: &CertificateDer<'_>) -> Option<Vec<u8>> {
    extension(authority, |extension| match extension {
        ParsedExtension::SubjectKeyIdentifier(identifier) => Some(identifier.0.to_vec()),
        _ => None,
    })
}

/// The identifier of the key that signed a certificate, as the certificate says.
pub(super) fn issuer_key_identifier(certificate: &CertificateDer<'_>) -> Option<Vec<u8>> {
    extension(certificate, |extension| match extension {
        ParsedExtension::AuthorityKeyIdentifier(identifier) => Some(identifier.key_identifier.as_ref()?.0.to_vec()),
        _ => None,
    })
}

fn extension<T>(certificate: &CertificateDer<'_>, found: impl Fn(&ParsedExtension<'_>) -> Option<T>) -> Option<T> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    parsed.extensions().iter().find_map(|extension| found(extension.parsed_extension()))
}

fn params(serial: &SerialBytes, validity: Validity) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.serial_number = Some(SerialNumber::from_slice(serial));
    let epoch = date_time_ymd(1970, 1, 1);
    params.not_before = epoch + Duration::from_secs(validity.not_before);
    params.not_after = epoch + Duration::from_secs(validity.not_after);
    params.use_authority_key_identifier_extension = true;
    params
}

fn common_name(params: &mut CertificateParams, name: &str) {
    if name.len() <= COMMON_NAME_MAX_BYTES {
        params.distinguished_name.push(DnType::CommonName, name);
    }
}

fn dns(name: &str) -> Result<SanType, CaError> {
    name.try_into().map(SanType::DnsName).map_err(|error: rcgen::Error| CaError::Signing(error.to_string()))
}

fn uri(text: String) -> Result<SanType, CaError> {
    text.try_into().map(SanType::URI).map_err(|error: rcgen::Error| CaError::Signing(error.to_string()))
}
