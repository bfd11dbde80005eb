//! What a certificate says of its holder.
//!
//! Pure: no I/O, no clock, no randomness of its own.

use super::encode::LABEL_URI;
use crate::{field::Quoted, hex, name::PeerName};
use rustls_pki_types::CertificateDer;
use std::{
    collections::BTreeMap,
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use x509_parser::{
    certificate::X509Certificate,
    extensions::GeneralName,
    prelude::{ASN1Time, FromDer as _},
};

/// Most alternative names of a certificate. Ours have three or four; CAs for web sites stop at 100.
const NAMES_MAX: usize = 100;
/// Longest trust domain of a SPIFFE id, in bytes (SPIFFE-ID standard, section 2.1).
const NETWORK_MAX_BYTES: usize = 255;

/// Serial number of a certificate: its bytes as the certificate has them, at most 20 (RFC 5280, section 4.1.2.2). Shown in
/// hexadecimal.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Serial(Box<[u8]>);

/// What a certificate says of its holder. Of another program's certificate there is one only after its chain was checked.
///
/// - A peer's names are the DNS names among the alternative names, and those of the form `spiffe://NETWORK/peer/NAME`.
/// - `spiffe://NETWORK/operator/NAME` makes its holder an operator of the network.
/// - `spiffe://NETWORK/registry` makes it the registry of the network.
/// - `p2pdi:label:KEY=VALUE` gives it a label.
#[derive(Clone, PartialEq, Eq)]
pub struct Identity {
    names: Vec<PeerName>,
    operator: Option<PeerName>,
    registry: bool,
    spiffe_peer: bool,
    network: Option<String>,
    labels: BTreeMap<String, String>,
    /// All DNS names and addresses as text.
    hosts: Vec<String>,
    serial: Serial,
    not_before: SystemTime,
    not_after: SystemTime,
    chain: Vec<CertificateDer<'static>>,
}

/// A certificate that cannot be used to tell who somebody is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// There is none.
    #[error("there is no certificate")]
    Missing,
    /// It is not an X.509 certificate.
    #[error("it is not a valid X.509 certificate ({0})")]
    Malformed(String),
    /// It has more alternative names than are read.
    #[error("it has {0} alternative names; at most {NAMES_MAX} are read")]
    TooManyNames(usize),
    /// Its SPIFFE ids are of several networks.
    #[error("its SPIFFE ids are of two networks, {0} and {1}; a certificate belongs to one")]
    SeveralNetworks(String, String),
}

impl Identity {
    /// Reads the first certificate of `chain`. Checks neither signatures nor times: [`super::Tls::check`] does.
    ///
    /// # Errors
    /// When the chain is empty or its first certificate cannot be read.
    pub fn of_chain(chain: Vec<CertificateDer<'static>>) -> Result<Self, IdentityError> {
        let leaf = chain.first().ok_or(IdentityError::Missing)?;
        let malformed = |error: &dyn fmt::Display| IdentityError::Malformed(error.to_string());
        let (rest, parsed) = X509Certificate::from_der(leaf).map_err(|error| malformed(&error))?;
        if !rest.is_empty() {
            return Err(IdentityError::Malformed(format!("{} bytes follow it", rest.len())));
        }
        let serial = Serial(parsed.tbs_certificate.raw_serial().into());
        let (not_before, not_after) = (time(parsed.validity().not_before), time(parsed.validity().not_after));
        let alternatives = parsed.subject_alternative_name().map_err(|error| malformed(&error))?;
        let alternatives = alternatives.map_or(&[][..], |extension| &extension.value.general_names);
        if alternatives.len() > NAMES_MAX {
            return Err(IdentityError::TooManyNames(alternatives.len()));
        }
        let mut said = Said::default();
        for name in alternatives {
            match name {
                GeneralName::DNSName(name) => said.dns_name(name),
                GeneralName::IPAddress(bytes) => said.address(bytes),
                GeneralName::URI(uri) => said.uri(uri)?,
                _ => {}
            }
        }
        let Said { names, operator, registry, spiffe_peer, network, labels, hosts } = said;
        Ok(Self { names, operator, registry, spiffe_peer, network, labels, hosts, serial, not_before, not_after, chain })
    }

    /// The peer names that its holder may use.
    pub fn names(&self) -> &[PeerName] {
        &self.names
    }

    /// The first of them: how its holder is called where one name is needed.
    pub fn name(&self) -> Option<&PeerName> {
        self.names.first()
    }

    /// Whether its holder may use `name`.
    pub fn has_name(&self, name: &PeerName) -> bool {
        self.names.contains(name)
    }

    /// Whether it is for this DNS name or address. What a wildcard stands for is not looked at.
    pub fn is_for_host(&self, host: &str) -> bool {
        self.hosts.iter().any(|own| own.eq_ignore_ascii_case(host))
    }

    /// The name of an operator of the network; `None`: its holder is none.
    pub fn operator(&self) -> Option<&PeerName> {
        self.operator.as_ref()
    }

    /// Whether its holder is the network's registry by its SPIFFE id.
    pub fn is_registry(&self) -> bool {
        self.registry
    }

    /// Whether a SPIFFE id says that its holder is a peer or an operator: such a certificate is no registry's, whatever host it names.
    pub(super) fn is_peer_or_operator(&self) -> bool {
        self.spiffe_peer || self.operator.is_some()
    }

    /// The network of its SPIFFE id, if it has one of a peer, an operator or a registry.
    pub fn network(&self) -> Option<&str> {
        self.network.as_deref()
    }

    /// The labels that it gives its holder.
    pub fn labels(&self) -> &BTreeMap<String, String> {
        &self.labels
    }

    /// Whether it says anything that another program can check: a peer's name, an operator, a registry, a host or an address.
    pub fn is_usable(&self) -> bool {
        !self.names.is_empty() || self.operator.is_some() || self.registry || !self.hosts.is_empty()
    }

    /// Its serial number.
    pub fn serial(&self) -> &Serial {
        &self.serial
    }

    /// From when on it is valid.
    pub fn not_before(&self) -> SystemTime {
        self.not_before
    }

    /// Until when it is valid.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The certificate, and the certificates of CAs that were sent with it, in DER.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }
}

/// Whom the certificate is for, as text: `fff-c`, `operator alice`, `registry`, `10.0.0.1`.
impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let operator = self.operator.iter().map(|name| format!("operator {name}"));
        let registry = self.registry.then(|| "the registry".to_owned());
        let names = self.names.iter().map(ToString::to_string);
        let mut all: Vec<String> = operator.chain(registry).chain(names).collect();
        for host in &self.hosts {
            if !all.iter().any(|said| said.eq_ignore_ascii_case(host)) {
                all.push(Quoted(host).to_string());
            }
        }
        if all.is_empty() { f.write_str("nobody") } else { f.write_str(&all.join(", ")) }
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({self}, serial {})", self.serial)
    }
}

impl Serial {
    /// A serial number from its bytes.
    pub fn new(bytes: &[u8]) -> Self {
        Self(bytes.into())
    }

    /// Its bytes.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(&self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Whether `certificate` names itself as its issuer.
pub(super) fn is_self_issued(certificate: &[u8]) -> bool {
    X509Certificate::from_der(certificate).is_ok_and(|(_, parsed)| parsed.issuer() == parsed.subject())
}

/// `None`: `certificate` is that of a CA. Otherwise its subject.
///
/// # Errors
/// When it cannot be read.
pub(super) fn not_ca(certificate: &[u8]) -> Result<Option<String>, IdentityError> {
    let parsed = X509Certificate::from_der(certificate).map_err(|error| IdentityError::Malformed(error.to_string()))?.1;
    Ok((!parsed.is_ca()).then(|| parsed.subject().to_string()))
}

/// What the alternative names say.
#[derive(Default)]
struct Said {
    names: Vec<PeerName>,
    operator: Option<PeerName>,
    registry: bool,
    spiffe_peer: bool,
    network: Option<String>,
    labels: BTreeMap<String, String>,
    hosts: Vec<String>,
}

impl Said {
    /// A wildcard names hosts, and no peer.
    fn dns_name(&mut self, text: &str) {
        self.hosts.push(text.to_ascii_lowercase());
        if let Ok(name) = text.parse() {
            self.name(name);
        }
    }

    fn address(&mut self, bytes: &[u8]) {
        let address: Option<IpAddr> = match bytes.len() {
            4 => bytes.try_into().ok().map(|bytes: [u8; 4]| Ipv4Addr::from(bytes).into()),
            _ => bytes.try_into().ok().map(|bytes: [u8; 16]| Ipv6Addr::from(bytes).into()),
        };
        self.hosts.extend(address.map(|address| address.to_string()));
    }

    /// Ids of other kinds, and of SPIFFE paths with another meaning, say nothing here.
    fn uri(&mut self, uri: &str) -> Result<(), IdentityError> {
        if let Some((key, value)) = uri.strip_prefix(LABEL_URI).and_then(|label| label.split_once('=')) {
            self.labels.insert(key.to_owned(), value.to_owned());
            return Ok(());
        }
        let Some((network, path)) = uri.strip_prefix("spiffe://").and_then(|rest| rest.split_once('/')) else { return Ok(()) };
        let allowed = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'.' | b'-' | b'_');
        if network.is_empty() || network.len() > NETWORK_MAX_BYTES || !network.bytes().all(allowed) {
            return Ok(());
        }
        let is_ours = path == "registry" || path.starts_with("peer/") || path.starts_with("operator/");
        match &self.network {
            _ if !is_ours => return Ok(()),
            Some(known) if known != network => return Err(IdentityError::SeveralNetworks(known.clone(), network.to_owned())),
            _ => self.network = Some(network.to_owned()),
        }
        match path.split_once('/') {
            None if path == "registry" => self.registry = true,
            Some(("peer", name)) => {
                if let Ok(name) = name.parse() {
                    self.spiffe_peer = true;
                    self.name(name);
                }
            }
            Some(("operator", name)) => self.operator = name.parse().ok().or(self.operator.take()),
            _ => {}
        }
        Ok(())
    }

    fn name(&mut self, name: PeerName) {
        if !self.names.contains(&name) {
            self.names.push(name);
        }
    }
}

/// A time of a certificate. X.509 has years from 0 to 9999; what the system's clock cannot count is 1970.
fn time(time: ASN1Time) -> SystemTime {
    let seconds = time.timestamp();
    let (since, length) = (seconds >= 0, Duration::from_secs(seconds.unsigned_abs()));
    let moment = if since { UNIX_EPOCH.checked_add(length) } else { UNIX_EPOCH.checked_sub(length) };
    moment.unwrap_or(UNIX_EPOCH)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair, SanType};

    fn certificate(names: &[&str]) -> Vec<u8> {
        let (uris, names): (Vec<&str>, Vec<&str>) = names.iter().partition(|name| name.contains("://"));
        let mut params = CertificateParams::new(names.into_iter().map(str::to_owned).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.extend(uris.into_iter().map(|uri| SanType::URI(uri.try_into().unwrap())));
        params.self_signed(&KeyPair::generate().unwrap()).unwrap().der().to_vec()
    }

    fn read(names: &[&str]) -> Result<Identity, IdentityError> {
        Identity::of_chain(vec![certificate(names).into()])
    }

    #[test]
    fn names_are_dns_names_and_spiffe_ids_of_peers() {
        let identity = read(&["fff-a", "*.example", "10.0.0.1", "spiffe://net/peer/fff-b", "https://x/peer/fff-c"]).unwrap();
        assert_eq!(identity.names().iter().map(PeerName::as_str).collect::<Vec<_>>(), ["fff-a", "fff-b"]);
        assert_eq!((identity.network(), identity.operator(), identity.is_registry()), (Some("net"), None, false));
        assert!(identity.is_peer_or_operator());
        assert_eq!(identity.to_string(), "fff-a, fff-b, \"*.example\", \"10.0.0.1\"");
        assert!(!read(&["*.example"]).unwrap().has_name(&"a.example".parse().unwrap()));
    }

    #[test]
    fn operators_and_the_registry_are_told_by_their_spiffe_ids() {
        let operator = read(&["spiffe://net/operator/alice"]).unwrap();
        assert_eq!(operator.operator().map(PeerName::as_str), Some("alice"));
        assert!(operator.names().is_empty() && operator.is_usable());
        let registry = read(&["r.example", "spiffe://net/registry"]).unwrap();
        assert!(registry.is_registry() && !registry.is_peer_or_operator());
        for other in
            ["spiffe://net/registry/x", "spiffe://net/peer/", "spiffe://net/peer/a/b", "spiffe:///peer/a", "spiffe://NET/peer/a"]
        {
            let identity = read(&[other]).unwrap();
            assert!(!identity.is_usable() && identity.to_string() == "nobody", "{other}: {identity}");
        }
    }

    #[test]
    fn a_certificate_of_two_networks_or_of_too_many_names_is_refused() {
        let two = read(&["spiffe://a/peer/x", "spiffe://b/peer/x"]);
        assert_eq!(two, Err(IdentityError::SeveralNetworks("a".into(), "b".into())));
        let many: Vec<_> = (0..=NAMES_MAX).map(|n| format!("p{n}")).collect();
        let many: Vec<_> = many.iter().map(String::as_str).collect();
        assert_eq!(read(&many), Err(IdentityError::TooManyNames(NAMES_MAX + 1)));
        assert_eq!(Identity::of_chain(Vec::new()), Err(IdentityError::Missing));
    }

    #[test]
    fn bytes_that_are_no_certificate_are_an_error_and_nothing_else() {
        let valid = certificate(&["fff-a", "10.0.0.1", "spiffe://net/peer/fff-b"]);
        for at in 0..valid.len() {
            assert!(Identity::of_chain(vec![valid[..at].to_vec().into()]).is_err());
            for flipped in [0x01, 0x80, 0xff] {
                let mut bytes = valid.clone();
                bytes[at] ^= flipped;
                if let Ok(identity) = Identity::of_chain(vec![bytes.into()]) {
                    assert!(!identity.to_string().chars().any(char::is_control));
                }
            }
        }
    }
}
