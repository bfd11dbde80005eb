//! The certificates that a server shows to somebody who trusts nobody yet.

use super::loaded::{no_name, provider};
use crate::{endpoint::Endpoint, first_address::FirstAddress};
use rustls::{
    ClientConfig, DigitallySignedStruct, Error, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls13_signature},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime};
use std::{net::IpAddr, sync::Arc};
use tokio_rustls::TlsConnector;

/// The chain that the server at `endpoint` shows, unchecked. Nothing is sent to it. The error is text for people.
///
/// # Errors
/// When nothing answers there with TLS 1.3.
pub async fn shown_chain(endpoint: &Endpoint, from: Option<IpAddr>) -> Result<Vec<CertificateDer<'static>>, String> {
    let stream = FirstAddress::of(std::slice::from_ref(endpoint), from).connect().await.map_err(|error| error.to_string())?;
    let provider = Arc::new(provider());
    let verifier = Arc::new(AcceptAny(Arc::clone(&provider)));
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS13]);
    let builder = builder.map_err(|error| error.to_string())?;
    let config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
    let shaken = TlsConnector::from(Arc::new(config)).connect(no_name(), stream).await;
    let stream = shaken.map_err(|error| format!("it does not speak TLS as a registry does ({error})"))?;
    let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
    Ok(chain.iter().map(|certificate| certificate.clone().into_owned()).collect())
}

/// Accepts whatever is shown: the caller looks at it.
#[derive(Debug)]
struct AcceptAny(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAny {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &CertificateDer<'_>,
        _signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::General("TLS 1.2 is not spoken".into()))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
