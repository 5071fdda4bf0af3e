//! What every part of DistriFS agrees on: identities, limits, error codes, and the bytes that leave a process.
//!
//! - [`types`]: identities and checksums; no bare integer crosses a crate border.
//! - [`limits`]: every maximum, in one place, with the relations between them asserted at compile time.
//! - [`error_code`]: stable numbers shared by gRPC statuses and data-plane frames.
//! - [`frame`]: the data plane's frames and their codec, without any I/O.
//! - [`latency`]: how long the stages of operations take, counted and traced.
//! - [`InventoryDigest`]: a node's inventory in two numbers.
//! - [`SplitMix`]: numbers that look random, the same everywhere.
//! - `grpc` (feature `grpc`): the control plane, generated from `distrifs/v1/*.proto`.
//!
//! This crate does no I/O, reads no clock and depends on no other crate of the project.

pub mod error_code;
pub mod frame;
#[cfg(feature = "grpc")]
pub mod grpc;
mod inventory_digest;
pub mod latency;
pub mod limits;
mod split_mix;
pub mod types;

pub use error_code::ErrorCode;
pub use inventory_digest::InventoryDigest;
pub use split_mix::SplitMix;
