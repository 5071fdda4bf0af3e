//! Names of users and groups, each kept once.

use std::collections::HashMap;

use foldhash::fast::RandomState;

/// A user's or group's name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NameId(pub(crate) u32);

/// All names seen, numbered in the order of their first use, which replay repeats.
#[derive(Debug, Default, PartialEq)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Names {
    texts: Vec<Box<str>>,
    ids: HashMap<Box<str>, NameId, RandomState>,
}

impl Names {
    /// How many names are kept at most.
    pub(crate) const MAX: usize = 1 << 20;

    /// Whether `more` new names fit.
    pub(crate) fn has_room(&self, more: usize) -> bool {
        self.texts.len() + more <= Self::MAX
    }

    /// The number of `text`, new if it was not seen before.
    pub(crate) fn intern(&mut self, text: &str) -> NameId {
        if let Some(id) = self.ids.get(text) {
            return *id;
        }
        let id = NameId(self.texts.len() as u32);
        self.texts.push(text.into());
        self.ids.insert(text.into(), id);
        id
    }

    /// How many names there are.
    pub(crate) fn len(&self) -> usize {
        self.texts.len()
    }

    /// The name of the n-th first use.
    pub(crate) fn nth(&self, n: usize) -> &str {
        self.texts.get(n).map_or("", AsRef::as_ref)
    }

    /// The name of a number.
    pub(crate) fn text(&self, id: NameId) -> &str {
        self.nth(id.0 as usize)
    }
}
