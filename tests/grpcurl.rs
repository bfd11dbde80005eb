//! grpcurl lists, describes and calls every service by reflection alone.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use serde_json::{Value, json};
use std::{
    collections::BTreeSet,
    path::PathBuf,
    process::{Command, Output},
};
use support::{
    network::Network,
    process::Server,
    tools,
    world::{World, rfc},
};

struct Grpcurl {
    program: PathBuf,
}

impl Grpcurl {
    fn found() -> Option<Self> {
        tools::grpcurl().map(|program| Self { program })
    }

    fn output(&self, arguments: &[&str]) -> Output {
        Command::new(&self.program).arg("-plaintext").args(["-max-time", "20"]).args(arguments).output().unwrap()
    }

    #[track_caller]
    fn run(&self, arguments: &[&str]) -> String {
        let output = self.output(arguments);
        assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    fn list(&self, server: &Server, service: &[&str]) -> BTreeSet<String> {
        let address = server.address.to_string();
        self.run(&[&[address.as_str(), "list"], service].concat()).lines().map(str::to_owned).collect()
    }

    /// Calls a method. Gives the response messages.
    #[track_caller]
    fn call(&self, server: &Server, method: &str, cookie: Option<&str>, request: &Value) -> Vec<Value> {
        let (address, body) = (server.address.to_string(), request.to_string());
        let header = format!("peer-cookie: {}", cookie.unwrap_or_default());
        let mut arguments = vec!["-d", body.as_str()];
        if cookie.is_some() {
            arguments.extend(["-H", header.as_str()]);
        }
        arguments.extend([address.as_str(), method]);
        let text = self.run(&arguments);
        serde_json::Deserializer::from_str(&text).into_iter().map(Result::unwrap).collect()
    }

    /// The error text of a call that is refused.
    fn refused(&self, server: &Server, method: &str, request: &Value) -> String {
        let output = self.output(&["-d", &request.to_string(), &server.address.to_string(), method]);
        assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
        String::from_utf8(output.stderr).unwrap()
    }
}

const REFLECTION: [&str; 2] = ["grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection"];

fn set(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|name| (*name).to_owned()).collect()
}

#[test]
fn each_server_lists_what_it_serves_and_describes_it() {
    let Some(grpcurl) = Grpcurl::found() else { return };
    let network = Network::start();
    for (server, services) in [
        (&network.registry, ["p2pdi.v1.Registry", "p2pdi.v1.RegistryAdmin"].as_slice()),
        (&network.c, ["p2pdi.v1.Control", "p2pdi.v1.Peer"].as_slice()),
    ] {
        let expected = set(&[&["grpc.health.v1.Health"], services, &REFLECTION].concat());
        let mut listed = grpcurl.list(server, &[]);
        // Whether reflection lists itself differs between versions.
        listed.extend(set(&REFLECTION));
        assert_eq!(listed, expected);
        for service in services {
            let address = server.address.to_string();
            let described = grpcurl.run(&[&address, "describe", service]);
            assert!(described.contains(&format!("{service} is a service:")), "{described}");
            for method in grpcurl.list(server, &[service]) {
                assert!(grpcurl.run(&[&address, "describe", &method]).contains("is a method:"), "{method}");
            }
        }
    }
    let address = network.c.address.to_string();
    let described = grpcurl.run(&[&address, "describe", "p2pdi.v1.GetRFCHeader"]);
    assert!(described.contains("bytes piece_hashes = 3;"), "{described}");
}

#[test]
fn every_method_of_the_registry_can_be_called() {
    let Some(grpcurl) = Grpcurl::found() else { return };
    let network = Network::start();
    let registry = &network.registry;
    let found = grpcurl.call(&network.c, "p2pdi.v1.Peer/RFCQuery", None, &json!({ "number": 48 }));
    let document = &found[0]["holdings"][0]["document"];
    let mut called = BTreeSet::new();
    let mut call = |method: &str, cookie: Option<&str>, request: Value| {
        called.insert(format!("p2pdi.v1.Registry.{method}"));
        let answers = grpcurl.call(registry, &format!("p2pdi.v1.Registry/{method}"), cookie, &request);
        assert_eq!(answers.len(), 1, "{answers:?}");
        answers[0].clone()
    };
    let registered = call("Register", None, json!({ "name": "curl", "endpoint": "127.0.0.1:9" }));
    let cookie = registered["cookie"].as_str().unwrap();
    assert_eq!((cookie.len(), registered["ttl"].as_str()), (32, Some("30s")), "{registered}");
    let alive = call("KeepAlive", Some(cookie), json!({ "load": { "uploads": 3 } }));
    assert_eq!(alive["peer"]["load"]["uploads"], 3, "{alive}");
    let listed = call("PQuery", Some(cookie), json!({ "name": "fff-*" }));
    let names: BTreeSet<_> = listed["peers"].as_array().unwrap().iter().map(|peer| peer["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["fff-a", "fff-c"]));
    let announce = json!({ "blake3": document["blake3"], "size": document["size"], "had": 4096, "want": 5 });
    let announced = call("Announce", Some(cookie), announce);
    assert_eq!((announced["members"].as_u64(), announced["interval"].is_string()), (Some(1), true), "{announced}");
    let left = call("Leave", Some(cookie), json!({}));
    assert!(left["revision"].is_string(), "{left}");
    // The name is kept for its cookie for a while, unless an operator frees it.
    call("FreeName", None, json!({ "name": "curl" }));
    // Without --ca the registry gives no certificates.
    for (method, request) in [("Enroll", json!({ "name": "curl" })), ("GetTrust", json!({}))] {
        let refused = grpcurl.refused(registry, &format!("p2pdi.v1.Registry/{method}"), &request);
        assert!(refused.contains("NO_AUTHORITY"), "{refused}");
        called.insert(format!("p2pdi.v1.Registry.{method}"));
    }
    // It goes on until its caller ends it; `registry/tests/watch.rs` tests it.
    called.insert("p2pdi.v1.Registry.WatchPeers".to_owned());
    assert_eq!(called, grpcurl.list(registry, &["p2pdi.v1.Registry"]), "not all methods were called");
    for method in grpcurl.list(registry, &["p2pdi.v1.RegistryAdmin"]) {
        let name = method.rsplit('.').next().unwrap_or_default();
        match name {
            "GetRegistryStatus" | "ListRecords" | "Backup" => {
                assert!(!grpcurl.call(registry, &method, None, &json!({})).is_empty())
            }
            "Restore" => assert!(grpcurl.refused(registry, &method, &json!({})).contains("NOT_EMPTY")),
            _ => {
                let refused = grpcurl.refused(registry, &method, &json!({}));
                assert!(refused.contains("NO_AUTHORITY"), "{method}: {refused}");
            }
        }
    }
}

#[test]
fn every_method_of_a_peer_can_be_called() {
    let Some(grpcurl) = Grpcurl::found() else { return };
    let network = Network::start();
    let mut called = BTreeSet::new();
    let mut call = |method: &str, request: Value| {
        called.insert(format!("p2pdi.v1.{}", method.replace('/', ".")));
        grpcurl.call(&network.c, &format!("p2pdi.v1.{method}"), None, &request)
    };
    let found = call("Peer/RFCQuery", json!({ "number": 48 }));
    let document = &found[0]["holdings"][0]["document"];
    assert_eq!((document["name"].as_str(), document["size"].as_str()), (Some("rfc48.txt"), Some("41696")), "{found:?}");
    let parts = call("Peer/GetRFC", json!({ "number": 48 }));
    assert_eq!(&parts[0]["header"]["document"], document);
    let data: String = parts[1..].iter().map(|part| part["chunk"]["data"].as_str().unwrap()).collect();
    // Base64 has four characters for three bytes.
    assert_eq!(data.len(), rfc(48).len().div_ceil(3) * 4);
    let pinged = call("Peer/Ping", json!({}));
    assert_eq!((pinged[0]["name"].as_str(), pinged[0]["documents"].as_str()), (Some("fff-c"), Some("3")), "{pinged:?}");
    let whispered = call("Peer/Whisper", json!({ "to": "fff-a", "body": "aGVsbG8=", "from": "grpcurl" }));
    assert_eq!((whispered[0]["deliveredBy"].as_str(), whispered[0]["hops"].as_u64()), (Some("fff-a"), Some(1)));
    let streamed = call("Peer/Whispers", json!({ "id": 7, "whisper": { "to": "fff-a", "body": "aGVsbG8=", "from": "grpcurl" } }));
    assert_eq!((streamed[0]["id"].as_str(), streamed[0]["delivered"]["deliveredBy"].as_str()), (Some("7"), Some("fff-a")));
    let streamed = call("Peer/Whispers", json!({ "whisper": { "to": "nobody", "from": "grpcurl" } }));
    assert_eq!((streamed[0]["failure"]["code"].as_u64(), streamed[0]["failure"]["reason"].as_str()), (Some(5), Some("NO_ROUTE")));
    let listed = call("Peer/ListPeers", json!({}));
    assert_eq!(listed[0]["peer"]["name"], "fff-c", "{listed:?}");
    // A link begins with `hello`; one without is closed.
    assert_eq!(call("Peer/Link", json!({})), Vec::<Value>::new());
    let joined = call("Control/Join", json!({ "endpoint": network.a.address.to_string() }));
    assert_eq!(joined[0]["peer"]["name"], "fff-a", "{joined:?}");
    let broadcast = call("Control/Broadcast", json!({ "body": "aGVsbG8=", "wait": "10s" }));
    assert_eq!(broadcast[0]["acknowledged"], broadcast[0]["known"], "{broadcast:?}");
    let topology = call("Control/Topology", json!({}));
    assert_eq!(topology[0]["peers"]["peer"]["name"], "fff-c", "{topology:?}");
    let status = call("Control/Status", json!({}));
    assert_eq!(status[0]["registry"]["state"], "SESSION_STATE_REGISTERED", "{status:?}");
    let start = json!({ "blake3": document["blake3"], "size": document["size"], "peer": { "id": "AAAAAAAAAAAAAAAAAAAAAQ==", "name": "grpcurl" } });
    let available = call("Peer/Availability", json!({ "update": { "start": start } }));
    assert_eq!(available[0]["update"]["start"]["complete"], true, "{available:?}");
    let fetched = call("Control/Fetch", json!({ "wanted": ["rfc2324.txt"], "wait": true }));
    assert_eq!(fetched.last().unwrap()["job"]["state"], "JOB_STATE_DONE", "{fetched:?}");
    assert_eq!(call("Control/Pin", json!({ "name": "rfc2324.txt" })), [json!({})]);
    let accepted = call("Control/Fetch", json!({ "wanted": ["nobody-has-this.txt"] }));
    let listed = call("Control/ListJobs", json!({}));
    assert_eq!(listed[0]["jobs"].as_array().unwrap().len(), 2, "{listed:?}");
    let cancelled = call("Control/CancelJob", json!({ "id": accepted[0]["job"]["id"] }));
    assert_eq!(cancelled[0]["job"]["state"], "JOB_STATE_CANCELLED", "{cancelled:?}");
    call("Peer/Swarm", json!({}));
    let all: BTreeSet<_> =
        ["p2pdi.v1.Peer", "p2pdi.v1.Control"].iter().flat_map(|service| grpcurl.list(&network.c, &[service])).collect();
    let drained = call("Control/Drain", json!({}));
    assert_eq!(drained.last().unwrap()["drained"], true, "{drained:?}");
    // A subscription goes on until its caller ends it; `peerd/tests/mesh` tests it.
    called.insert("p2pdi.v1.Control.Subscribe".to_owned());
    assert_eq!(called, all, "not all methods were called");
}

#[test]
fn health_is_answered_for_each_service_and_the_whole() {
    let Some(grpcurl) = Grpcurl::found() else { return };
    let network = Network::start();
    for (server, services) in [
        (&network.registry, ["", "p2pdi.v1.Registry", "p2pdi.v1.RegistryAdmin"].as_slice()),
        (&network.c, &["", "p2pdi.v1.Peer", "p2pdi.v1.Control"]),
    ] {
        for service in services {
            let answer = grpcurl.call(server, "grpc.health.v1.Health/Check", None, &json!({ "service": service }));
            assert_eq!(answer, [json!({ "status": "SERVING" })], "{service:?}");
        }
        let unknown = grpcurl.refused(server, "grpc.health.v1.Health/Check", &json!({ "service": "nothing" }));
        assert!(unknown.contains("NotFound"), "{unknown}");
    }
}

#[test]
fn a_refusal_names_its_reason() {
    let Some(grpcurl) = Grpcurl::found() else { return };
    let network = Network::start();
    for (server, method, request, code, reason) in [
        (&network.registry, "p2pdi.v1.Registry/PQuery", json!({}), "Unauthenticated", "COOKIE_MISSING"),
        (&network.registry, "p2pdi.v1.Registry/Register", json!({ "name": "../x" }), "InvalidArgument", "INVALID_FIELD"),
        (&network.c, "p2pdi.v1.Peer/GetRFC", json!({ "number": 7 }), "NotFound", "DOCUMENT_UNKNOWN"),
        (&network.c, "p2pdi.v1.Peer/GetRFC", json!({ "number": 48, "offset": 99_999_999 }), "OutOfRange", "RANGE_BEYOND_END"),
        (&network.c, "p2pdi.v1.Peer/Whisper", json!({ "to": "nobody" }), "NotFound", "NO_ROUTE"),
    ] {
        let error = grpcurl.refused(server, method, &request);
        assert!(error.contains(code) && error.contains(reason) && error.contains("google.rpc.ErrorInfo"), "{method}: {error}");
    }
}

#[test]
fn a_registry_in_memory_takes_registrations() {
    let Some(grpcurl) = Grpcurl::found() else { return };
    let world = World::new();
    let registry = world.registry(&["--state", "memory"]);
    let answer = grpcurl.call(&registry, "p2pdi.v1.Registry/Register", None, &json!({ "name": "a", "endpoint": "127.0.0.1:9" }));
    assert_eq!(answer[0]["peer"]["registrationCount"], 1, "{answer:?}");
}
