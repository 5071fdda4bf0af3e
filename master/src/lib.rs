//! The master: it keeps the namespace durable and knows where the chunks are.
//!
//! - [`MasterConfig`], [`Master`]: what the binary starts and stops.
//! - `namespace`: files and directories, changed by logged commands only. Pure.
//! - `cluster`: datanodes, replicas, placement and gc, from what datanodes report. Pure.
//! - `permission`: who may do what. Pure.
//! - `writer`: the way of a change from the queue to the log to the answer.
//! - `service`, `http`: what is asked over the network; `sweep`: what the master does in time.
//! - `stage`, `trail`: the stages of a call, which are timed; the trace of one call.
//! - `vigil`: which datanodes are late or dead, and whether this master itself listens.
//! - `probe`: whether the data ports of datanodes answer.
//! - `repair`: lost and damaged replicas are made anew, surplus ones go; decided by `cluster`.
//! - `recovery`, `checkpoint`: from the disk at the start, and what keeps the next start short.
//! - `loss`: what a master does whose log lost records and which was told to go on.
//! - `hold`: how long the shared locks are held, and for how many items.
//! - `folder`, `leadership`, `standby`: whose folder it is, who leads, and who waits for that.
//!
//! Pure cores decide (event and time in, state and answers out); thin drivers act.

#[cfg(test)]
mod bad_input_test;
#[doc(hidden)]
pub mod bench_support;
mod checkpoint;
mod chunk_map;
mod clock;
mod cluster;
mod config;
mod error;
mod folder;
mod groups;
mod hold;
mod http;
mod inspect;
mod leadership;
mod loss;
mod master;
#[cfg(test)]
mod methods_test;
mod metrics;
mod namespace;
mod permission;
mod probe;
#[cfg(test)]
mod reaper_test;
mod recovery;
mod recovery_table;
mod refusal;
mod repair;
#[cfg(test)]
mod retries_test;
#[cfg(test)]
mod serve_test;
mod service;
mod stage;
mod standby;
mod state;
mod sweep;
mod trail;
mod vigil;
#[cfg(test)]
mod whole_test;
mod writer;

pub use config::MasterConfig;
pub use distrifs_engine::io::IoMode;
pub use error::{MasterFailure, StartError};
pub use inspect::{RecordText, describe_record};
pub use master::Master;
pub use standby::{Standby, Turn};
