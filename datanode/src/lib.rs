//! The datanode: stores chunks, forwards them down the pipeline, serves reads, and keeps the master informed.

mod config;

pub use config::DatanodeConfig;
