//! Paths as the namespace takes them: absolute, normalised, within the limits.

use std::fmt;
use std::sync::Arc;

use distrifs_proto::limits::{NAME_BYTES_MAX, PATH_BYTES_MAX, PATH_DEPTH_MAX};

/// An absolute path without empty names, `.` or `..`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct NsPath(Arc<str>);

/// Why text is not a path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PathError {
    /// Relative or empty.
    #[error("{0:?}: not an absolute path: it must begin with /")]
    NotAbsolute(String),
    /// `..` in it.
    #[error("{0:?}: .. is not taken: name the directory itself")]
    DotDot(String),
    /// A NUL in it.
    #[error("{0:?}: a name cannot contain NUL")]
    Nul(String),
    /// Longer or deeper than the limits.
    #[error("{text:?}...: {what} is longer than {max}")]
    TooLong {
        /// How it begins.
        text: String,
        /// The path, a name, or the depth.
        what: &'static str,
        /// The limit.
        max: usize,
    },
}

/// How much of a bad path an error repeats.
const ERROR_CHARS: usize = 200;

impl NsPath {
    /// The root.
    pub(crate) fn root() -> Self {
        Self("/".into())
    }

    /// Normalises `text`: `//` and `/./` collapse, a trailing `/` goes.
    ///
    /// # Errors
    /// [`PathError`]; `..` is refused because what it means depends on who resolves it.
    pub(crate) fn parse(text: &str) -> Result<Self, PathError> {
        let begin = || text.chars().take(ERROR_CHARS).collect::<String>();
        let long = |what, max| PathError::TooLong { text: begin(), what, max };
        if text.len() > PATH_BYTES_MAX {
            return Err(long("the path in bytes", PATH_BYTES_MAX));
        }
        if !text.starts_with('/') {
            return Err(PathError::NotAbsolute(begin()));
        }
        if text.contains('\0') {
            return Err(PathError::Nul(begin()));
        }
        let mut normal = String::with_capacity(text.len());
        let mut depth = 0;
        for name in text.split('/').filter(|name| !name.is_empty() && *name != ".") {
            if name == ".." {
                return Err(PathError::DotDot(begin()));
            }
            if name.len() > NAME_BYTES_MAX {
                return Err(long("a name in bytes", NAME_BYTES_MAX));
            }
            depth += 1;
            normal.push('/');
            normal.push_str(name);
        }
        if depth > PATH_DEPTH_MAX {
            return Err(long("the depth", PATH_DEPTH_MAX));
        }
        Ok(if normal.is_empty() { Self::root() } else { Self(normal.into()) })
    }

    /// The normalised text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// The names from the root on; none for the root itself.
    pub(crate) fn names(&self) -> impl DoubleEndedIterator<Item = &str> {
        self.0.split('/').filter(|name| !name.is_empty())
    }

    /// The last name; `None` for the root.
    pub(crate) fn last(&self) -> Option<&str> {
        self.names().next_back()
    }

    /// The path of the first `count` names.
    pub(crate) fn prefix(&self, count: usize) -> String {
        let mut text = String::new();
        for name in self.names().take(count) {
            text.push('/');
            text.push_str(name);
        }
        if text.is_empty() { "/".to_owned() } else { text }
    }
}

impl fmt::Display for NsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for NsPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_are_normalised() {
        let cases = [
            ("/", "/"),
            ("//", "/"),
            ("/./", "/"),
            ("/a", "/a"),
            ("/a/", "/a"),
            ("//a///b/./c/.", "/a/b/c"),
            ("/...", "/..."),
            ("/ü b\n", "/ü b\n"),
        ];
        for (text, expected) in cases {
            assert_eq!(NsPath::parse(text).map(|p| p.to_string()), Ok(expected.to_owned()), "{text:?}");
        }
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let long_name = format!("/{}", "n".repeat(NAME_BYTES_MAX + 1));
        let deep = "/d".repeat(PATH_DEPTH_MAX + 1);
        let long = "/".repeat(PATH_BYTES_MAX + 1);
        for text in ["", "a", "./a", "/a/..", "/../a", "/a\0b", &long_name, &deep, &long] {
            assert!(NsPath::parse(text).is_err(), "{:?} was taken", &text[..text.len().min(20)]);
        }
        assert!(NsPath::parse(&"/d".repeat(PATH_DEPTH_MAX)).is_ok());
        assert!(NsPath::parse(&long_name[..=NAME_BYTES_MAX]).is_ok());
    }

    #[test]
    fn prefixes_and_last_names() {
        let path = NsPath::parse("/a/b/c").expect("a path");
        assert_eq!((path.prefix(0).as_str(), path.prefix(2).as_str()), ("/", "/a/b"));
        assert_eq!((path.last(), NsPath::root().last()), (Some("c"), None));
    }
}
