//! Whoever makes calls for operators: somebody who logged in, or somebody who can read the certificate authority's own key.

use crate::{
    args::{AsOperator, Global},
    call::{CALL_TIMEOUT, bounded, explained},
    failure::{Failure, Outcome},
};
use p2pdi::{
    channel::Dial,
    registries::RegistryChannel,
    status::Reason,
    tls::{ClientAuth, Tls},
    v1::registry_admin_client::RegistryAdminClient,
};
use registry::ca::{Authority, CaError, Refusal, operator_of_folder};
use std::time::{Duration, SystemTime};
use tonic::{Response, Status};

/// Largest answer, in bytes: a listing of all tokens.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Where a call for operators goes.
pub(crate) enum Operator {
    /// No registry has the folder open: it is done in it.
    Folder(Box<Authority>),
    /// To the registry.
    Calling(Box<Calling>),
}

/// Calls of an operator.
pub(crate) struct Calling {
    client: RegistryAdminClient<RegistryChannel>,
    registry: RegistryChannel,
    dial: Dial,
    name: String,
}

impl Operator {
    pub(crate) fn new(global: &Global, by: &AsOperator) -> Outcome<Self> {
        let Some(folder) = &by.ca else { return Ok(Self::Calling(Box::new(Calling::new(global, global.dial.tls.clone())))) };
        match Authority::open_existing(folder) {
            Ok(authority) => Ok(Self::Folder(Box::new(authority))),
            Err(CaError::Locked(_)) => {
                let pem = operator_of_folder(folder, SystemTime::now())?;
                let tls = Tls::from_pem(pem, ClientAuth::Required).map_err(CaError::from)?;
                Ok(Self::Calling(Box::new(Calling::new(global, Some(tls)))))
            }
            Err(error) => Err(error.into()),
        }
    }
}

impl Calling {
    fn new(global: &Global, tls: Option<Tls>) -> Self {
        let dial = Dial::with(tls);
        let registry = RegistryChannel::new(&global.registries(), dial.clone());
        let client = RegistryAdminClient::new(registry.clone()).max_decoding_message_size(ANSWER_MAX_BYTES);
        Self { client, name: format!("the registry at {registry}"), registry, dial }
    }

    /// Where the registry is.
    pub(crate) fn at(&self) -> String {
        self.registry.to_string()
    }

    /// The registry, for errors.
    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    /// One call, bounded in time.
    pub(crate) async fn call<T>(
        &mut self,
        call: impl AsyncFnOnce(&mut RegistryAdminClient<RegistryChannel>) -> Result<Response<T>, Status>,
    ) -> Outcome<T> {
        self.call_within(CALL_TIMEOUT, call).await
    }

    /// One call that may take so long.
    pub(crate) async fn call_within<T>(
        &mut self,
        limit: Duration,
        call: impl AsyncFnOnce(&mut RegistryAdminClient<RegistryChannel>) -> Result<Response<T>, Status>,
    ) -> Outcome<T> {
        let answered = bounded(&self.name, limit, call(&mut self.client)).await;
        match answered {
            Err(failure) if failure.is_unanswered() => Err(failure
                .explained(explained(self.registry.registries(), &self.dial).await)
                .hint("name the registry with --registry, and log in with `p2pctl login TOKEN`; on its machine, --ca DIR does without")),
            Err(failure) if failure.is_reason(Reason::CertificateMissing) || failure.is_reason(Reason::OperatorOnly) => Err(failure
                .hint("on the registry's machine: `p2pctl token create --operator --name NAME --ca DIR`, then `p2pctl login TOKEN`")),
            answered => answered,
        }
    }
}

impl From<CaError> for Failure {
    fn from(error: CaError) -> Self {
        let failure = match &error {
            // As a registry answers it.
            CaError::Invalid(_) | CaError::Refused(Refusal::NameReserved(_)) => Self::usage(error.to_string()),
            _ => Self::refused(error.to_string()),
        };
        match error.hint() {
            Some(hint) => failure.hint(hint),
            None => failure,
        }
    }
}
