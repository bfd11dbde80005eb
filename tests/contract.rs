//! The contract's files: `buf lint` and `buf breaking` pass, and the comments list every reason.

#![allow(clippy::unwrap_used, clippy::panic, clippy::expect_used, reason = "a test fails by a panic, in its helpers too")]

mod support;

use std::{fs, path::Path, process::Command};
use support::tools;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

#[test]
fn buf_finds_nothing_to_correct() {
    let Some(buf) = tools::buf() else { return };
    let cache = tempfile::tempdir().unwrap();
    for arguments in [["lint", "proto"].as_slice(), &["build", "proto"], &["format", "-d", "proto", "--exit-code"]] {
        let said = Command::new(&buf).args(arguments).env("BUF_CACHE_DIR", cache.path()).current_dir(root()).output().unwrap();
        let (out, err) = (String::from_utf8_lossy(&said.stdout), String::from_utf8_lossy(&said.stderr));
        assert!(said.status.success(), "buf {arguments:?}: {out}{err}");
    }
}

#[test]
fn nothing_breaks_the_contract_of_this_minor_version() {
    let Some(buf) = tools::buf() else { return };
    let (major, minor) = (env!("CARGO_PKG_VERSION_MAJOR"), env!("CARGO_PKG_VERSION_MINOR"));
    let image = format!("proto/contract-{major}.{minor}.binpb");
    assert!(root().join(&image).exists(), "no {image}: proto/buf.yaml says how to make it");
    let cache = tempfile::tempdir().unwrap();
    let arguments = ["breaking", "proto", "--against", &image];
    let output = Command::new(&buf).args(arguments).env("BUF_CACHE_DIR", cache.path()).current_dir(root()).output().unwrap();
    let (out, err) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success(), "buf breaking: {out}{err}");
}

#[test]
fn the_prose_lists_every_reason_with_its_code() {
    let read = |path: &str| fs::read_to_string(root().join(path)).unwrap();
    let contracts = ["registry", "peer", "replica"].map(|name| read(&format!("proto/p2pdi/v1/{name}.proto"))).concat();
    for reason in p2pdi::status::Reason::ALL {
        let lists = |line: &str| {
            let mut words = line.trim_start_matches("//").split_whitespace();
            let code = words.next().unwrap_or_default().replace('_', "");
            words.next() == Some(reason.as_str()) && code.eq_ignore_ascii_case(&format!("{:?}", reason.code()))
        };
        assert!(contracts.lines().any(lists), "no contract lists {} {:?}", reason.as_str(), reason.code());
    }
}

#[test]
fn every_service_method_and_enum_has_a_comment() {
    for path in ["proto/p2pdi/v1/registry.proto", "proto/p2pdi/v1/peer.proto"] {
        let text = fs::read_to_string(root().join(path)).unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert!(lines[0].starts_with("// "), "{path} does not begin with a comment that describes the contract");
        for (index, line) in lines.iter().enumerate() {
            let has_comment = index > 0 && lines[index - 1].trim_start().starts_with("//");
            if line.trim_start().starts_with("rpc ") || line.starts_with("service ") || line.starts_with("enum ") {
                assert!(has_comment, "{path}:{}: {line}", index + 1);
            }
        }
    }
}
