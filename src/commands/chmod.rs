//! `chmod`: permission bits.

use clap::Args;

use crate::context::Context;
use crate::error::CommandError;
use crate::mode::Mode;
use crate::remote_path::RemotePath;

/// Change permission bits.
#[derive(Debug, Args)]
#[command(
    after_help = "Only the owner and the superuser may. MODE is octal, or changes of what is there.\n\n\
    Example:\n  distrifs chmod 0700 /home/alice\n  distrifs chmod g+w,o-rx /projects/atlas\n  distrifs chmod 1777 /tmp"
)]
pub(crate) struct Chmod {
    /// Octal digits, or changes such as u+rwx,go-w
    #[arg(allow_hyphen_values = true)]
    mode: Mode,
    /// A file or directory
    path: RemotePath,
}

impl Chmod {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CommandError> {
        let client = context.client();
        let now = match self.mode {
            Mode::Octal(_) => 0,
            Mode::Changes(_) => client.stat(self.path.as_str()).await?.mode,
        };
        client.set_mode(self.path.as_str(), self.mode.applied_to(now)).await?;
        Ok(())
    }
}
