//! Calls for certificates.

use super::EnrolError;
use crate::{
    channel::{Dial, REGISTRY_RESPONSE_MAX_BYTES},
    endpoint::Endpoint,
    status,
    tls::{ClientAuth, Expected, Pem, Tls, certificates_pem, shown_chain},
    token::CaHash,
    v1::{EnrollRequest, EnrollResponse, registry_client::RegistryClient},
};
use rustls_pki_types::CertificateDer;
use std::{net::IpAddr, time::Duration};
use tokio::time::timeout;

/// Time limit of one call, connection set-up included.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);

/// The certificate authority `ca`, from what answers at `registry`. Whoever answers may send it, so this proves nothing of them: it is what
/// their certificate is checked against next.
///
/// # Errors
/// When nothing answers with TLS there, or the chain does not have it.
pub async fn authority_at(registry: &Endpoint, ca: CaHash, from: Option<IpAddr>) -> Result<CertificateDer<'static>, EnrolError> {
    let unreachable = |problem: String| EnrolError::Unreachable { registry: registry.clone(), problem };
    let chain = match timeout(CALL_TIMEOUT, shown_chain(registry, from)).await {
        Ok(shown) => shown.map_err(unreachable)?,
        Err(_) => return Err(unreachable(format!("no TLS handshake within {} s", CALL_TIMEOUT.as_secs()))),
    };
    let found = chain.into_iter().find(|certificate| CaHash::of(certificate) == ca);
    found.ok_or_else(|| EnrolError::WrongAuthority { registry: registry.clone(), expected: ca })
}

/// A client that trusts `authorities` (PEM), and shows no certificate.
pub(super) fn without_certificate(authorities: Vec<u8>) -> Result<Tls, EnrolError> {
    Ok(Tls::from_pem(Pem { cert: None, key: None, ca: authorities }, ClientAuth::Required)?)
}

/// Calls the registry at `registry`, which must prove that it is one of the network of `tls`.
pub(super) async fn enroll(
    registry: &Endpoint,
    tls: &Tls,
    from: Option<IpAddr>,
    request: EnrollRequest,
) -> Result<EnrollResponse, EnrolError> {
    let dial = Dial { from, tls: Some(tls.clone()), ..Dial::default() };
    let channel = dial.lazy(std::slice::from_ref(registry), Expected::Registry(registry.clone()));
    let mut client = RegistryClient::new(channel).max_decoding_message_size(REGISTRY_RESPONSE_MAX_BYTES);
    let unreachable = |problem: String| EnrolError::Unreachable { registry: registry.clone(), problem };
    match timeout(CALL_TIMEOUT, client.enroll(request)).await {
        Ok(Ok(answer)) => Ok(answer.into_inner()),
        Ok(Err(refused)) if status::Reason::of(&refused).is_none() => Err(unreachable(status::describe(&refused))),
        Ok(Err(status)) => Err(EnrolError::Refused { registry: registry.clone(), status }),
        Err(_) => Err(unreachable(format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
    }
}

/// The certificates of an answer, with the `key` that they were asked for.
pub(super) fn pem_of(registry: &Endpoint, answer: &EnrollResponse, key: String) -> Result<Pem, EnrolError> {
    let trust = answer.trust.as_ref().map(|trust| trust.authorities.as_slice()).unwrap_or_default();
    if answer.certificates.is_empty() || trust.is_empty() {
        let problem = "it has no certificate, or no certificate authority".to_owned();
        return Err(EnrolError::Answer { registry: registry.clone(), problem });
    }
    Ok(Pem {
        cert: Some(certificates_pem(&answer.certificates).into()),
        key: Some(key.into()),
        ca: certificates_pem(trust).into(),
    })
}
