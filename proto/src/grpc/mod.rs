//! The control plane: messages and services generated from `distrifs/v1/*.proto`, and what both sides of a call
//! need beside them.

mod convert;
mod leader;
mod status;

pub use leader::leading;
pub use status::{code_of, status, text_of};

/// The key under which the caller's user name travels in the request metadata.
pub const USER_KEY: &str = "x-user";

/// The key under which a call that is to be remembered names its trace: sixteen hex digits, `-`, and which call of that
/// trace it is.
pub const TRACE_KEY: &str = "x-trace";

/// Generated messages, clients and servers of package `distrifs.v1`.
#[allow(missing_docs, unreachable_pub, unused_qualifications, clippy::all, clippy::pedantic)]
#[allow(clippy::semicolon_if_nothing_returned, clippy::wildcard_imports, clippy::needless_pass_by_value)]
pub mod v1 {
    tonic::include_proto!("distrifs.v1");

    /// All of it as a descriptor set, for the reflection service.
    pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/distrifs.bin"));
}
