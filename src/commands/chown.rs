//! `chown`: owner and group.

use std::str::FromStr;

use clap::Args;

use crate::context::Context;
use crate::error::CommandError;
use crate::remote_path::RemotePath;

/// Change owner or group.
#[derive(Debug, Args)]
#[command(
    after_help = "Only the superuser may: the user that runs the master, and root. Names need not be known \
    to any machine.\n\n\
    Example:\n  distrifs chown alice /home/alice\n  distrifs chown alice:staff /projects/atlas\n  \
    distrifs chown :staff /projects/atlas"
)]
pub(crate) struct Chown {
    /// The new owner, the new group behind a colon, or both
    #[arg(value_name = "USER[:GROUP]")]
    owner: Owner,
    /// A file or directory
    path: RemotePath,
}

/// Who is to have it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Owner {
    user: Option<String>,
    group: Option<String>,
}

/// Text that names nobody.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("give USER, USER:GROUP or :GROUP")]
struct BadOwner;

impl FromStr for Owner {
    type Err = BadOwner;

    fn from_str(text: &str) -> Result<Self, BadOwner> {
        let (user, group) = match text.split_once(':') {
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        let user = (!user.is_empty()).then(|| user.to_owned());
        if group == Some("") || (user.is_none() && group.is_none()) {
            return Err(BadOwner);
        }
        Ok(Self { user, group: group.map(str::to_owned) })
    }
}

impl Chown {
    pub(crate) async fn run(self, context: &Context) -> Result<(), CommandError> {
        let Owner { user, group } = self.owner;
        context.client().set_owner(self.path.as_str(), user.as_deref(), group.as_deref()).await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owners_and_groups() {
        let cases = [
            ("al", Some((Some("al"), None))),
            ("al:gr", Some((Some("al"), Some("gr")))),
            (":gr", Some((None, Some("gr")))),
            ("", None),
            (":", None),
            ("al:", None),
        ];
        for (text, expected) in cases {
            let parsed = text.parse::<Owner>().ok();
            let parsed = parsed.as_ref().map(|it| (it.user.as_deref(), it.group.as_deref()));
            assert_eq!(parsed, expected, "{text:?}");
        }
    }
}
