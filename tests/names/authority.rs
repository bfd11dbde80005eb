//! A CA for tests.

use p2pdi::tls::{ClientAuth, Pem, Tls};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair, SanType};

/// A CA that signs certificates of one network.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// The certificate of a peer.
    pub(crate) fn peer(&self, name: &str) -> Tls {
        self.issue(&[name], &format!("peer/{name}"))
    }

    /// A certificate for `hosts`, with an id in the network: `registry`, `peer/NAME` or `operator/NAME`.
    pub(crate) fn issue(&self, hosts: &[&str], id: &str) -> Tls {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(hosts.iter().map(ToString::to_string).collect::<Vec<_>>()).unwrap();
        params.subject_alt_names.push(SanType::URI(format!("spiffe://default/{id}").try_into().unwrap()));
        let cert = params.signed_by(&key, &self.0).unwrap();
        let pem = Pem {
            cert: Some(cert.pem().into_bytes()),
            key: Some(key.serialize_pem().into_bytes()),
            ca: self.0.pem().into_bytes(),
        };
        Tls::from_pem(pem, ClientAuth::Required).unwrap()
    }
}
