//! Identities to messages and back, where one number is not enough.

use super::v1;
use crate::types::{ClusterId, RequestId};

impl From<RequestId> for v1::RequestId {
    fn from(id: RequestId) -> Self {
        let (high, low) = halves(id.0);
        Self { high, low }
    }
}

impl From<v1::RequestId> for RequestId {
    fn from(id: v1::RequestId) -> Self {
        Self(whole(id.high, id.low))
    }
}

impl ClusterId {
    /// The high and the low half, as messages carry them.
    #[must_use]
    pub fn to_halves(self) -> (u64, u64) {
        halves(self.0)
    }

    /// From the halves that a message carries.
    #[must_use]
    pub fn from_halves(high: u64, low: u64) -> Self {
        Self(whole(high, low))
    }
}

fn halves(id: u128) -> (u64, u64) {
    ((id >> 64) as u64, id as u64)
}

fn whole(high: u64, low: u64) -> u128 {
    u128::from(high) << 64 | u128::from(low)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_their_messages() {
        let id = RequestId(0x0123_4567_89ab_cdef_0011_2233_4455_6677);
        assert_eq!(RequestId::from(v1::RequestId::from(id)), id);
        let (high, low) = ClusterId(id.0).to_halves();
        assert_eq!(ClusterId::from_halves(high, low), ClusterId(id.0));
    }
}
