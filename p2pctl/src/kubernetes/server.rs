//! An API server for tests: HTTPS on loopback, with Secrets in memory, and versions as the real one has them.

use super::api::{Account, Api};
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode, body::Incoming, header::AUTHORIZATION, server::conn::http1, service::service_fn,
};
use hyper_util::rt::TokioIo;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, crypto::ring, version::TLS13};
use rustls_pki_types::PrivateKeyDer;
use serde_json::{Value, json};
use std::{
    collections::BTreeMap,
    convert::Infallible,
    fs,
    sync::{Arc, Mutex},
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;

const TOKEN: &str = "a-token-of-the-kubelet";
const PATH: &str = "/api/v1/namespaces/p2pdi/secrets";

/// What the server has, and what was asked of it.
#[derive(Default)]
pub(crate) struct State {
    pub(crate) secrets: BTreeMap<String, Value>,
    version: u64,
    /// Methods and names of the calls.
    pub(crate) calls: Vec<String>,
    /// So many of the next writes come too late: another one was first.
    pub(crate) conflicts: usize,
    /// The account may do nothing.
    pub(crate) forbids: bool,
}

/// The server, until it is dropped, and the folder of an account.
pub(crate) struct Server {
    pub(crate) state: Arc<Mutex<State>>,
    pub(crate) account: Account,
    _folder: TempDir,
}

impl Server {
    pub(crate) async fn start() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        let key = KeyPair::generate().unwrap();
        let certificate = CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[&TLS13])
            .unwrap()
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], PrivateKeyDer::Pkcs8(key.serialize_der().into()))
            .unwrap();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let folder = tempfile::tempdir().unwrap();
        for (file, text) in [("token", TOKEN), ("namespace", "p2pdi\n"), ("ca.crt", &ca.pem())] {
            fs::write(folder.path().join(file), text).unwrap();
        }
        let state = Arc::new(Mutex::new(State::default()));
        let serving = Arc::clone(&state);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (acceptor, state) = (acceptor.clone(), Arc::clone(&serving));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let answer = service_fn(move |request| answer(Arc::clone(&state), request));
                    let _ended = http1::Builder::new().serve_connection(TokioIo::new(stream), answer).await;
                });
            }
        });
        let account = Account { host: "127.0.0.1".to_owned(), port, folder: folder.path().to_owned() };
        Self { state, account, _folder: folder }
    }

    pub(crate) fn api(&self) -> Api {
        Api::open(self.account.clone()).unwrap()
    }

    /// The text of a key of a Secret.
    pub(crate) fn text(&self, secret: &str, key: &str) -> String {
        let state = self.state.lock().unwrap();
        let encoded = state.secrets[secret]["data"][key].as_str().unwrap_or_else(|| panic!("{secret} has no {key}"));
        String::from_utf8(data_encoding::BASE64.decode(encoded.as_bytes()).unwrap()).unwrap()
    }
}

async fn answer(state: Arc<Mutex<State>>, request: Request<Incoming>) -> Result<Response<Full<bytes::Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    let (status, value) = if head.headers.get(AUTHORIZATION).is_none_or(|value| value != &format!("Bearer {TOKEN}")) {
        (StatusCode::UNAUTHORIZED, json!({ "message": "Unauthorized" }))
    } else {
        let name = head.uri.path().strip_prefix(PATH).unwrap_or_else(|| panic!("{}", head.uri)).trim_start_matches('/');
        state.lock().unwrap().call(&head.method, name, serde_json::from_slice(&body).unwrap_or(Value::Null))
    };
    Ok(Response::builder().status(status).body(Full::new(value.to_string().into())).unwrap())
}

impl State {
    fn call(&mut self, method: &Method, name: &str, mut sent: Value) -> (StatusCode, Value) {
        let name = if name.is_empty() { sent["metadata"]["name"].as_str().unwrap().to_owned() } else { name.to_owned() };
        self.calls.push(format!("{method} {name}"));
        if self.forbids {
            return (StatusCode::FORBIDDEN, json!({ "message": format!("secrets {name:?} is forbidden") }));
        }
        let present = self.secrets.get(&name);
        let version = |secret: &Value| secret["metadata"]["resourceVersion"].as_str().map(str::to_owned);
        match (method, present) {
            (&Method::GET, Some(secret)) => return (StatusCode::OK, secret.clone()),
            (&Method::GET | &Method::PUT, None) => return (StatusCode::NOT_FOUND, json!({ "message": "not found" })),
            (&Method::POST, Some(_)) => return (StatusCode::CONFLICT, json!({ "message": "already exists" })),
            (&Method::PUT, Some(secret)) if version(secret) != version(&sent) => {
                return (StatusCode::CONFLICT, json!({ "message": "the object has been modified" }));
            }
            (&Method::POST | &Method::PUT, _) if self.conflicts > 0 => {
                self.conflicts -= 1;
                return (StatusCode::CONFLICT, json!({ "message": "the object has been modified" }));
            }
            (&Method::POST | &Method::PUT, _) => {}
            (method, _) => panic!("{method}"),
        }
        self.version += 1;
        sent["metadata"]["resourceVersion"] = self.version.to_string().into();
        self.secrets.insert(name, sent.clone());
        (StatusCode::OK, sent)
    }
}
