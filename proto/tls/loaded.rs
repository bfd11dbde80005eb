//! Certificates, keys and CAs that were read and checked, with the configurations of TLS made from them.

use super::{
    Expected, Identity, TlsError,
    material::{Material, Part},
    verify::{ClientVerifier, Rules, ServerVerifier},
};
use rustls::{
    CertificateError, ClientConfig, Error, InconsistentKeys, RootCertStore, ServerConfig,
    client::{Resumption, danger::ServerCertVerifier as _},
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, ring},
    server::{NoServerSessionStorage, WebPkiClientVerifier, danger::ClientCertVerifier},
    sign::{CertifiedKey, SingleCertAndKey},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr},
    str::FromStr,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

/// HTTP/2 and HTTP/1.1, as ALPN names them (RFC 7301, section 6).
const ALPN: [&[u8]; 2] = [b"h2", b"http/1.1"];
/// What clients of ours offer: gRPC needs HTTP/2.
pub(super) const ALPN_H2: &[u8] = b"h2";

/// Whether clients must show a certificate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ClientAuth {
    /// Each client, or there is no connection.
    #[default]
    Required,
    /// A client may show none; then nobody knows who it is. One that is shown is checked.
    Optional,
}

impl fmt::Display for ClientAuth {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Required => "required",
            Self::Optional => "optional",
        })
    }
}

impl FromStr for ClientAuth {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "required" => Ok(Self::Required),
            "optional" => Ok(Self::Optional),
            _ => Err("write required or optional".to_owned()),
        }
    }
}

/// Certificates in use.
pub(super) struct Loaded {
    pub(super) identity: Option<Arc<Identity>>,
    pub(super) own: Option<Arc<CertifiedKey>>,
    #[cfg_attr(not(feature = "server"), expect(dead_code, reason = "it is checked all the same; only servers use it"))]
    pub(super) server: Option<Arc<ServerConfig>>,
    client: ClientConfig,
    clients: Arc<dyn ClientCertVerifier>,
    roots: Arc<RootCertStore>,
    provider: Arc<CryptoProvider>,
}

impl Loaded {
    pub(super) fn new(material: &Material, auth: ClientAuth, rules: &Arc<Rules>) -> Result<Self, TlsError> {
        let provider = Arc::new(provider());
        let roots = Arc::new(roots(&material.ca)?);
        let (own, identity) = match &material.own {
            Some((cert, key)) => {
                let identity = identity(cert)?;
                let own = certified(cert, key, &identity, &provider)?;
                check_own_ca(&identity, &roots, &provider, cert, &material.ca)?;
                (Some(Arc::new(own)), Some(Arc::new(identity)))
            }
            None => (None, None),
        };
        let clients = client_verifier(&roots, &provider, auth, rules)?;
        let server = own.as_ref().map(|own| server_config(&provider, Arc::clone(&clients), own)).transpose()?;
        let client = client_config(&provider, &roots, rules, own.as_ref())?;
        Ok(Self { identity, own, server, client, clients, roots, provider })
    }

    /// The configuration to dial `expected` with.
    pub(super) fn client(&self, expected: Expected, rules: &Arc<Rules>) -> ClientConfig {
        let mut config = self.client.clone();
        config.dangerous().set_certificate_verifier(Arc::new(self.verifier(expected, rules)));
        config
    }

    pub(super) fn algorithms(&self) -> WebPkiSupportedAlgorithms {
        self.provider.signature_verification_algorithms
    }

    fn verifier(&self, expected: Expected, rules: &Arc<Rules>) -> ServerVerifier {
        let (roots, algorithms) = (Arc::clone(&self.roots), self.algorithms());
        ServerVerifier { roots, algorithms, rules: Arc::clone(rules), expected }
    }

    /// Checks a chain outside of a connection, at the time `now`. Those of operators are for clients only.
    pub(super) fn check(&self, chain: &[CertificateDer<'_>], now: SystemTime, rules: &Arc<Rules>) -> Result<(), Error> {
        let Some((leaf, intermediates)) = chain.split_first() else { return Err(Error::NoCertificatesPresented) };
        let anyone = self.verifier(Expected::Anyone, rules);
        let now = unix_time(now);
        match anyone.verify_server_cert(leaf, intermediates, &no_name(), &[], now) {
            Err(Error::InvalidCertificate(CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. })) => {
                self.clients.verify_client_cert(leaf, intermediates, now).map(drop)
            }
            checked => checked.map(drop),
        }
    }
}

/// What a client says to whom it connects (SNI): nothing, since an address is never sent.
pub(super) fn no_name() -> ServerName<'static> {
    ServerName::from(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
}

fn unix_time(time: SystemTime) -> UnixTime {
    UnixTime::since_unix_epoch(time.duration_since(UNIX_EPOCH).unwrap_or_default())
}

/// TLS 1.3 with ring. AES-128-GCM comes first: with the instructions that nearly every CPU has it is the fastest, and no weaker in
/// practice (RFC 8446, appendix B.4).
pub(super) fn provider() -> CryptoProvider {
    let cipher_suites = vec![
        ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
        ring::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ring::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
    ];
    CryptoProvider { cipher_suites, ..ring::default_provider() }
}

fn roots(ca: &Part) -> Result<RootCertStore, TlsError> {
    let mut roots = RootCertStore::empty();
    for certificate in ca.certificates()? {
        let place = || ca.place.clone();
        match super::identity::not_ca(&certificate) {
            Ok(None) => {}
            Ok(Some(subject)) => return Err(TlsError::NotCa { place: place(), subject }),
            Err(source) => return Err(TlsError::Unreadable { place: place(), source }),
        }
        roots.add(certificate).map_err(|error| TlsError::CaUnusable { place: place(), problem: error.to_string() })?;
    }
    Ok(roots)
}

fn identity(cert: &Part) -> Result<Identity, TlsError> {
    let place = || cert.place.clone();
    let identity = Identity::of_chain(cert.certificates()?).map_err(|source| TlsError::Unreadable { place: place(), source })?;
    if identity.is_usable() { Ok(identity) } else { Err(TlsError::NoName { place: place() }) }
}

fn certified(cert: &Part, key: &Part, identity: &Identity, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
    let certified = CertifiedKey::from_der(identity.chain().to_vec(), key.key()?, provider);
    certified.map_err(|error| match error {
        Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
            TlsError::KeyMismatch { key: key.place.clone(), cert: cert.place.clone() }
        }
        error => TlsError::KeyUnsupported { place: key.place.clone(), problem: error.to_string() },
    })
}

/// Whether the other programs of the network will accept this certificate, at a time when it is valid: that it ended, or begins
/// later, is no reason not to start.
fn check_own_ca(
    identity: &Identity,
    roots: &Arc<RootCertStore>,
    provider: &CryptoProvider,
    cert: &Part,
    ca: &Part,
) -> Result<(), TlsError> {
    let verifier = ServerVerifier {
        roots: Arc::clone(roots),
        algorithms: provider.signature_verification_algorithms,
        rules: Arc::default(),
        expected: Expected::Anyone,
    };
    let Some((leaf, intermediates)) = identity.chain().split_first() else { return Ok(()) };
    let within = identity.not_before() + Duration::from_secs(1);
    match verifier.verify_server_cert(leaf, intermediates, &no_name(), &[], unix_time(within)) {
        Err(Error::InvalidCertificate(
            CertificateError::UnknownIssuer | CertificateError::BadSignature | CertificateError::Other(_),
        )) => Err(TlsError::WrongCa { cert: cert.place.clone(), ca: ca.place.clone() }),
        // A certificate for clients only, or a CA that is younger.
        _ => Ok(()),
    }
}

fn client_verifier(
    roots: &Arc<RootCertStore>,
    provider: &Arc<CryptoProvider>,
    auth: ClientAuth,
    rules: &Arc<Rules>,
) -> Result<Arc<dyn ClientCertVerifier>, TlsError> {
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::clone(roots), Arc::clone(provider));
    let builder = match auth {
        ClientAuth::Required => builder,
        ClientAuth::Optional => builder.allow_unauthenticated(),
    };
    let chain = builder.build().map_err(|error| TlsError::Setup(error.to_string()))?;
    Ok(Arc::new(ClientVerifier { chain, rules: Arc::clone(rules) }))
}

fn server_config(
    provider: &Arc<CryptoProvider>,
    clients: Arc<dyn ClientCertVerifier>,
    own: &Arc<CertifiedKey>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let builder = ServerConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(|error| TlsError::Setup(error.to_string()))?;
    let resolver = Arc::new(SingleCertAndKey::from(Arc::clone(own)));
    let mut config = builder.with_client_cert_verifier(clients).with_cert_resolver(resolver);
    config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
    config.ignore_client_order = true;
    // A resumed session would go on with a certificate that was replaced, ended or revoked since.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}

fn client_config(
    provider: &Arc<CryptoProvider>,
    roots: &Arc<RootCertStore>,
    rules: &Arc<Rules>,
    own: Option<&Arc<CertifiedKey>>,
) -> Result<ClientConfig, TlsError> {
    let builder = ClientConfig::builder_with_provider(Arc::clone(provider)).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(|error| TlsError::Setup(error.to_string()))?;
    let verifier = ServerVerifier {
        roots: Arc::clone(roots),
        algorithms: provider.signature_verification_algorithms,
        rules: Arc::clone(rules),
        expected: Expected::Anyone,
    };
    let builder = builder.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match own {
        Some(own) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(Arc::clone(own)))),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![ALPN_H2.to_vec()];
    config.resumption = Resumption::disabled();
    Ok(config)
}
