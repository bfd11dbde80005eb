//! `--share-to`: what is for some is as if it were not there for others, whichever way they ask.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::expect_used,
    clippy::cast_possible_truncation,
    reason = "a test fails by a panic, in its helpers too"
)]

#[path = "../peerd/tests/support/mod.rs"]
mod support;

use p2pdi::{
    channel::Dial,
    content::ContentHash,
    endpoint::Endpoint,
    id::PeerId,
    status::Reason,
    tls::{ClientAuth, Pem, Tls},
    v1::{
        AvailabilityRequest, AvailabilityStart, AvailabilityUpdate, Contact, FetchRequest, GetRfcRequest, JobState, PingRequest,
        RfcQueryRequest, SwarmRequest, get_rfc_request::Document,
    },
};
use peerd::{
    config::NodeConfig,
    connections::channels::ChannelPool,
    documents::restrictions::ShareTo,
    node::{Node, NodeError},
    transfer::jobs::JobRequest,
};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use std::{fs, net::SocketAddr, path::Path};
use support::{
    peer::{self, Peer},
    within,
};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_stream::StreamExt as _;

const SECRET: &[u8] = b"only for the team";

/// A certificate authority.
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    fn new() -> Self {
        let (key, mut params) = (KeyPair::generate().unwrap(), CertificateParams::new(Vec::new()).unwrap());
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let pem = params.self_signed(&key).unwrap().pem();
        Self { pem, issuer: Issuer::new(params, key) }
    }

    /// The certificate of the peer called `name`.
    fn tls(&self, name: &str) -> Tls {
        let (key, params) = (KeyPair::generate().unwrap(), CertificateParams::new(vec![name.to_owned()]).unwrap());
        let cert = params.signed_by(&key, &self.issuer).unwrap().pem();
        let pem = Pem { cert: Some(cert.into()), key: Some(key.serialize_pem().into()), ca: self.pem.clone().into() };
        Tls::from_pem(pem, ClientAuth::Required).unwrap()
    }
}

fn share(folder: &Path) {
    fs::create_dir_all(folder.join("share/team")).unwrap();
    fs::write(folder.join("share/open.txt"), "for all").unwrap();
    fs::write(folder.join("share/team/rfc48.txt"), SECRET).unwrap();
}

fn rule(folder: &Path, who: &str) -> ShareTo {
    format!("{}={who}", folder.join("share/team").display()).parse().unwrap()
}

/// A holder that has `team` for the team only.
async fn sharing_with_the_team(authority: &Authority, folder: TempDir) -> Peer {
    let config = NodeConfig {
        tls: Some(authority.tls("holder")),
        share_to: vec![rule(folder.path(), "team-*")],
        ..peer::config("holder", &folder)
    };
    let holder = Peer::start(config, folder).await;
    within("the share", holder.handle.share().settled()).await;
    holder
}

#[tokio::test]
async fn documents_for_some_are_as_if_they_were_not_there_for_others() {
    let (authority, folder) = (Authority::new(), tempfile::tempdir().unwrap());
    share(folder.path());
    let holder = sharing_with_the_team(&authority, folder).await;
    let at = Endpoint::from(holder.address);
    let mut members = Vec::new();
    for (name, may) in [("team-a", true), ("TEAM-b", true), ("stranger", false), ("a-team", false)] {
        let channels = ChannelPool::dialling(Dial::with(Some(authority.tls(name))));
        let mut client = channels.peer(&at, Some(&"holder".parse().unwrap()));
        for request in [
            RfcQueryRequest { own_only: true, ..Default::default() },
            RfcQueryRequest { number: 48, ..Default::default() },
            RfcQueryRequest { name: "team/rfc48.txt".into(), ..Default::default() },
            RfcQueryRequest { blake3: ContentHash::of(SECRET).to_field(), ..Default::default() },
            RfcQueryRequest { pattern: "team/".into(), ..Default::default() },
            RfcQueryRequest { words: "rfc48".into(), ..Default::default() },
        ] {
            let mut stream = client.rfc_query(request.clone()).await.unwrap().into_inner();
            let mut names = Vec::new();
            while let Some(message) = stream.message().await.unwrap() {
                names.extend(message.holdings.into_iter().map(|holding| holding.document.unwrap().name));
            }
            assert_eq!(names.contains(&"team/rfc48.txt".to_owned()), may, "{name} {request:?}");
        }
        for document in
            [Document::Number(48), Document::Name("team/rfc48.txt".into()), Document::Blake3(ContentHash::of(SECRET).to_field())]
        {
            let got = peer::get(&mut client, GetRfcRequest { document: Some(document), ..Default::default() }).await;
            match got {
                Ok((_, data)) => assert!(may && data == SECRET, "{name}"),
                // The words are those for a document that does not exist.
                Err(status) => assert!(!may && Reason::of(&status) == Some(Reason::DocumentUnknown), "{name} {status:?}"),
            }
        }
        let start = AvailabilityStart {
            blake3: ContentHash::of(SECRET).to_field(),
            size: SECRET.len() as u64,
            // With certificates the id follows from the name.
            peer: Some(Contact {
                id: PeerId::of_name(&name.parse().unwrap()).to_field(),
                name: name.to_owned(),
                endpoint: String::new(),
            }),
            ..Default::default()
        };
        let first = AvailabilityRequest { update: Some(AvailabilityUpdate { start: Some(start), ..Default::default() }) };
        // One of the team is in the swarm when the others ask, and stays in it.
        let joined = client.availability(tokio_stream::once(first).chain(tokio_stream::pending())).await;
        match joined {
            Ok(stream) => {
                assert!(may, "{name}");
                members.push(stream.into_inner());
            }
            Err(status) => assert!(!may && Reason::of(&status) == Some(Reason::DocumentUnknown), "{name} {status:?}"),
        }
        let swarms = client.swarm(SwarmRequest::default()).await.unwrap().into_inner().swarms;
        assert!(may || swarms.iter().all(|swarm| swarm.blake3 != ContentHash::of(SECRET).to_field()), "{name}");
        assert_eq!(client.ping(PingRequest {}).await.unwrap().into_inner().documents, 1);
    }
    holder.stop().await;
}

/// What a peer says to `name` about a content: whether it lists it, and the bytes of it, with whether they are for some only.
async fn asked(authority: &Authority, peer: &Peer, whom: &str, name: &str, content: &[u8]) -> (bool, Option<bool>) {
    let channels = ChannelPool::dialling(Dial::with(Some(authority.tls(name))));
    let mut client = channels.peer(&Endpoint::from(peer.address), Some(&whom.parse().unwrap()));
    let hash = ContentHash::of(content).to_field();
    let query = RfcQueryRequest { blake3: hash.clone(), own_only: true, ..Default::default() };
    let mut stream = client.rfc_query(query).await.unwrap().into_inner();
    let mut listed = false;
    while let Some(message) = stream.message().await.unwrap() {
        listed |= !message.holdings.is_empty();
    }
    let request = GetRfcRequest { document: Some(Document::Blake3(hash.clone())), ..Default::default() };
    let got = match peer::get(&mut client, request).await {
        Ok((header, data)) => {
            assert_eq!(data, content);
            Some(header.document.unwrap().restricted)
        }
        Err(status) => {
            assert_eq!(Reason::of(&status), Some(Reason::DocumentUnknown), "{status:?}");
            None
        }
    };
    let swarms = client.swarm(SwarmRequest::default()).await.unwrap().into_inner().swarms;
    assert!(got.is_some() || swarms.iter().all(|swarm| swarm.blake3 != hash), "{name}");
    (listed, got)
}

/// Has a peer fetch documents of the one at this address into its share.
async fn fetch_into_share(peer: &Peer, wanted: &[&str], from: SocketAddr) {
    let wanted = wanted.iter().map(|name| (*name).to_owned()).collect();
    let request = FetchRequest { wanted, from: vec![from.to_string()], ..Default::default() };
    let mut job = peer.handle.jobs().submit(JobRequest::try_from(request).unwrap()).await.unwrap();
    let ended = within("the end of the job", job.ended()).await.unwrap();
    assert_eq!(ended.state(), JobState::Done, "{ended:?}");
}

#[tokio::test]
async fn whoever_fetched_what_is_for_some_passes_it_on_to_nobody_without_a_rule_of_its_own() {
    let (authority, folder, own_folder) = (Authority::new(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    share(folder.path());
    // Of several pieces, so that it has a swarm.
    let large = support::bytes(3_000_000);
    fs::write(folder.path().join("share/team/large.bin"), &large).unwrap();
    let holder = sharing_with_the_team(&authority, folder).await;
    fs::create_dir(own_folder.path().join("share")).unwrap();
    let config = NodeConfig { tls: Some(authority.tls("team-a")), ..peer::config("team-a", &own_folder) };
    let team = Peer::start(config.clone(), own_folder).await;
    fetch_into_share(&team, &["team/large.bin", "team/rfc48.txt", "open.txt"], holder.address).await;
    let all = [large.as_slice(), SECRET, b"for all"];
    let to = async |peer: &Peer, whom: &str, name: &str| {
        let mut answers = Vec::new();
        for content in all {
            answers.push(asked(&authority, peer, whom, name, content).await);
        }
        answers
    };
    let (hidden, public) = ((false, None), (true, Some(false)));
    let for_some = (true, Some(true));
    assert_eq!(to(&holder, "holder", "team-b").await, [for_some, for_some, public]);
    for name in ["team-b", "stranger"] {
        assert_eq!(to(&team, "team-a", name).await, [hidden, hidden, public], "{name}");
    }
    assert_eq!(fs::read(team.share().join("team/large.bin")).unwrap(), large);

    // After a restart, too; and a rule of its own says to whom it may go on.
    let own_folder = team.stop().await;
    let team = Peer::start(config.clone(), own_folder).await;
    within("the share", team.handle.share().settled()).await;
    for name in ["team-b", "stranger"] {
        assert_eq!(to(&team, "team-a", name).await, [hidden, hidden, public], "{name}");
    }
    let own_folder = team.stop().await;
    let share_to = vec![rule(own_folder.path(), "team-*")];
    let team = Peer::start(NodeConfig { share_to, ..config }, own_folder).await;
    within("the share", team.handle.share().settled()).await;
    assert_eq!(to(&team, "team-a", "team-b").await, [for_some, for_some, public]);
    assert_eq!(to(&team, "team-a", "stranger").await, [hidden, hidden, public]);
    team.stop().await;
    holder.stop().await;
}

#[tokio::test]
async fn without_certificates_a_share_for_some_is_refused_at_the_start() {
    let folder = tempfile::tempdir().unwrap();
    share(folder.path());
    let open = async |config: NodeConfig| {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        match Node::open(config, listener).map(|_| ()) {
            Err(NodeError::Config(error)) => error,
            other => panic!("{other:?}"),
        }
    };
    let plain = NodeConfig { share_to: vec![rule(folder.path(), "team-*")], ..peer::config("holder", &folder) };
    let error = open(plain.clone()).await;
    assert_eq!(error.field, "share-to");
    assert!(error.to_string().contains("--tls-cert"), "{error}");
    let elsewhere = tempfile::tempdir().unwrap();
    let outside = format!("{}=a", elsewhere.path().display()).parse().unwrap();
    let tls = Some(Authority::new().tls("holder"));
    let error = open(NodeConfig { tls, share_to: vec![outside], ..plain }).await;
    assert!(error.to_string().contains("not in the folder of --share"), "{error}");
}
