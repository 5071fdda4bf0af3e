//! What every command is given: the settings, and a client made from them.

use distrifs_client::{Client, ClientConfig};

use crate::options::{GlobalOptions, Settings};

/// What every command is given.
pub(crate) struct Context {
    /// Flags, environment and file, resolved.
    pub(crate) settings: Settings,
    /// The flags.
    pub(crate) options: GlobalOptions,
}

impl Context {
    /// A client of the cluster that the settings name. It connects at its first call.
    pub(crate) fn client(&self) -> Client {
        let user = self.settings.user.clone().unwrap_or_else(system_user);
        Client::new(ClientConfig {
            chunk_size: self.settings.chunk_size,
            replication: self.settings.replication,
            socket_timeout: self.settings.socket_timeout,
            retries: self.settings.client_retry,
            ..ClientConfig::new(self.settings.masters.clone(), user)
        })
    }
}

/// The operating system's name of who runs this process; its number where it has no name.
pub(crate) fn system_user() -> String {
    match uzers::get_effective_username() {
        Some(name) => name.to_string_lossy().into_owned(),
        None => uzers::get_effective_uid().to_string(),
    }
}
