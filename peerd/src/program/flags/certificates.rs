//! Where the certificates of the peer come from: files, or a token.

use super::{Flags, default_state, no_state};
use crate::{config::RegistryUrl, identity::join};
use p2pdi::{
    enrol::{Enrolment, Joining},
    name::PeerName,
    tls::{Tls, TlsError, TlsFiles},
};
use std::error::Error;

impl Flags {
    /// The certificates, from files or by a token: with one, its registry counts, and the name that it gives.
    ///
    /// # Errors
    /// When a file cannot be used, or the token gives no certificate.
    pub(crate) async fn certificates(&mut self) -> Result<(Option<Tls>, Option<Enrolment>), Box<dyn Error>> {
        match self.join().await? {
            Some(enrolment) => Ok((Some(enrolment.tls().clone()), Some(enrolment))),
            None => Ok((self.tls()?, None)),
        }
    }

    async fn join(&mut self) -> Result<Option<Enrolment>, Box<dyn Error>> {
        let Some(token) = self.join.take() else { return Ok(None) };
        let host = PeerName::from_host_name(&gethostname::gethostname().to_string_lossy());
        let folder = self.name.as_ref().or(host.as_ref()).and_then(default_state);
        let state = self.state.clone().or(folder).ok_or_else(no_state)?;
        let network = token.network.clone();
        let joining = Joining {
            token,
            name: self.name.clone(),
            name_default: host,
            from: self.dial_from,
            auth: self.tls_client_auth,
            is_peer: true,
        };
        let enrolment = join(&state, &joining).await?;
        self.network = network;
        let registries = enrolment.registries().iter();
        self.registries = registries.map(|registry| RegistryUrl { endpoint: registry.clone(), needs_tls: true }).collect();
        self.state = Some(state);
        Ok(Some(enrolment))
    }

    /// The certificates, if files of them are given.
    ///
    /// # Errors
    /// When a file cannot be read, or what is in it cannot be used.
    fn tls(&self) -> Result<Option<Tls>, TlsError> {
        let Some(ca) = self.tls_ca.clone() else { return Ok(None) };
        let files = TlsFiles { cert: self.tls_cert.clone(), key: self.tls_key.clone(), ca };
        Tls::from_files(files, self.tls_client_auth).map(Some)
    }
}
