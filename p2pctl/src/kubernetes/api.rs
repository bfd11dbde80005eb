//! The API of Kubernetes, as much of it as keeping Secrets takes: get, create and replace one by its name (kubernetes.io/docs/reference/using-api).
//!
//! A connection for each call: there are a handful in a run. What goes over it is never logged.

use super::secret::Secret;
use crate::failure::{Failure, Outcome};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    Method, Request, StatusCode,
    client::conn::http1,
    header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, HeaderValue},
};
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore, crypto::ring, version::TLS13};
use rustls_pki_types::{CertificateDer, ServerName, pem::PemObject as _};
use serde_json::Value;
use std::{
    env, fs, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::TlsConnector;
use tokio_util::task::AbortOnDropHandle;

/// Where the kubelet puts a pod's account.
const FOLDER: &str = "/var/run/secrets/kubernetes.io/serviceaccount";
/// Longest time of one call.
const CALL_TIMEOUT: Duration = Duration::from_secs(15);
/// Largest answer, in bytes: a Secret has at most 1 MiB, a third more in base64, and what is said about it.
const ANSWER_MAX_BYTES: usize = 4 * 1024 * 1024;
/// Longest text of the server's that an error quotes, in characters.
const QUOTED_MAX_CHARS: usize = 300;

/// The account of a pod, and where its API server is.
#[derive(Debug, Clone)]
pub(crate) struct Account {
    /// Name or address of the API server.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
    /// Folder with `token`, `ca.crt` and `namespace`.
    pub(crate) folder: PathBuf,
}

/// The API server, and the namespace of the pod.
pub(crate) struct Api {
    account: Account,
    namespace: String,
    tls: TlsConnector,
    name: ServerName<'static>,
}

impl Account {
    /// That of the pod in which this program runs.
    ///
    /// # Errors
    /// When it runs in none.
    pub(crate) fn of_pod() -> Outcome<Self> {
        let variable = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
        let (host, port) = (variable("KUBERNETES_SERVICE_HOST"), variable("KUBERNETES_SERVICE_PORT_HTTPS"));
        let port = port.and_then(|port| port.parse().ok());
        host.zip(port).map(|(host, port)| Self { host, port, folder: FOLDER.into() }).ok_or_else(|| {
            Failure::refused(
                "this is no pod of Kubernetes: KUBERNETES_SERVICE_HOST and KUBERNETES_SERVICE_PORT_HTTPS are not set",
            )
            .hint("the chart runs this in a Job (tls.mode=chart); elsewhere, `p2pctl ca issue` writes certificates to files")
        })
    }

    fn read(&self, file: &str) -> Outcome<String> {
        let path = self.folder.join(file);
        fs::read_to_string(&path).map(|text| text.trim().to_owned()).map_err(|error| {
            Failure::refused(format!("cannot read {}: {error}", path.display()))
                .hint("the pod needs its ServiceAccount's token: automountServiceAccountToken: true")
        })
    }
}

impl Api {
    /// Reads the account; calls nobody.
    ///
    /// # Errors
    /// When a file of it is missing, or is not what it should be.
    pub(crate) fn open(account: Account) -> Outcome<Self> {
        let namespace = account.read("namespace")?;
        if namespace.is_empty()
            || !namespace.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-')
        {
            return Err(Failure::refused("the account's file `namespace` holds no name of a namespace"));
        }
        let tls = connector(&account.folder.join("ca.crt"), &account.read("ca.crt")?)?;
        let name = ServerName::try_from(account.host.clone())
            .map_err(|_| Failure::refused(format!("{:?} is no host name or address", account.host)))?;
        Ok(Self { account, namespace, tls, name })
    }

    /// The namespace of the pod, where the Secrets are.
    pub(crate) fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The Secret of this name; `None`: there is none.
    ///
    /// # Errors
    /// When it may not be read, or the server cannot be called.
    pub(crate) async fn secret(&self, name: &str) -> Outcome<Option<Secret>> {
        let doing = format!("read Secret {name}");
        match self.call(&doing, Method::GET, &format!("/{name}"), None).await? {
            (StatusCode::NOT_FOUND, _) => Ok(None),
            (status, answer) if status.is_success() => Secret::read(name, &answer).map(Some),
            (status, answer) => Err(refused(&doing, status, &answer)),
        }
    }

    /// Writes a Secret: a new one, or in place of the one that was read. Whether it was written: another one may have come first.
    ///
    /// # Errors
    /// When it may not be written, or the server cannot be called.
    pub(crate) async fn write(&self, secret: &Secret) -> Outcome<bool> {
        let (doing, method, path) = if secret.is_new() {
            (format!("create Secret {}", secret.name()), Method::POST, String::new())
        } else {
            (format!("update Secret {}", secret.name()), Method::PUT, format!("/{}", secret.name()))
        };
        match self.call(&doing, method, &path, Some(secret.to_json())).await? {
            (StatusCode::CONFLICT, _) => Ok(false),
            (status, _) if status.is_success() => Ok(true),
            (status, answer) => Err(refused(&doing, status, &answer)),
        }
    }

    async fn call(&self, doing: &str, method: Method, path: &str, body: Option<Value>) -> Outcome<(StatusCode, Value)> {
        match timeout(CALL_TIMEOUT, Box::pin(self.try_call(method, path, body))).await {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(Called::Refused(failure))) => Err(failure),
            Ok(Err(Called::Failed(problem))) => Err(self.failed(doing, &problem)),
            Err(_) => Err(self.failed(doing, &format!("no answer within {} s", CALL_TIMEOUT.as_secs()))),
        }
    }

    fn failed(&self, doing: &str, problem: &str) -> Failure {
        let Account { host, port, .. } = &self.account;
        Failure::refused(format!("cannot {doing}: the API server {host}:{port}: {problem}"))
            .hint("may this pod reach the API server? A NetworkPolicy may be in the way")
    }

    async fn try_call(&self, method: Method, path: &str, body: Option<Value>) -> Result<(StatusCode, Value), Called> {
        let Account { host, port, .. } = &self.account;
        // Read for each call: the kubelet replaces tokens.
        let token = self.account.read("token")?;
        let mut authorization = HeaderValue::try_from(format!("Bearer {token}"))
            .map_err(|_| Failure::refused("the account's file `token` holds no token"))?;
        authorization.set_sensitive(true);
        let authority = if host.contains(':') { format!("[{host}]:{port}") } else { format!("{host}:{port}") };
        let request = Request::builder()
            .method(method)
            .uri(format!("/api/v1/namespaces/{}/secrets{path}", self.namespace))
            .header(HOST, authority)
            .header(AUTHORIZATION, authorization)
            .header(ACCEPT, "application/json")
            .header(CONTENT_TYPE, "application/json")
            .body(Full::new(body.map_or_else(Bytes::new, |body| body.to_string().into())))
            .map_err(|error| Called::Failed(error.to_string()))?;
        let stream = TcpStream::connect((host.as_str(), *port)).await?;
        let stream = self.tls.connect(self.name.clone(), stream).await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(failed)?;
        let _driven = AbortOnDropHandle::new(tokio::spawn(connection));
        let answer = sender.send_request(request).await.map_err(failed)?;
        let status = answer.status();
        let body = Limited::new(answer.into_body(), ANSWER_MAX_BYTES).collect().await;
        let body = body.map_err(|error| Called::Failed(error.to_string()))?.to_bytes();
        Ok((status, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }
}

/// Why a call has no answer.
enum Called {
    /// This program does not make it.
    Refused(Failure),
    /// The server was not reached, or did not answer.
    Failed(String),
}

impl From<Failure> for Called {
    fn from(failure: Failure) -> Self {
        Self::Refused(failure)
    }
}

impl From<io::Error> for Called {
    fn from(error: io::Error) -> Self {
        Self::Failed(error.to_string())
    }
}

fn failed(error: hyper::Error) -> Called {
    Called::Failed(error.to_string())
}

/// Trusts the cluster's CA, and nobody else.
fn connector(path: &Path, pem: &str) -> Outcome<TlsConnector> {
    let wrong = |problem: String| Failure::refused(format!("{} holds no CA of the API server: {problem}", path.display()));
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(pem.as_bytes()) {
        let added =
            certificate.map_err(|error| error.to_string()).and_then(|one| roots.add(one).map_err(|error| error.to_string()));
        added.map_err(wrong)?;
    }
    if roots.is_empty() {
        return Err(wrong("it has no certificate".to_owned()));
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])
        .map_err(|error| wrong(error.to_string()))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsConnector::from(Arc::new(config)))
}

/// The server's `Status` (kubernetes.io/docs/reference/kubernetes-api/common-definitions/status) as a failure.
fn refused(doing: &str, status: StatusCode, answer: &Value) -> Failure {
    let message: String = answer["message"].as_str().unwrap_or_default().chars().take(QUOTED_MAX_CHARS).collect();
    let failure = Failure::refused(format!("cannot {doing}: {status}: {message}"));
    match status {
        StatusCode::FORBIDDEN => {
            failure.hint("the pod's ServiceAccount needs a Role that lets it get, create and update this Secret")
        }
        StatusCode::UNAUTHORIZED => failure.hint("the API server does not accept the token of the pod's ServiceAccount"),
        _ => failure,
    }
}
