//! Faults: dead datanodes and clients, flipped bits, nonsense on the wire, things that are in use.

mod daemons;
mod data_port;
mod gray;
mod repair;
mod replicas;
mod writers;

const BINARY: &str = env!("CARGO_BIN_EXE_distrifs");

/// The chunk size of the testkit's clusters.
const CHUNK: usize = 262_144;
