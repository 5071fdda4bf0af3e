//! The answers of the last requests: a retry gets the same answer and is not executed again.
//!
//! The table is part of the replayed state, so it also holds across a restart of the master. It can be read as it
//! was at one moment while it goes on changing, as the other tables: see [`super::table`].

use std::collections::{HashMap, VecDeque};

use distrifs_proto::types::RequestId;

use super::command::Answer;

/// How many answers are remembered; older ones are forgotten first.
pub(crate) const REQUESTS_REMEMBERED_MAX: usize = 1 << 17;

/// The remembered answers.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Requests {
    order: VecDeque<RequestId>,
    /// With the fingerprint of the request: see [`super::fingerprint`].
    answers: HashMap<RequestId, (u32, Answer)>,
    frozen: Option<Frozen>,
}

/// A snapshot under way.
#[derive(Debug)]
#[cfg_attr(test, derive(Clone))]
struct Frozen {
    /// Forgotten since and not handed out: the oldest of the snapshot.
    forgotten: VecDeque<(RequestId, u32, Answer)>,
    /// The place in `order` of the next one.
    next: usize,
    /// The end of the snapshot in `order`.
    end: usize,
}

/// A snapshot under way is no part of the state.
impl PartialEq for Requests {
    fn eq(&self, other: &Self) -> bool {
        (&self.order, &self.answers) == (&other.order, &other.answers)
    }
}

impl Requests {
    /// The answer that was given to `request`, and the request's fingerprint.
    pub(crate) fn answer(&self, request: RequestId) -> Option<&(u32, Answer)> {
        self.answers.get(&request)
    }

    /// Keeps the first answer given to `request`.
    pub(crate) fn remember(&mut self, request: RequestId, print: u32, answer: Answer) {
        if self.answers.contains_key(&request) {
            return;
        }
        if self.order.len() >= REQUESTS_REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
            && let Some((print, answer)) = self.answers.remove(&oldest)
            && let Some(frozen) = &mut self.frozen
        {
            if frozen.next == 0 && frozen.end > 0 {
                frozen.forgotten.push_back((oldest, print, answer));
            }
            frozen.next = frozen.next.saturating_sub(1);
            frozen.end = frozen.end.saturating_sub(1);
        }
        self.order.push_back(request);
        self.answers.insert(request, (print, answer));
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
            let wanted = if let Some((request, print, answer)) = frozen.forgotten.pop_front() {
                take(request, print, &answer)
            } else if frozen.next < frozen.end
                && let Some(request) = self.order.get(frozen.next)
                && let Some((print, answer)) = self.answers.get(request)
            {
                frozen.next += 1;
                take(*request, *print, answer)
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
        assert_eq!(requests.answer(RequestId(1)), Some(&(1, Answer::Done)));
        assert_eq!(requests.order.len(), REQUESTS_REMEMBERED_MAX);
    }

    #[test]
    fn pages_show_the_moment_of_the_freeze() {
        let max = REQUESTS_REMEMBERED_MAX as u128;
        for (before, read_between) in [(10, 1), (max, 0), (max, 1), (max, 700), (max + 5, 3)] {
            let mut requests = Requests::default();
            (0..before).for_each(|i| requests.remember(RequestId(i), 1, Answer::Done));
            let expected: Vec<RequestId> = requests.order.iter().copied().collect();
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
