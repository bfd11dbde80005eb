//! Finds out what answers at an endpoint, to explain a failed call: a registry, a peer, another gRPC server, a web server.

use crate::{
    channel::Dial,
    endpoint::Endpoint,
    status::Reason,
    tls::Expected,
    v1::{LeaveRequest, PingRequest, peer_client::PeerClient, registry_client::RegistryClient},
};
use std::{fmt, io, time::Duration};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpStream,
    time::timeout,
};
use tonic::{Code, Status};

/// Time limit of a probe: it only improves the text of an error that the user already waits for.
const PROBE_TIMEOUT: Duration = Duration::from_secs(1);
/// A ClientHello that is empty: every server with TLS answers with an alert (RFC 8446, sections 4.1.2, 5.1 and 6.2).
const EMPTY_CLIENT_HELLO: [u8; 9] = [22, 3, 1, 0, 4, 1, 0, 0, 0];
/// How that answer begins: the type of its record, the version that every record names, and the length of an alert.
const ALERT: [u8; 5] = [21, 3, 3, 0, 2];
/// Bytes read of a web server's answer: its status line and the first headers.
const HTTP_HEAD_BYTES: usize = 1024;

/// What answers at an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answering {
    /// A registry of P2P-DI.
    Registry,
    /// A peer of P2P-DI.
    Peer,
    /// A gRPC server, or another server of HTTP/2.
    OtherGrpc,
    /// A web server (HTTP/1), with the name it gives itself.
    Web(Option<String>),
    /// A server that speaks TLS, and was asked without.
    Tls,
}

impl fmt::Display for Answering {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Registry => f.write_str("a registry"),
            Self::Peer => f.write_str("a peer"),
            Self::OtherGrpc => f.write_str("a gRPC server of another kind"),
            Self::Web(None) => f.write_str("a web server"),
            Self::Web(Some(name)) => write!(f, "a web server ({name})"),
            Self::Tls => f.write_str("a server with TLS"),
        }
    }
}

/// What answers at `endpoint`, asked as `dial` does; `None` if nothing does within a second, it speaks another protocol, or either side refuses
/// the other one's certificate.
pub async fn identify(endpoint: &Endpoint, dial: &Dial) -> Option<Answering> {
    if dial.tls.is_none() && speaks_tls(endpoint).await {
        return Some(Answering::Tls);
    }
    // A server with TLS answers plain HTTP too, to say that it speaks TLS.
    let web = async { if dial.tls.is_none() { web_server(endpoint).await } else { None } };
    let (registry, peer, web) = tokio::join!(is_registry(endpoint, dial), is_peer(endpoint, dial), web);
    match (registry, peer) {
        (Some(true), _) => Some(Answering::Registry),
        (_, Some(true)) => Some(Answering::Peer),
        (Some(false), Some(false)) => Some(Answering::OtherGrpc),
        _ => web.map(Answering::Web),
    }
}

/// Describes what answers at `endpoint` if it is not what was `expected`.
pub async fn explain(endpoint: &Endpoint, dial: &Dial, expected: &Answering) -> Option<String> {
    // Boxed: three clients are large, and most calls need none.
    match Box::pin(identify(endpoint, dial)).await.filter(|found| found != expected)? {
        Answering::Tls => {
            Some(format!("{endpoint} speaks TLS; give a certificate of its network with --tls-cert, --tls-key and --tls-ca"))
        }
        found => Some(format!("{endpoint} is {found}, not {expected}")),
    }
}

/// Whether a server answers an empty ClientHello as TLS does.
async fn speaks_tls(endpoint: &Endpoint) -> bool {
    let asked = async {
        let mut stream = TcpStream::connect(endpoint.as_str()).await?;
        stream.write_all(&EMPTY_CLIENT_HELLO).await?;
        let mut answer = [0; ALERT.len()];
        stream.read_exact(&mut answer).await?;
        // Servers that speak older versions too may name any of them.
        answer[2] = ALERT[2];
        io::Result::Ok(answer == ALERT)
    };
    matches!(timeout(PROBE_TIMEOUT, asked).await, Ok(Ok(true)))
}

/// A Leave without a cookie changes nothing, and a registry refuses it with a reason.
async fn is_registry(endpoint: &Endpoint, dial: &Dial) -> Option<bool> {
    let channel = dial.lazy(std::slice::from_ref(endpoint), Expected::Anyone);
    let answer = timeout(PROBE_TIMEOUT, RegistryClient::new(channel).leave(LeaveRequest {})).await.ok()?;
    answer.map_or_else(|status| speaks(&status), |_| Some(true))
}

async fn is_peer(endpoint: &Endpoint, dial: &Dial) -> Option<bool> {
    let channel = dial.lazy(std::slice::from_ref(endpoint), Expected::Anyone);
    let answer = timeout(PROBE_TIMEOUT, PeerClient::new(channel).ping(PingRequest {})).await.ok()?;
    answer.map_or_else(|status| speaks(&status), |_| Some(true))
}

/// Whether a failed call reached the service; `None` if no gRPC server answered.
fn speaks(status: &Status) -> Option<bool> {
    match status.code() {
        _ if Reason::of(status).is_some() => Some(true),
        Code::Unimplemented => Some(false),
        _ => None,
    }
}

/// Asks for `/` by HTTP/1.0: `Some` with the `Server` header if a web server answers.
async fn web_server(endpoint: &Endpoint) -> Option<Option<String>> {
    let head = timeout(PROBE_TIMEOUT, http_head(endpoint)).await.ok()?.ok()?;
    head.starts_with("HTTP/1.").then(|| {
        let server = head.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            name.eq_ignore_ascii_case("server").then(|| value.trim().to_owned())
        });
        server.filter(|name| !name.is_empty() && !name.contains(crate::field::is_terminal_control))
    })
}

async fn http_head(endpoint: &Endpoint) -> io::Result<String> {
    let mut stream = TcpStream::connect(endpoint.as_str()).await?;
    stream.write_all(format!("GET / HTTP/1.0\r\nhost: {endpoint}\r\n\r\n").as_bytes()).await?;
    let mut head = Vec::new();
    while head.len() < HTTP_HEAD_BYTES && !head.windows(4).any(|end| end == b"\r\n\r\n") {
        let mut part = [0; HTTP_HEAD_BYTES];
        match stream.read(&mut part).await? {
            0 => break,
            read => head.extend_from_slice(&part[..read]),
        }
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::TcpListener;

    async fn answering(text: &'static (impl AsRef<[u8]> + ?Sized + Sync)) -> Endpoint {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = Endpoint::from(listener.local_addr().unwrap());
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = listener.accept().await {
                let _read = stream.read(&mut [0; 1024]).await;
                let _written = stream.write_all(text.as_ref()).await;
            }
        });
        endpoint
    }

    #[tokio::test]
    async fn a_web_server_is_named_and_an_unknown_protocol_is_not() {
        let web = answering("HTTP/1.1 404 Not Found\r\nServer: nginx/1.22\r\ncontent-length: 0\r\n\r\n").await;
        assert_eq!(identify(&web, &Dial::default()).await, Some(Answering::Web(Some("nginx/1.22".into()))));
        assert_eq!(
            explain(&web, &Dial::default(), &Answering::Registry).await.unwrap(),
            format!("{web} is a web server (nginx/1.22), not a registry")
        );
        assert_eq!(identify(&answering("SSH-2.0-OpenSSH\r\n").await, &Dial::default()).await, None);
        let hostile = answering("HTTP/1.1 200 OK\r\nserver: \u{1b}[2J\r\n\r\n").await;
        assert_eq!(identify(&hostile, &Dial::default()).await, Some(Answering::Web(None)));
        assert_eq!(identify(&"127.0.0.1:1".parse().unwrap(), &Dial::default()).await, None);
    }

    #[tokio::test]
    async fn only_who_answers_as_tls_does_is_said_to_speak_it() {
        let alert = answering(b"\x15\x03\x01\x00\x02\x02\x32").await;
        assert_eq!(identify(&alert, &Dial::default()).await, Some(Answering::Tls));
        assert!(explain(&alert, &Dial::default(), &Answering::Peer).await.unwrap().contains("speaks TLS"));
        let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let silent_at = Endpoint::from(silent.local_addr().unwrap());
        let refusing = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().into();
        let others = [
            answering("HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n").await,
            answering(b"\x15\x03\x01").await,
            answering(b"\x15\0\0\0\0\0\0\0\0").await,
            // It closes the connection.
            answering("").await,
            silent_at,
            refusing,
            // An address of a network for documentation (RFC 5737): nothing answers there.
            "192.0.2.1:7801".parse().unwrap(),
        ];
        for endpoint in others {
            assert_ne!(identify(&endpoint, &Dial::default()).await, Some(Answering::Tls), "{endpoint}");
            let said = explain(&endpoint, &Dial::default(), &Answering::Peer).await.unwrap_or_default();
            assert!(!said.contains("TLS"), "{endpoint}: {said}");
        }
    }
}
