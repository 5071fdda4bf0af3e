//! `bench`: what a cluster can do, against what the machine can do in the same run.

mod calls;
mod device;
mod load;
mod meta;
mod target;

use clap::{Args, Subcommand};

use crate::context::Context;
use crate::error::CommandError;
use crate::output::Output;

/// Measure what a cluster can do.
#[derive(Debug, Args)]
#[command(
    after_help = "Example:\n  distrifs bench meta\n  distrifs bench meta --master 10.0.0.1:9000 --clients 256 --json"
)]
pub(crate) struct Bench {
    #[command(subcommand)]
    kind: Kind,
}

/// What is measured.
#[derive(Debug, Subcommand)]
enum Kind {
    /// Operations of the namespace: mkdir, create, stat, read plans, rename, rm, against an empty call
    Meta(meta::Meta),
}

impl Bench {
    pub(crate) async fn run(self, context: &Context, output: &mut Output) -> Result<(), CommandError> {
        match self.kind {
            Kind::Meta(meta) => meta.run(context, output).await,
        }
    }
}
