//! The answers of the last requests: a retry gets the same answer and is not executed again.
//!
//! The table is part of the replayed state, so it also holds across a restart of the master. It can be read as it
//! was at one moment while it goes on changing, as the other tables: see [`super::table`].

use std::collections::VecDeque;
use std::hash::BuildHasher;

use distrifs_proto::types::RequestId;
use foldhash::fast::RandomState;
use hashbrown::HashTable;

use super::command::Answer;

/// How many answers are remembered; older ones are forgotten first.
pub(crate) const REQUESTS_REMEMBERED_MAX: usize = 1 << 17;

/// The remembered answers.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Requests {
    /// The oldest first.
    order: VecDeque<Remembered>,
    /// How many were forgotten before the oldest; wraps around.
    forgotten: u32,
    /// Where each is: its place in `order` and `forgotten`. Four bytes an entry stay in the processor's cache, where
    /// a table of ids and answers would not.
    places: HashTable<u32>,
    hasher: RandomState,
    frozen: Option<Frozen>,
}

#[derive(Debug, Clone, PartialEq)]
struct Remembered {
    request: RequestId,
    /// Of the request: see [`super::fingerprint`].
    print: u32,
    answer: Answer,
}

/// A snapshot under way.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Frozen {
    /// Forgotten since and not handed out: the oldest of the snapshot.
    forgotten: VecDeque<Remembered>,
    /// The place in `order` of the next one.
    next: usize,
    /// The end of the snapshot in `order`.
    end: usize,
}

impl Default for Requests {
    fn default() -> Self {
        Self {
            // All that it will ever take, at once: to grow means to move and hash all of it under the namespace's lock.
            order: VecDeque::with_capacity(REQUESTS_REMEMBERED_MAX),
            forgotten: 0,
            places: HashTable::with_capacity(REQUESTS_REMEMBERED_MAX),
            hasher: RandomState::default(),
            frozen: None,
        }
    }
}

/// Neither a snapshot under way nor where things are kept is part of the state.
impl PartialEq for Requests {
    fn eq(&self, other: &Self) -> bool {
        self.order == other.order
    }
}

impl Requests {
    /// The fingerprint of `request`, and the answer that was given to it.
    pub(crate) fn answer(&self, request: RequestId) -> Option<(u32, &Answer)> {
        let same = |place: &u32| self.at(*place).is_some_and(|it| it.request == request);
        let place = self.places.find(self.hasher.hash_one(request), same)?;
        self.at(*place).map(|it| (it.print, &it.answer))
    }

    fn at(&self, place: u32) -> Option<&Remembered> {
        self.order.get(place.wrapping_sub(self.forgotten) as usize)
    }

    /// Keeps the first answer given to `request`.
    pub(crate) fn remember(&mut self, request: RequestId, print: u32, answer: Answer) {
        if self.answer(request).is_some() {
            return;
        }
        if self.order.len() >= REQUESTS_REMEMBERED_MAX {
            self.forget_oldest();
        }
        let place = self.forgotten.wrapping_add(self.order.len() as u32);
        self.order.push_back(Remembered { request, print, answer });
        let (order, forgotten, hasher) = (&self.order, self.forgotten, &self.hasher);
        let hash_at = |place: &u32| {
            let request = order.get(place.wrapping_sub(forgotten) as usize).map(|it| it.request);
            hasher.hash_one(request.unwrap_or_default())
        };
        self.places.insert_unique(hasher.hash_one(request), place, hash_at);
    }

    fn forget_oldest(&mut self) {
        let place = self.forgotten;
        let Some(oldest) = self.order.pop_front() else { return };
        if let Ok(entry) = self.places.find_entry(self.hasher.hash_one(oldest.request), |it| *it == place) {
            entry.remove();
        }
        self.forgotten = self.forgotten.wrapping_add(1);
        if let Some(frozen) = &mut self.frozen {
            if frozen.next == 0 && frozen.end > 0 {
                frozen.forgotten.push_back(oldest);
            }
            frozen.next = frozen.next.saturating_sub(1);
            frozen.end = frozen.end.saturating_sub(1);
        }
    }

    /// From here on pages show what is remembered now.
    pub(crate) fn freeze(&mut self) {
        self.frozen = Some(Frozen { forgotten: VecDeque::new(), next: 0, end: self.order.len() });
    }

    /// Ends the snapshot.
    pub(crate) fn thaw(&mut self) {
        self.frozen = None;
    }

    /// Hands out more of the snapshot, the oldest first, for as long as `take` wants more; says whether there may
    /// be more.
    pub(crate) fn page(&mut self, mut take: impl FnMut(RequestId, u32, &Answer) -> bool) -> bool {
        let Some(frozen) = &mut self.frozen else { return false };
        loop {
            let wanted = if let Some(it) = frozen.forgotten.pop_front() {
                take(it.request, it.print, &it.answer)
            } else if frozen.next < frozen.end
                && let Some(it) = self.order.get(frozen.next)
            {
                frozen.next += 1;
                take(it.request, it.print, &it.answer)
            } else {
                return false;
            };
            if !wanted {
                return true;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_answer_goes_first_and_the_first_one_stays() {
        let mut requests = Requests::default();
        for i in 0..=REQUESTS_REMEMBERED_MAX as u128 {
            requests.remember(RequestId(i), 1, Answer::Done);
            requests.remember(RequestId(i), 2, Answer::Forgotten);
        }
        assert_eq!(requests.answer(RequestId(0)), None);
        assert_eq!(requests.answer(RequestId(1)), Some((1, &Answer::Done)));
        assert_eq!(requests.order.len(), REQUESTS_REMEMBERED_MAX);
    }

    #[test]
    fn pages_show_the_moment_of_the_freeze() {
        let max = REQUESTS_REMEMBERED_MAX as u128;
        for (before, read_between) in [(10, 1), (max, 0), (max, 1), (max, 700), (max + 5, 3)] {
            let mut requests = Requests::default();
            (0..before).for_each(|i| requests.remember(RequestId(i), 1, Answer::Done));
            let expected: Vec<RequestId> = requests.order.iter().map(|it| it.request).collect();
            requests.freeze();
            let mut shown = Vec::new();
            let mut next = before;
            let mut more = true;
            while more {
                let mut left = 1000;
                more = requests.page(|request, _, _| {
                    shown.push(request);
                    left -= 1;
                    left > 0
                });
                for _ in 0..read_between {
                    requests.remember(RequestId(next), 2, Answer::Forgotten);
                    next += 1;
                }
            }
            assert_eq!(shown, expected, "{before} {read_between}");
        }
    }
}
