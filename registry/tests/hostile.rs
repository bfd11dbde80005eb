//! Many hostile connections and registrations of one address: others are served, memory stays bounded, and all is as before afterwards.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test fails by a panic, in its helpers too"
)]

mod support;

use p2pdi::{
    channel::{Channel, Dial},
    platform::ProcessStats,
    server::CallLimits,
    status::{self, Reason},
    tls::{ClientAuth, Expected, Pem, Tls},
    v1::{KeepAliveRequest, registry_client::RegistryClient},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use registry::Config;
use std::{
    env,
    net::SocketAddr,
    process::Command,
    time::{Duration, Instant},
};
use support::{Running, asking, in_memory, register, with_cookie};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpSocket, TcpStream},
    task::{JoinSet, spawn_blocking},
    time::{sleep_until, timeout},
};
use tonic::transport::Endpoint;

/// Time limit of one call of an honest client, on a machine that is busy with others.
const PATIENCE: Duration = Duration::from_secs(10);
/// What an honest call may take longer during the attack than twice as long as before, in the middle: the attackers are on the same machine, which
/// is busy with others.
const SLACK: Duration = Duration::from_millis(250);
/// Memory that the attack may cost: 500 connections of some 20 KiB, and what the allocator keeps.
const MEMORY: u64 = 64 << 20;
/// Most connections that make up names; each registers as quickly as it can.
const REGISTERING_MAX: usize = 50;
/// Tells the process of the attackers what to do, where to, how many of them, and for how many seconds.
const ATTACK: &str = "P2PDI_TEST_ATTACK";
/// The kinds of attacks.
const CONNECTIONS: &str = "connections";
const REGISTRATIONS: &str = "registrations";
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// How a hostile client behaves.
#[derive(Debug, Clone, Copy)]
enum Attack {
    Idle,
    HalfARequest,
    DrippingHeaders,
    DrippingBody,
    RapidResets,
    HalfAHandshake,
}

const ATTACKS: [Attack; 6] = [
    Attack::Idle,
    Attack::HalfARequest,
    Attack::DrippingHeaders,
    Attack::DrippingBody,
    Attack::RapidResets,
    Attack::HalfAHandshake,
];

/// An HTTP/2 frame (RFC 9113, section 4.1).
fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// The headers of a Register call, without dynamic table or Huffman code (RFC 7541).
fn register_headers() -> Vec<u8> {
    let text = |text: &[u8]| [&[u8::try_from(text.len()).unwrap()], text].concat();
    let path = b"/p2pdi.v1.Registry/Register";
    // `:method: POST`, `:scheme: http`, `:path`, `:authority`, `content-type`.
    [&[0x83, 0x86, 0x04][..], &text(path), &[0x01], &text(b"a"), &[0x00], &text(b"content-type"), &text(b"application/grpc")]
        .concat()
}

impl Attack {
    /// Goes on until the server ends the connection, or until `end`; an error ends it too.
    async fn run(self, mut stream: TcpStream, end: Instant) -> std::io::Result<()> {
        const DRIP: Duration = Duration::from_millis(100);
        match self {
            Self::Idle => {}
            Self::HalfARequest => stream.write_all(b"GET / HTTP/1.1\r\nho").await?,
            Self::DrippingHeaders => {
                stream.write_all(PREFACE).await?;
                // Ends neither the headers nor their frame.
                stream.write_all(&[0, 0x40, 0, 1, 0, 0, 0, 0, 1]).await?;
                while Instant::now() < end {
                    stream.write_all(&[0x83]).await?;
                    tokio::time::sleep(DRIP).await;
                }
            }
            Self::DrippingBody => {
                stream.write_all(PREFACE).await?;
                stream.write_all(&frame(1, 4, 1, &register_headers())).await?;
                // A message of 8 KiB.
                stream.write_all(&frame(0, 0, 1, &[0, 0, 0, 0x20, 0])).await?;
                while Instant::now() < end {
                    stream.write_all(&frame(0, 0, 1, &[0])).await?;
                    tokio::time::sleep(DRIP).await;
                }
            }
            // The first bytes of a ClientHello of 512 bytes (RFC 8446, sections 4.1.2 and 5.1).
            Self::HalfAHandshake => stream.write_all(&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3]).await?,
            Self::RapidResets => {
                stream.write_all(PREFACE).await?;
                let headers = register_headers();
                for id in (1..u32::MAX >> 1).step_by(2) {
                    stream.write_all(&[frame(1, 4, id, &headers), frame(3, 0, id, &[0, 0, 0, 8])].concat()).await?;
                }
            }
        }
        // The server ends it.
        stream.read_to_end(&mut Vec::new()).await.map(drop)
    }
}

async fn connect(to: SocketAddr, from: [u8; 4]) -> std::io::Result<TcpStream> {
    let socket = TcpSocket::new_v4()?;
    socket.bind((from, 0).into())?;
    socket.connect(to).await
}

/// Keeps `count` hostile connections from one address open until `end`; returns how many were made.
async fn attack(to: SocketAddr, count: usize, end: Instant) -> usize {
    let mut attackers = JoinSet::new();
    for number in 0..count {
        let attack = ATTACKS[number % ATTACKS.len()];
        attackers.spawn(async move {
            let mut made = 0;
            while Instant::now() < end {
                if let Ok(stream) = connect(to, [127, 0, 0, 66]).await {
                    made += 1;
                    let _ended = tokio::time::timeout_at(end.into(), attack.run(stream, end)).await;
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            made
        });
    }
    attackers.join_all().await.into_iter().sum()
}

/// Registers made-up names from one address until `end`; returns how many calls were made.
async fn make_up(to: SocketAddr, count: usize, end: Instant) -> usize {
    let mut attackers = JoinSet::new();
    for number in 0..count.min(REGISTERING_MAX) {
        let endpoint = Endpoint::from_shared(format!("http://{to}")).unwrap().local_address(Some([127, 0, 0, 66].into()));
        let mut client = support::Client::new(endpoint.connect_lazy());
        attackers.spawn(async move {
            let mut made = 0;
            while Instant::now() < end {
                let register = client.register(asking(&format!("made-up-{number}-{made}"), "127.0.0.66:7801"));
                let _refused = tokio::time::timeout_at(end.into(), register).await;
                made += 1;
            }
            made
        });
    }
    attackers.join_all().await.into_iter().sum()
}

/// An attack in another process, with the lowest priority where there is `nice`: attackers have machines of their own.
async fn attack_from_elsewhere(kind: &str, to: SocketAddr, count: usize, time: Duration) -> usize {
    let exe = env::current_exe().unwrap();
    let mut command = Command::new(if cfg!(unix) { "nice".as_ref() } else { exe.as_path() });
    if cfg!(unix) {
        command.args(["-n", "19"]).arg(&exe);
    }
    command.args(["--exact", "attackers_of_another_process", "--nocapture"]);
    command.env(ATTACK, format!("{kind} {to} {count} {}", time.as_secs()));
    // It ends by itself, after `time`.
    let output = spawn_blocking(move || command.output()).await.unwrap().unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let made = text.lines().find_map(|line| line.strip_prefix("attacks: ")?.parse().ok());
    made.unwrap_or_else(|| panic!("the attackers failed: {text}"))
}

/// Nothing, unless it is started by [`attack_from_elsewhere`].
#[tokio::test(flavor = "multi_thread")]
async fn attackers_of_another_process() {
    let Ok(wanted) = env::var(ATTACK) else { return };
    let [kind, to, count, seconds] = wanted.split(' ').collect::<Vec<_>>().try_into().unwrap();
    let end = Instant::now() + Duration::from_secs(seconds.parse().unwrap());
    let (to, count) = (to.parse().unwrap(), count.parse().unwrap());
    let made = if kind == REGISTRATIONS { make_up(to, count, end).await } else { attack(to, count, end).await };
    // After the test harness's own words on that line.
    println!("\nattacks: {made}");
}

fn client(address: SocketAddr, tls: Option<&Tls>) -> RegistryClient<Channel> {
    RegistryClient::new(Dial::with(tls.cloned()).lazy(&[address.into()], Expected::Anyone))
}

/// A certificate for `name`, and for 127.0.0.1, signed by `ca`.
fn certified(ca: &CertifiedIssuer<'_, KeyPair>, name: &str) -> Tls {
    let key = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec![name.to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let cert = params.signed_by(&key, ca).unwrap().pem().into_bytes();
    let pem = Pem { cert: Some(cert), key: Some(key.serialize_pem().into_bytes()), ca: ca.pem().into_bytes() };
    Tls::from_pem(pem, ClientAuth::Required).unwrap()
}

/// Makes KeepAlive calls until `end`, each with a time limit; every tenth on a new connection.
async fn be_honest(address: SocketAddr, tls: Option<&Tls>, cookie: String, end: Instant) -> Vec<Duration> {
    let mut took = Vec::new();
    let mut client = client(address, tls);
    while Instant::now() < end {
        if took.len() % 10 == 0 {
            client = self::client(address, tls);
        }
        let begun = Instant::now();
        let call = client.keep_alive(with_cookie(KeepAliveRequest::default(), &cookie));
        timeout(PATIENCE, call).await.expect("an honest client is answered in time").expect("an honest client is served");
        took.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    took.sort();
    took
}

fn resident() -> u64 {
    ProcessStats::read().resident_bytes.unwrap_or(0)
}

/// What the registry's `/metrics` says of `name`.
async fn metric(address: SocketAddr, name: &str) -> f64 {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text.lines().filter(|line| line.starts_with(name)).filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok()).sum()
}

/// Attacks with `count` connections for `time`, while an honest client calls. `tls`: of the registry, and of the client.
async fn withstands(count: usize, time: Duration, tls: Option<(Tls, Tls)>) {
    let connections = count * 2;
    let (servers, clients) = tls.unzip();
    let clients = clients.as_ref();
    let config =
        Config { max_connections: connections, max_connections_per_address: Some(count / 4), tls: servers, ..in_memory() };
    let registry = Running::start(config).await;
    let registered = client(registry.address, clients).register(asking("honest", "127.0.0.1:7801")).await;
    let honest = registered.unwrap().into_inner();
    let quiet = be_honest(registry.address, clients, honest.cookie.clone(), Instant::now() + time / 3).await;
    let (before, end) = (resident(), Instant::now() + time);
    let (made, took) = tokio::join!(
        attack_from_elsewhere(CONNECTIONS, registry.address, count, time),
        be_honest(registry.address, clients, honest.cookie.clone(), end)
    );
    let grown = resident().saturating_sub(before);
    let middle = |took: &[Duration]| took[took.len() / 2];
    println!(
        "{made} hostile connections; honest calls: median {:?} of {}, before {:?} of {}; memory grew by {} KiB",
        middle(&took),
        took.len(),
        middle(&quiet),
        quiet.len(),
        grown / 1024
    );
    assert!(made >= count, "{made}");
    assert!(grown < MEMORY, "memory grew by {grown} bytes");
    assert!(middle(&took) <= middle(&quiet) * 2 + SLACK, "{:?}, and {:?} before", middle(&took), middle(&quiet));
    // The same address is served again.
    let mut again = client(registry.address, clients);
    let answered = again.keep_alive(with_cookie(KeepAliveRequest::default(), &honest.cookie));
    timeout(PATIENCE, answered).await.unwrap().unwrap();
    if clients.is_some() {
        return registry.stop().await;
    }
    assert!(metric(registry.address, "p2pdi_connections_refused_total").await > 0.0, "some are refused");
    let mut stream = connect(registry.address, [127, 0, 0, 66]).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n\r\n").await.unwrap();
    let mut answer = [0; 12];
    timeout(PATIENCE, stream.read_exact(&mut answer)).await.unwrap().unwrap();
    assert_eq!(&answer, b"HTTP/1.1 200");
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_connections_of_one_address_leave_others_served_and_memory_bounded() {
    // The full size takes 24 s and 4,000 descriptors: P2PDI_HOSTILE=full cargo test -p registry --test hostile -- hostile_connections --nocapture
    let (connections, time) = if env::var_os("P2PDI_HOSTILE").is_some() { (2_000, 20) } else { (300, 3) };
    withstands(connections, Duration::from_secs(time), None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_connections_of_one_address_leave_others_served_with_certificates() {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let ca = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let tls = (certified(&ca, "registry"), certified(&ca, "honest"));
    withstands(300, Duration::from_secs(3), Some(tls)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_registrations_leave_others_as_quick_as_before_and_memory_bounded() {
    // The full size: P2PDI_HOSTILE=full cargo test -p registry --test hostile -- made_up --nocapture
    let time = Duration::from_secs(if env::var_os("P2PDI_HOSTILE").is_some() { 20 } else { 3 });
    let calls = CallLimits::default().limiting_local();
    let registry = Running::start(Config { calls, ..in_memory() }).await;
    let honest = client(registry.address, None).register(asking("honest", "127.0.0.1:7801")).await.unwrap().into_inner();
    let quiet = be_honest(registry.address, None, honest.cookie.clone(), Instant::now() + time / 2).await;
    let (before, end) = (resident(), Instant::now() + time);
    // Peers of other addresses register meanwhile, as often as they may.
    let registering = async {
        let (mut took, mut number) = (Vec::new(), 0);
        let mut client = client(registry.address, None);
        while Instant::now() < end {
            let begun = Instant::now();
            let asked = client.register(asking(&format!("other-{number}"), "127.0.0.1:7801"));
            timeout(PATIENCE, asked).await.expect("a registration in time").expect("others register");
            took.push(begun.elapsed());
            number += 1;
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        took.sort();
        took
    };
    let (made, took, registered) = tokio::join!(
        attack_from_elsewhere(REGISTRATIONS, registry.address, REGISTERING_MAX, time),
        be_honest(registry.address, None, honest.cookie.clone(), end),
        registering
    );
    let grown = resident().saturating_sub(before);
    let middle = |took: &[Duration]| took[took.len() / 2];
    println!(
        "{made} made-up registrations; KeepAlive median {:?}, before {:?}; registrations {:?}; memory grew by {} KiB",
        middle(&took),
        middle(&quiet),
        middle(&registered),
        grown / 1024
    );
    // Of the lowest priority: on a machine that is busy with others there are few.
    assert!(made > 0, "nobody made up names");
    assert!(grown < MEMORY, "memory grew by {grown} bytes");
    let bound = middle(&quiet) * 2 + SLACK;
    assert!(middle(&took) <= bound && middle(&registered) <= bound, "{:?}, {:?}, {bound:?}", middle(&took), middle(&registered));
    let later = be_honest(registry.address, None, honest.cookie, Instant::now() + time / 3).await;
    assert!(middle(&later) <= bound, "{:?} afterwards, and {:?} before", middle(&later), middle(&quiet));
    registry.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn made_up_registrations_of_one_address_are_few_and_others_register() {
    let calls = CallLimits::default().limiting_local();
    let registry = Running::start(Config { calls, ..in_memory() }).await;
    let channel = |from: [u8; 4]| {
        let endpoint = Endpoint::from_shared(format!("http://{}", registry.address)).unwrap();
        support::Client::new(endpoint.local_address(Some(from.into())).connect_lazy())
    };
    let begun = Instant::now();
    let mut attackers = JoinSet::new();
    for number in 0..50 {
        let mut client = channel([127, 0, 0, 66]);
        attackers.spawn(async move {
            let (mut registered, mut told) = (0, Vec::new());
            for peer in 0..100 {
                match client.register(asking(&format!("made-up-{number}-{peer}"), "127.0.0.66:7801")).await {
                    Ok(_) => registered += 1,
                    Err(refused) => {
                        assert_eq!(Reason::of(&refused), Some(Reason::RateLimited), "{refused:?}");
                        told.push(status::retry_after(&refused).expect("it says when to try again"));
                    }
                }
            }
            (registered, told)
        });
    }
    for name in ["x", "y", "z"] {
        register(&mut channel([127, 0, 0, 1]), name, "127.0.0.1:7801").await;
    }
    let (mut registered, mut told) = (0, Vec::new());
    for (more, waits) in attackers.join_all().await {
        registered += more;
        told.extend(waits);
    }
    // The burst of one address, and its rate: see `CallClass`.
    let most = 128 + 10 * (begun.elapsed().as_secs() + 1);
    assert!(registered <= most, "{registered} of 5,000 registered, at most {most} should be");
    assert!(told.iter().all(|wait| *wait <= Duration::from_secs(1)), "{:?}", told.iter().max());
    assert!(metric(registry.address, "p2pdi_calls_limited_total").await >= 4_000.0);
    // Who waits as long as it is told is served.
    sleep_until((Instant::now() + Duration::from_secs(1)).into()).await;
    channel([127, 0, 0, 66]).register(asking("later", "127.0.0.66:7801")).await.expect("a registration after a pause");
    registry.stop().await;
}
