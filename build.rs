//! Compiles the contract: `.proto` files to descriptors (with protox, so no `protoc` is needed), descriptors to Rust.

use prost::Message as _;
use std::{env, fs, path::PathBuf};

const CONTRACT: &[&str] = &[
    "p2pdi/v1/registry.proto",
    "p2pdi/v1/enrol.proto",
    "p2pdi/v1/admin.proto",
    "p2pdi/v1/peer.proto",
    "p2pdi/v1/overlay.proto",
    "p2pdi/v1/signature.proto",
    "p2pdi/v1/swarm.proto",
    "p2pdi/v1/jobs.proto",
    "p2pdi/v1/replica.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/p2pdi");
    let descriptors = protox::compile(CONTRACT, ["proto"])?;
    // For reflection, and for `p2pctl --output json`.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("p2pdi.v1.bin"), descriptors.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    // The full name of a message finds its descriptor.
    config.enable_type_names();
    tonic_prost_build::configure()
        // `Bytes` fields are slices of the buffer that was received: no copy.
        .bytes(".p2pdi.v1")
        .btree_map(".p2pdi.v1")
        // Decoded by hand, so that an undecodable message does not end the link.
        .extern_path(".p2pdi.v1.LinkRequest", "crate::link::LinkMessage")
        .extern_path(".p2pdi.v1.LinkResponse", "crate::link::LinkMessage")
        // Its events are encoded once for all watchers.
        .extern_path(".p2pdi.v1.WatchPeersResponse", "crate::watch::WatchPeersResponse")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
