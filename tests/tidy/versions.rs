//! The `rust-version` of each crate is enough for its dependencies.

use super::root;
use serde_json::Value;
use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    process::Command,
};

/// What cargo prints.
///
/// # Errors
/// What it complains of.
fn cargo(arguments: &[&str]) -> Result<String, String> {
    let output = Command::new(env!("CARGO")).args(arguments).current_dir(root()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    if output.status.success() { Ok(text(output.stdout)) } else { Err(format!("cargo {arguments:?}: {}", text(output.stderr))) }
}

/// Packages for this machine's target, of all features if a build with them has downloaded them, otherwise of those that this test was built with.
#[allow(clippy::print_stdout, reason = "cargo shows what a test prints only with --nocapture or when it fails, as it should")]
fn metadata() -> Value {
    let version = cargo(&["-vV"]).unwrap();
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap();
    let arguments = ["metadata", "--format-version", "1", "--locked", "--offline", "--filter-platform", host];
    let metadata = cargo(&[&arguments[..], &["--all-features"]].concat()).or_else(|error| {
        let missing = format!("only the default features are checked: {error}");
        assert!(env::var("P2PDI_REQUIRE_TOOLS").as_deref() != Ok("1"), "{missing}");
        println!("{missing}");
        cargo(&arguments)
    });
    serde_json::from_str(&metadata.unwrap()).unwrap()
}

/// `1.91` as (1, 91, 0); `None` if the package declares none.
fn rust_version(package: &Value) -> Option<Vec<u32>> {
    let mut parts: Vec<u32> = package["rust_version"].as_str()?.split('.').map(|part| part.parse().unwrap()).collect();
    parts.resize(3, 0);
    Some(parts)
}

#[test]
fn no_dependency_needs_a_newer_compiler_than_the_crate_declares() {
    let metadata = metadata();
    let by_id = |list: &'static str, metadata: &Value| -> BTreeMap<String, Value> {
        let packages = if list == "nodes" { &metadata["resolve"]["nodes"] } else { &metadata["packages"] };
        packages.as_array().unwrap().iter().map(|entry| (entry["id"].as_str().unwrap().to_owned(), entry.clone())).collect()
    };
    let (packages, nodes) = (by_id("packages", &metadata), by_id("nodes", &metadata));
    for member in metadata["workspace_members"].as_array().unwrap() {
        let member = member.as_str().unwrap();
        let declared = rust_version(&packages[member]).unwrap_or_else(|| panic!("{member} declares no rust-version"));
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![member]);
        while let Some(id) = waiting.pop() {
            if !seen.insert(id) {
                continue;
            }
            if let Some(needed) = rust_version(&packages[id]) {
                assert!(needed <= declared, "{member} declares rust-version {declared:?}; {id} needs {needed:?}");
            }
            // Dependencies of its tests do not count.
            let is_built =
                |dependency: &&Value| dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev");
            let dependencies = nodes[id]["deps"].as_array().unwrap().iter().filter(is_built);
            waiting.extend(dependencies.map(|dependency| dependency["pkg"].as_str().unwrap()));
        }
        assert!(seen.len() > 20, "{member}: {seen:?}");
    }
}
