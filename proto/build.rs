//! Compiles the control plane's messages with protox, so that no `protoc` is needed.

use std::path::PathBuf;

use prost::Message;

const SERVICES: [&str; 4] = [
    "distrifs/v1/common.proto",
    "distrifs/v1/client.proto",
    "distrifs/v1/datanode.proto",
    "distrifs/v1/admin.proto",
];

fn main() -> Result<(), Box<dyn std::error::Error>> {
    println!("cargo::rerun-if-changed=distrifs");
    if std::env::var_os("CARGO_FEATURE_GRPC").is_none() {
        return Ok(());
    }
    let descriptors = protox::compile(SERVICES, ["."])?;
    // For the reflection service.
    let out = PathBuf::from(std::env::var("OUT_DIR")?).join("distrifs.bin");
    std::fs::write(out, descriptors.encode_to_vec())?;
    tonic_prost_build::configure().compile_fds(descriptors)?;
    Ok(())
}
