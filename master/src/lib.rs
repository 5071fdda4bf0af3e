//! The master: it keeps the namespace durable and knows where the chunks are.
//!
//! - [`MasterConfig`], [`Master`]: what the binary starts and stops.
//!
//! Pure cores decide (`namespace`, `cluster`: event and time in, state and answers out); thin drivers act
//! (`writer`, `service`, `sweep`, `http`).

mod cluster;
mod config;
mod error;
mod master;
mod namespace;
mod permission;

pub use config::{LogMode, MasterConfig};
pub use error::{MasterFailure, StartError};
pub use master::Master;
