//! Checks of the certificates that others show: chain, time, revocation, name.

use super::{Expected, Identity, Serial};
use crate::network::NetworkName;
use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, Error, OtherError, RootCertStore, SignatureScheme,
    client::{
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        verify_server_cert_signed_by_trust_anchor, verify_server_name,
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::{
        ParsedCertificate,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{
    collections::BTreeSet,
    fmt,
    sync::{Arc, PoisonError, RwLock},
};
use tokio::sync::watch;

/// The serial numbers of certificates that ended before their time.
#[derive(Debug, Default)]
pub(super) struct Revoked(watch::Sender<Arc<BTreeSet<Serial>>>);

impl Revoked {
    pub(super) fn set(&self, serials: BTreeSet<Serial>) {
        self.0.send_replace(Arc::new(serials));
    }

    pub(super) fn contains(&self, serial: &Serial) -> bool {
        self.0.borrow().contains(serial)
    }

    /// Completes once the certificate with this serial number is revoked.
    pub(super) fn until(&self, serial: Serial) -> impl Future<Output = ()> + use<> {
        let mut changes = self.0.subscribe();
        async move {
            // Without a sender nothing is revoked any more.
            if changes.wait_for(|revoked| revoked.contains(&serial)).await.is_err() {
                std::future::pending::<()>().await;
            }
        }
    }
}

/// What certificates of a network must be beside what the library checks.
#[derive(Debug, Default)]
pub(super) struct Rules {
    pub(super) revoked: Revoked,
    /// The network of this program; `None`: it was not said yet.
    network: RwLock<Option<NetworkName>>,
}

impl Rules {
    /// Refuses certificates whose SPIFFE id is of another network than this from now on.
    pub(super) fn set_network(&self, network: NetworkName) {
        *self.network.write().unwrap_or_else(PoisonError::into_inner) = Some(network);
    }

    /// Whether the certificate is of this program's network, or says of none that it is its own.
    pub(super) fn check_network(&self, identity: &Identity) -> Result<(), OtherNetwork> {
        let own = self.network.read().unwrap_or_else(PoisonError::into_inner);
        match (&*own, identity.network()) {
            (Some(own), Some(found)) if own.as_str() != found => Err(OtherNetwork { found: found.to_owned(), own: own.clone() }),
            _ => Ok(()),
        }
    }

    fn check(&self, identity: &Identity) -> Result<(), Error> {
        if self.revoked.contains(identity.serial()) {
            return Err(CertificateError::Revoked.into());
        }
        self.check_network(identity).map_err(Wrong::Network)?;
        Ok(())
    }
}

/// A certificate is of another network than the program that checks it.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its certificate is of the network {found}, and this program is of {own} (--network)")]
pub(super) struct OtherNetwork {
    pub(super) found: String,
    pub(super) own: NetworkName,
}

/// What is wrong with a certificate beside what the library checks.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum Wrong {
    #[error("its certificate is self-signed; it needs one that a CA of the network signed")]
    SelfSigned,
    #[error("its certificate cannot be used: {0}")]
    Unreadable(String),
    #[error(transparent)]
    Network(OtherNetwork),
    #[error("its certificate is for {found}, not for {expected}")]
    Name { found: String, expected: String },
    #[error(
        "its certificate is for {found}; that of the registry is for its host, {host}, or has the URI spiffe://NETWORK/registry"
    )]
    NotRegistry { found: String, host: String },
}

impl From<Wrong> for Error {
    fn from(wrong: Wrong) -> Self {
        CertificateError::Other(OtherError(Arc::new(wrong))).into()
    }
}

/// Checks the certificates of servers, for one expectation.
pub(super) struct ServerVerifier {
    pub(super) roots: Arc<RootCertStore>,
    pub(super) algorithms: WebPkiSupportedAlgorithms,
    pub(super) rules: Arc<Rules>,
    pub(super) expected: Expected,
}

impl fmt::Debug for ServerVerifier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerVerifier").field("expected", &self.expected).finish_non_exhaustive()
    }
}

impl ServerVerifier {
    fn check_name(&self, identity: &Identity, parsed: &ParsedCertificate<'_>) -> Result<(), Wrong> {
        match &self.expected {
            Expected::Anyone => Ok(()),
            Expected::Peer(name) if identity.has_name(name) => Ok(()),
            Expected::Peer(name) => Err(Wrong::Name { found: identity.to_string(), expected: name.to_string() }),
            Expected::Registry(endpoint) => {
                let host = ServerName::try_from(endpoint.host());
                let is_for_host = host.is_ok_and(|host| verify_server_name(parsed, &host).is_ok());
                if identity.is_registry() || is_for_host && !identity.is_peer_or_operator() {
                    return Ok(());
                }
                Err(Wrong::NotRegistry { found: identity.to_string(), host: endpoint.host().to_owned() })
            }
        }
    }
}

impl ServerCertVerifier for ServerVerifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let parsed = ParsedCertificate::try_from(end_entity)?;
        let algorithms = self.algorithms.all;
        verify_server_cert_signed_by_trust_anchor(&parsed, &self.roots, intermediates, now, algorithms)
            .map_err(|error| or_self_signed(error, end_entity))?;
        let identity = read(end_entity)?;
        self.rules.check(&identity)?;
        self.check_name(&identity, &parsed)?;
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls12_signature(message, cert, signed, &self.algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.algorithms.supported_schemes()
    }
}

/// Checks the certificates of clients: the library's checks, and the [`Rules`].
#[derive(Debug)]
pub(super) struct ClientVerifier {
    pub(super) chain: Arc<dyn ClientCertVerifier>,
    pub(super) rules: Arc<Rules>,
}

impl ClientCertVerifier for ClientVerifier {
    fn client_auth_mandatory(&self) -> bool {
        self.chain.client_auth_mandatory()
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        self.chain.root_hint_subjects()
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        let verified = self.chain.verify_client_cert(end_entity, intermediates, now)?;
        self.rules.check(&read(end_entity)?)?;
        Ok(verified)
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls12_signature(message, cert, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.chain.verify_tls13_signature(message, cert, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.chain.supported_verify_schemes()
    }
}

fn read(certificate: &CertificateDer<'_>) -> Result<Identity, Wrong> {
    Identity::of_chain(vec![certificate.clone().into_owned()]).map_err(|error| Wrong::Unreadable(error.to_string()))
}

fn or_self_signed(error: Error, certificate: &CertificateDer<'_>) -> Error {
    match error {
        Error::InvalidCertificate(CertificateError::UnknownIssuer) if super::identity::is_self_issued(certificate) => {
            Wrong::SelfSigned.into()
        }
        error => error,
    }
}
