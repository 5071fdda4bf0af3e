//! The answers of the last requests: a retry gets the same answer and is not executed again.
//!
//! The table is part of the replayed state, so it also holds across a restart of the master.

use std::collections::{HashMap, VecDeque};

use distrifs_proto::types::RequestId;

use super::command::Answer;

/// How many answers are remembered; older ones are forgotten first.
pub(crate) const REQUESTS_REMEMBERED_MAX: usize = 1 << 17;

/// The remembered answers.
#[derive(Debug, Default, PartialEq)]
#[cfg_attr(test, derive(Clone))]
pub(crate) struct Requests {
    order: VecDeque<RequestId>,
    answers: HashMap<RequestId, Answer>,
}

impl Requests {
    /// The answer that was given to `request`.
    pub(crate) fn answer(&self, request: RequestId) -> Option<&Answer> {
        self.answers.get(&request)
    }

    /// Keeps the first answer given to `request`.
    pub(crate) fn remember(&mut self, request: RequestId, answer: Answer) {
        if self.answers.contains_key(&request) {
            return;
        }
        if self.order.len() >= REQUESTS_REMEMBERED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.answers.remove(&oldest);
        }
        self.order.push_back(request);
        self.answers.insert(request, answer);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_oldest_answer_goes_first_and_the_first_one_stays() {
        let mut requests = Requests::default();
        for i in 0..=REQUESTS_REMEMBERED_MAX as u128 {
            requests.remember(RequestId(i), Answer::Done);
            requests.remember(RequestId(i), Answer::Forgotten);
        }
        assert_eq!(requests.answer(RequestId(0)), None);
        assert_eq!(requests.answer(RequestId(1)), Some(&Answer::Done));
        assert_eq!(requests.order.len(), REQUESTS_REMEMBERED_MAX);
    }
}
