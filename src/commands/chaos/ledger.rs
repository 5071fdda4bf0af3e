//! What the cluster acknowledged, kept outside of it. Pure.
//!
//! Of each path the ledger has the states that it may be in: one after an answer, several after an operation whose
//! outcome nobody knows. What is read must be one of them; anything else is a loss.

use std::collections::BTreeMap;

use distrifs_proto::SplitMix;

/// The content of a file: all of it follows from these two.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content {
    pub(super) seed: u64,
    pub(super) length: usize,
}

impl Content {
    /// The bytes.
    pub(super) fn bytes(self) -> Vec<u8> {
        let mut random = SplitMix::new(self.seed);
        let mut bytes = Vec::with_capacity(self.length + 8);
        while bytes.len() < self.length {
            bytes.extend(random.next().to_le_bytes());
        }
        bytes.truncate(self.length);
        bytes
    }
}

/// A state of a path; `None`: nothing is there.
pub(super) type State = Option<Content>;

/// How an operation ended, as far as its caller knows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ended {
    /// It was acknowledged.
    Done,
    /// It was refused: nothing has changed.
    Refused,
    /// Nobody knows.
    Unknown,
}

/// The paths of one client.
#[derive(Debug, Default)]
pub(super) struct Ledger {
    states: BTreeMap<String, Vec<State>>,
}

impl Ledger {
    /// The states that a path may be in.
    pub(super) fn of(&self, path: &str) -> Vec<State> {
        self.states.get(path).cloned().unwrap_or_else(|| vec![None])
    }

    /// Paths where something may be.
    pub(super) fn paths(&self) -> Vec<String> {
        let there = self.states.iter().filter(|(_, states)| states.iter().any(Option::is_some));
        there.map(|(path, _)| path.clone()).collect()
    }

    fn set(&mut self, path: &str, states: Vec<State>) {
        if states == [None] {
            self.states.remove(path);
        } else {
            self.states.insert(path.to_owned(), states);
        }
    }

    fn add(&mut self, path: &str, more: &[State]) {
        let mut states = self.of(path);
        for state in more {
            if !states.contains(state) {
                states.push(*state);
            }
        }
        self.set(path, states);
    }

    /// A file was written to a path, over whatever was there.
    pub(super) fn wrote(&mut self, path: &str, content: Content, ended: Ended) {
        match ended {
            Ended::Done => self.set(path, vec![Some(content)]),
            Ended::Refused => {}
            Ended::Unknown => self.add(path, &[Some(content)]),
        }
    }

    /// A path was removed.
    pub(super) fn removed(&mut self, path: &str, ended: Ended) {
        match ended {
            Ended::Done => self.set(path, vec![None]),
            Ended::Refused => {}
            Ended::Unknown => self.add(path, &[None]),
        }
    }

    /// A file was copied, or moved, over whatever was there.
    pub(super) fn copied(&mut self, source: &str, target: &str, moved: bool, ended: Ended) {
        let there: Vec<State> = self.of(source).into_iter().filter(Option::is_some).collect();
        match ended {
            Ended::Done => self.set(target, there),
            Ended::Refused => return,
            Ended::Unknown => self.add(target, &there),
        }
        if moved {
            self.removed(source, ended);
        }
    }

    /// Whether what was found may be there.
    pub(super) fn allows(&self, path: &str, found: Option<&[u8]>) -> bool {
        self.of(path).iter().any(|state| match (state, found) {
            (None, None) => true,
            (Some(content), Some(bytes)) => content.length == bytes.len() && content.bytes() == bytes,
            _ => false,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: Content = Content { seed: 1, length: 13 };
    const B: Content = Content { seed: 2, length: 13 };

    #[test]
    fn answers_leave_one_state_and_doubts_several() {
        let mut ledger = Ledger::default();
        assert!(ledger.allows("/f", None) && !ledger.allows("/f", Some(&A.bytes())));
        ledger.wrote("/f", A, Ended::Done);
        assert!(!ledger.allows("/f", None) && ledger.allows("/f", Some(&A.bytes())));
        ledger.wrote("/f", B, Ended::Refused);
        assert!(!ledger.allows("/f", Some(&B.bytes())));
        ledger.wrote("/f", B, Ended::Unknown);
        assert!(ledger.allows("/f", Some(&A.bytes())) && ledger.allows("/f", Some(&B.bytes())));
        assert!(!ledger.allows("/f", None) && !ledger.allows("/f", Some(&A.bytes()[..12])));
        ledger.copied("/f", "/g", true, Ended::Unknown);
        assert!(
            ledger.allows("/f", None) && ledger.allows("/g", None) && ledger.allows("/g", Some(&B.bytes()))
        );
        ledger.removed("/f", Ended::Done);
        ledger.wrote("/g", B, Ended::Done);
        ledger.copied("/g", "/h", false, Ended::Done);
        assert_eq!(ledger.paths(), ["/g", "/h"]);
        assert!(ledger.allows("/h", Some(&B.bytes())) && !ledger.allows("/h", None));
    }
}
