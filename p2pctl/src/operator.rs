//! Whoever makes calls for operators: somebody who logged in, or somebody who can read the certificate authority's own key.

use crate::{
    args::{AsOperator, Global},
    call::{CALL_TIMEOUT, bounded, explained},
    failure::{Failure, Outcome},
    printer::Printer,
};
use p2pdi::{
    channel::Dial,
    registries::RegistryChannel,
    status::Reason,
    tls::{ClientAuth, Tls},
    v1::{GetRegistryStatusRequest, registry_admin_client::RegistryAdminClient},
};
use registry::ca::{Authority, CaError, Refusal, operator_of_folder};
use std::{
    path::Path,
    time::{Duration, SystemTime},
};
use tonic::{Response, Status};

/// Largest answer, in bytes: a listing of all tokens.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;

/// How long it is tried whether a registry with the folder's authority runs.
const LOOK_TIMEOUT: Duration = Duration::from_secs(2);

/// Where a call for operators goes.
pub(crate) enum Operator {
    /// No registry uses the folder: it is done in it.
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
    /// Calls the registry if one with the folder's authority answers: registries that share a ledger leave the folder's own alone.
    pub(crate) async fn new(global: &Global, by: &AsOperator, printer: Printer) -> Outcome<Self> {
        let Some(folder) = &by.ca else { return Ok(Self::logged_in(global)) };
        let mut calling = Calling::by_key(global, folder)?;
        if !Authority::has_ledger(folder) {
            return Ok(Self::Calling(Box::new(calling)));
        }
        let authority = match Authority::open_existing(folder) {
            Ok(authority) => authority,
            Err(CaError::Locked(_)) => return Ok(Self::Calling(Box::new(calling))),
            Err(error) => return Err(error.into()),
        };
        match calling
            .call_within(LOOK_TIMEOUT, async |client| client.get_registry_status(GetRegistryStatusRequest {}).await)
            .await
        {
            Ok(_) => Ok(Self::Calling(Box::new(calling))),
            Err(failure) if failure.is_unanswered() => {
                printer.note(&format!("note: {} does not answer; this is about the folder {}", calling.name, folder.display()));
                Ok(Self::Folder(Box::new(authority)))
            }
            Err(failure) => Err(failure),
        }
    }

    fn logged_in(global: &Global) -> Self {
        Self::Calling(Box::new(Calling::new(global, global.dial.tls.clone())))
    }
}

impl Calling {
    /// As somebody who can read the authority's key.
    fn by_key(global: &Global, folder: &Path) -> Outcome<Self> {
        let pem = operator_of_folder(folder, SystemTime::now())?;
        let tls = Tls::from_pem(pem, ClientAuth::Required).map_err(CaError::from)?;
        Ok(Self::new(global, Some(tls)))
    }

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
