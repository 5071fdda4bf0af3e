//! The identities of the system. All are opaque numbers; only their order carries meaning where it says so.

use std::fmt;
use std::str::FromStr;

/// Text that is not the identity it was taken for.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a {kind}: {text:?}: expected {digits} hexadecimal digits")]
pub struct BadId {
    /// What was expected, such as `node id`.
    pub kind: &'static str,
    /// What was found.
    pub text: String,
    /// How many digits it should have.
    pub digits: usize,
}

macro_rules! number {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        pub struct $name(pub u64);

        impl $name {
            /// The next one in order.
            ///
            /// # Panics
            /// When the 64-bit space is exhausted, which no cluster lives to see.
            #[must_use]
            pub fn next(self) -> Self {
                Self(self.0.checked_add(1).expect("64-bit identities do not run out"))
            }
        }

        impl From<u64> for $name {
            fn from(raw: u64) -> Self {
                Self(raw)
            }
        }
    };
}

macro_rules! hex_text {
    ($name:ident, $raw:ty, $kind:literal, $digits:literal) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!("{:0", $digits, "x}"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = BadId;
            fn from_str(text: &str) -> Result<Self, BadId> {
                let bad = || BadId { kind: $kind, text: text.chars().take(80).collect(), digits: $digits };
                let digits = text.len() == $digits && text.bytes().all(|b| b.is_ascii_hexdigit());
                if !digits {
                    return Err(bad());
                }
                <$raw>::from_str_radix(text, 16).map(Self).map_err(|_| bad())
            }
        }
    };
}

macro_rules! decimal_text {
    ($name:ident) => {
        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{}", self.0)
            }
        }
    };
}

number!(
    /// A chunk. Handed out by the master in growing order and never reused.
    ChunkId
);
hex_text!(ChunkId, u64, "chunk id", 16);

number!(
    /// The version of a chunk; a replica with a lower one is stale (GFS: chunk version number).
    GenerationStamp
);
decimal_text!(GenerationStamp);

number!(
    /// The incarnation of the leadership. An older one is refused everywhere.
    Epoch
);
decimal_text!(Epoch);

number!(
    /// The position of a record in the write-ahead log; the first record has 1, 0 means "nothing yet".
    Lsn
);
decimal_text!(Lsn);

number!(
    /// A file or directory of the namespace, whatever its path.
    FileId
);
decimal_text!(FileId);

number!(
    /// A datanode: drawn at random when its first data folder is formatted, the same for its whole life.
    NodeId
);
hex_text!(NodeId, u64, "node id", 16);

/// A cluster: drawn at random when the master's folder is formatted. Folders of another cluster are refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct ClusterId(pub u128);
hex_text!(ClusterId, u128, "cluster id", 32);

/// One mutation asked for by a client; a retry carries the same one and is executed once.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RequestId(pub u128);
hex_text!(RequestId, u128, "request id", 32);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_survive_the_way_through_text() {
        assert_eq!(ChunkId(0xab).to_string(), "00000000000000ab");
        assert_eq!("00000000000000ab".parse(), Ok(ChunkId(0xab)));
        assert_eq!(ClusterId(u128::MAX).to_string().parse(), Ok(ClusterId(u128::MAX)));
    }

    #[test]
    fn text_of_another_shape_is_refused() {
        for text in ["", "ab", "+0000000000000ab", "00000000000000ag", "00000000000000abc", "é0000000000000a"]
        {
            assert!(text.parse::<ChunkId>().is_err(), "{text:?} was taken for a chunk id");
        }
    }
}
