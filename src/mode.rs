//! Permission bits as users write them: octal, or as changes of what is there.

use std::str::FromStr;

/// All bits there are.
const MODE_MAX: u32 = 0o7777;

/// A new mode, or a change of one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Mode {
    /// All bits.
    Octal(u32),
    /// One change after the other.
    Changes(Vec<Change>),
}

/// Such as `go-w`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Change {
    /// The bits of the classes that are meant, of all kinds.
    classes: u32,
    operator: Operator,
    bits: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Add,
    Take,
    Set,
}

/// Text that is no mode.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a mode: give octal digits up to 7777, or changes such as u+rwx,go-w")]
pub(crate) struct BadMode;

impl Mode {
    /// The mode as it will be, where it is `now`.
    pub(crate) fn applied_to(&self, now: u32) -> u32 {
        match self {
            Self::Octal(mode) => *mode,
            Self::Changes(changes) => changes.iter().fold(now, |mode, change| match change.operator {
                Operator::Add => mode | change.bits,
                Operator::Take => mode & !change.bits,
                Operator::Set => mode & !change.classes | change.bits,
            }),
        }
    }
}

impl FromStr for Mode {
    type Err = BadMode;

    fn from_str(text: &str) -> Result<Self, BadMode> {
        if text.starts_with(|c: char| c.is_ascii_digit()) {
            let octal = text.bytes().all(|b| matches!(b, b'0'..=b'7'));
            let mode = u32::from_str_radix(text, 8).ok().filter(|mode| octal && *mode <= MODE_MAX);
            return mode.map(Self::Octal).ok_or(BadMode);
        }
        text.split(',').map(change).collect::<Option<_>>().map(Self::Changes).ok_or(BadMode)
    }
}

fn change(text: &str) -> Option<Change> {
    let at = text.find(['+', '-', '='])?;
    let (who, rest) = text.split_at(at);
    let (operator, what) = rest.split_at(1);
    let operator = match operator {
        "+" => Operator::Add,
        "-" => Operator::Take,
        _ => Operator::Set,
    };
    let mut classes = 0;
    for class in if who.is_empty() { "a" } else { who }.chars() {
        classes |= match class {
            'u' => 0o4700,
            'g' => 0o2070,
            'o' => 0o1007,
            'a' => 0o7777,
            _ => return None,
        };
    }
    if what.is_empty() && operator != Operator::Set {
        return None;
    }
    let mut kinds = 0;
    for kind in what.chars() {
        kinds |= match kind {
            'r' => 0o444,
            'w' => 0o222,
            'x' => 0o111,
            's' => 0o6000,
            't' => 0o1000,
            _ => return None,
        };
    }
    // The sticky bit is of nobody's class alone: `+t` and `o+t` mean the same.
    Some(Change { classes, operator, bits: kinds & (classes | kinds & 0o1000) })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_as_chmod_knows_them() {
        let cases = [
            ("0", 0o755, 0),
            ("700", 0o755, 0o700),
            ("0644", 0o755, 0o644),
            ("1777", 0o755, 0o1777),
            ("u+x", 0o644, 0o744),
            ("go-w", 0o666, 0o644),
            ("a=r", 0o755, 0o444),
            ("=", 0o755, 0),
            ("+x", 0o644, 0o755),
            ("u=rw,go=", 0o755, 0o600),
            ("u=rwx,g=rx,o=x", 0, 0o751),
            ("+t", 0o777, 0o1777),
            ("o+t", 0o777, 0o1777),
            ("-t", 0o1777, 0o777),
            ("g+s", 0o755, 0o2755),
        ];
        for (text, now, expected) in cases {
            let mode: Mode = text.parse().unwrap();
            assert_eq!(mode.applied_to(now), expected, "{text} on {now:o}");
        }
    }

    #[test]
    fn what_is_no_mode_is_refused() {
        for text in
            ["", "8", "10000", "77777777777777777777", "0x7", "-1", "u", "u+", "u+q", "z+r", "u+x,", "rwx"]
        {
            assert_eq!(text.parse::<Mode>(), Err(BadMode), "{text:?}");
        }
    }
}
