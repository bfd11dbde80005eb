//! login: a certificate for a person, from a token. It becomes a context.

use crate::{
    args::{Login, urls},
    contexts::{self, Context},
    failure::{Failure, Outcome},
    printer::Printer,
};
use p2pdi::{
    enrol::{EnrolError, Enrolment, Joining, renewal_at},
    tls::ClientAuth,
};
use serde_json::json;
use std::{
    path::Path,
    time::{Duration, SystemTime},
};
use tokio::time::timeout;

/// The files of an enrolment.
const CERTIFICATE: &str = "certificate.pem";
/// See [`CERTIFICATE`].
const KEY: &str = "key.pem";
/// See [`CERTIFICATE`].
const CA: &str = "ca.pem";
/// How long a verb waits for a new certificate while the present one is still valid.
const RENEWAL_TIMEOUT: Duration = Duration::from_secs(5);

pub(super) async fn login(args: Login, printer: Printer) -> Outcome {
    let Login { token, save_as } = args;
    let network = token.network.to_string();
    let name = save_as.unwrap_or_else(|| network.clone());
    let folder = contexts::folder(&name)?;
    let joining = Joining { token, name: None, name_default: None, from: None, auth: ClientAuth::Required, is_peer: false };
    let enrolment = Enrolment::join(&folder, &joining).await?;
    let identity = enrolment.identity().ok_or_else(|| Failure::refused("the registry gave no certificate"))?;
    let registry = Some(urls(enrolment.registries(), true)).filter(|urls| !urls.is_empty());
    let file = |name: &str| Some(folder.join(name));
    let context = Context { name, registry, network: Some(network), cert: file(CERTIFICATE), key: file(KEY), ca: file(CA) };
    contexts::save(&context)?;
    let registry = context.registry.clone().unwrap_or_default();
    if printer.is_json() {
        let path = |name: &str| folder.join(name).display().to_string();
        let all = json!({
            "context": context.name,
            "identity": identity.to_string(),
            "registry": registry,
            "tls_cert": path(CERTIFICATE),
            "tls_key": path(KEY),
            "tls_ca": path(CA),
        });
        return Ok(printer.json(&all)?);
    }
    Ok(printer.text(&format!("logged in to {registry} as {identity}; {} is the current context", context.name))?)
}

/// Renews the certificate in the file `cert`, if a login put it there and two thirds of its life have passed. Until its end it is of use if
/// that fails, and afterwards for a month to get a new one.
pub(super) async fn renew(cert: Option<&Path>, printer: Printer) {
    let Some(folder) = cert.filter(|cert| cert.ends_with(CERTIFICATE)).and_then(Path::parent) else { return };
    // Files of somebody else's have no registry beside them.
    let Ok(Some(enrolment)) = Enrolment::stored(folder, None, ClientAuth::Required) else { return };
    let Some(own) = enrolment.identity().filter(|_| !enrolment.registries().is_empty()) else { return };
    let now = SystemTime::now();
    if now < renewal_at(own.not_before(), own.not_after(), 0.0) {
        return;
    }
    let problem = match timeout(RENEWAL_TIMEOUT, enrolment.renew()).await {
        Ok(Ok(())) => return,
        Ok(Err(error)) => error.to_string(),
        Err(_) => format!("no answer within {} s", RENEWAL_TIMEOUT.as_secs()),
    };
    let state = if own.not_after() <= now { "has ended" } else { "ends soon" };
    printer.note(&format!("warning: the certificate of {own} {state}, and cannot be renewed: {problem}"));
}

impl From<EnrolError> for Failure {
    fn from(error: EnrolError) -> Self {
        let failure = Self::refused(error.to_string());
        match error {
            EnrolError::Unreachable { .. } => {
                failure.hint("check that the registry runs with --ca, and that this machine reaches the addresses of the token")
            }
            EnrolError::WrongAuthority { .. } => failure.hint("ask whoever made the token for a new one"),
            _ => failure,
        }
    }
}
