//! Compiles the contract: `.proto` files → descriptors (protox, so no `protoc` is needed) → Rust.

use prost::Message as _;
use std::{env, fs, path::PathBuf};

const CONTRACT: [&str; 3] = ["p2pdi/v1/registry.proto", "p2pdi/v1/peer.proto", "p2pdi/v1/overlay.proto"];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo:rerun-if-changed=proto/p2pdi");
    let descriptors = protox::compile(CONTRACT, ["proto"])?;
    // Served by reflection, and read by `p2pctl --output json`.
    let out = PathBuf::from(env::var("OUT_DIR")?);
    fs::write(out.join("p2pdi.v1.bin"), descriptors.encode_to_vec())?;
    let mut config = prost_build::Config::new();
    // Messages know their full name, which is how they find their descriptor.
    config.enable_type_names();
    tonic_prost_build::configure()
        // Payloads stay slices of the buffer they arrived in.
        .bytes(".p2pdi.v1")
        .btree_map(".p2pdi.v1")
        // Read so that bytes that are no message do not end the link.
        .extern_path(".p2pdi.v1.LinkRequest", "crate::link::LinkMessage")
        .extern_path(".p2pdi.v1.LinkResponse", "crate::link::LinkMessage")
        .compile_fds_with_config(descriptors, config)?;
    Ok(())
}
