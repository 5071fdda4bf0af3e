//! A path in the cluster as a user names it: absolute, UTF-8, within the limits of names.

use std::fmt;
use std::str::FromStr;

use distrifs_proto::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};

/// An absolute path without empty names, `.` and `..`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RemotePath {
    text: String,
    trailing_slash: bool,
}

/// Text that names nothing in a cluster.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadRemotePath {
    /// Nothing to resolve it against.
    #[error("remote paths are absolute: begin it with /")]
    Relative,
    /// Longer than any path.
    #[error("the path has {0} bytes: at most {PATH_BYTES_MAX}")]
    TooLong(usize),
    /// Deeper than any path.
    #[error("the path has {0} names: at most {PATH_DEPTH_MAX}")]
    TooDeep(usize),
    /// A name longer than any.
    #[error("a name of the path has {0} bytes: at most {NAME_BYTES_MAX}")]
    NameTooLong(usize),
}

impl RemotePath {
    /// The path.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the user wrote a `/` at the end, which only a directory may have.
    pub(crate) fn trailing_slash(&self) -> bool {
        self.trailing_slash
    }

    /// Its last name; empty for `/`.
    pub(crate) fn name(&self) -> &str {
        self.text.rsplit('/').next().unwrap_or_default()
    }

    /// What `name`, or a relative path, is called below this directory.
    pub(crate) fn join(&self, name: &str) -> String {
        join(&self.text, name)
    }
}

/// What `name`, or a relative path, is called below a directory; the directory itself for no name.
pub(crate) fn join(directory: &str, name: &str) -> String {
    match (directory, name) {
        (_, "") => directory.to_owned(),
        ("/", _) => format!("/{name}"),
        _ => format!("{directory}/{name}"),
    }
}

impl FromStr for RemotePath {
    type Err = BadRemotePath;
    fn from_str(text: &str) -> Result<Self, BadRemotePath> {
        if !text.starts_with('/') {
            return Err(BadRemotePath::Relative);
        }
        if text.len() > PATH_BYTES_MAX {
            return Err(BadRemotePath::TooLong(text.len()));
        }
        let mut names: Vec<&str> = Vec::new();
        for name in text.split('/') {
            match name {
                "" | "." => {}
                // There are no symbolic links: the parent of a name is what is written before it.
                ".." => {
                    names.pop();
                }
                _ if name.len() > NAME_BYTES_MAX => return Err(BadRemotePath::NameTooLong(name.len())),
                _ => names.push(name),
            }
        }
        if names.len() > PATH_DEPTH_MAX {
            return Err(BadRemotePath::TooDeep(names.len()));
        }
        Ok(Self {
            text: format!("/{}", names.join("/")),
            trailing_slash: text.len() > 1 && text.ends_with('/'),
        })
    }
}

impl fmt::Display for RemotePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_brought_to_one_shape() {
        for (given, meant) in [
            ("/", "/"),
            ("//", "/"),
            ("/a/", "/a"),
            ("//a///b", "/a/b"),
            ("/a/./b/../c", "/a/c"),
            ("/../..", "/"),
            ("/ spaces /ünï", "/ spaces /ünï"),
        ] {
            assert_eq!(given.parse::<RemotePath>().map(|path| path.text), Ok(meant.to_owned()));
        }
        assert!("/a/".parse::<RemotePath>().unwrap().trailing_slash());
        assert!(!"/".parse::<RemotePath>().unwrap().trailing_slash());
    }

    #[test]
    fn what_names_nothing_is_refused() {
        assert_eq!("a".parse::<RemotePath>(), Err(BadRemotePath::Relative));
        assert_eq!("".parse::<RemotePath>(), Err(BadRemotePath::Relative));
        assert_eq!(
            format!("/{}", "x".repeat(256)).parse::<RemotePath>(),
            Err(BadRemotePath::NameTooLong(256))
        );
        assert!(format!("/{}", "x".repeat(255)).parse::<RemotePath>().is_ok());
        assert_eq!("/a".repeat(257).parse::<RemotePath>(), Err(BadRemotePath::TooDeep(257)));
        assert_eq!("/aaaaaaaaa".repeat(500).parse::<RemotePath>(), Err(BadRemotePath::TooLong(5000)));
    }

    #[test]
    fn joining_keeps_one_slash() {
        assert_eq!(join("/", "a"), "/a");
        assert_eq!(join("/a", "b/c"), "/a/b/c");
        assert_eq!(join("/a", ""), "/a");
        let path: RemotePath = "/a/b".parse().unwrap();
        assert_eq!((path.name(), path.join("c").as_str()), ("b", "/a/b/c"));
    }
}
