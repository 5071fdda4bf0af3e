//! Who may do what: the one place that every operation passes. Pure.
//!
//! The superuser and `root` may everything. For others the bits of the first class that fits decide (owner, then
//! group, then other), as POSIX has it. Operations need: execute on each directory of the way; write and execute
//! on the parent to add or remove a name; read to list or to read; write on a file to replace its content.

/// Read.
pub(crate) const READ: u16 = 4;
/// Write.
pub(crate) const WRITE: u16 = 2;
/// Execute; on directories: search.
pub(crate) const EXECUTE: u16 = 1;
/// Only the owner of an entry, or of the directory, removes it.
const STICKY: u16 = 0o1000;
/// All permission bits there are.
pub(crate) const MODE_MAX: u16 = 0o7777;
/// A user's or group's name, in bytes.
pub(crate) const NAME_BYTES_MAX: usize = 255;
/// The name that always is a superuser.
pub(crate) const ROOT: &str = "root";

/// What each method of the services asks for, by service and method. A test holds it against the services' own
/// description: a method without a rule, or a rule without a test, fails it.
#[cfg(test)]
pub(crate) const RULES: [(&str, &str, &str); 28] = [
    ("ClientService", "Mkdir", "write and execute on the deepest directory that is there"),
    ("ClientService", "List", "read on the directory; recursive: read and execute on each below it"),
    ("ClientService", "Stat", "execute on each directory of the way"),
    ("ClientService", "Rename", "write and execute on both parents, their sticky bits"),
    ("ClientService", "Remove", "as Rename; recursive: to empty each directory below"),
    ("ClientService", "Copy", "read on the source; as Create for the target"),
    ("ClientService", "SetMode", "its owner, or the superuser"),
    ("ClientService", "SetOwner", "the superuser"),
    ("ClientService", "SetReplication", "write on the file"),
    ("ClientService", "Usage", "as List, recursive"),
    ("ClientService", "Create", "write and execute on the parent; to replace: write on the file"),
    ("ClientService", "AllocateChunk", "who writes the file"),
    ("ClientService", "Complete", "who writes the file, and again as Create"),
    ("ClientService", "Abandon", "who writes the file"),
    ("ClientService", "RenewLease", "who writes the file"),
    ("ClientService", "GrantChunk", "as Create"),
    ("ClientService", "GiveUpGrant", "who was granted the chunk"),
    ("ClientService", "PutWhole", "as Create, and who was granted the chunk"),
    ("ClientService", "ReadPlan", "read on the file"),
    (
        "ClientService",
        "ReportBadReplica",
        "everybody: a complaint changes who is asked and written to last, for a while",
    ),
    ("ClientService", "CheckFiles", "as List, recursive"),
    ("AdminService", "ListNodes", "everybody: nothing of the namespace is said"),
    ("AdminService", "ClusterStatus", "everybody: sums of the whole cluster"),
    ("AdminService", "ExplainChunk", "everybody: a chunk's number, and no file's name"),
    ("AdminService", "Latency", "everybody: sums, and no file's name"),
    ("AdminService", "Trace", "everybody who knows the number of a trace: times, and no file's name"),
    ("AdminService", "Ping", "everybody: nothing is said"),
    ("DatanodeService", "Session", "whoever has the cluster's id and a node's: networks that are trusted"),
];

/// Why a text cannot be the name of a user or group; `None`: it can.
pub(crate) fn bad_name(name: &str) -> Option<&'static str> {
    match name {
        "" => Some("is empty"),
        _ if name.len() > NAME_BYTES_MAX => Some("is longer than 255 bytes"),
        _ if name.contains(|c: char| c.is_control() || c.is_whitespace() || matches!(c, ':' | '/' | ',')) => {
            Some("contains a space, a colon, a comma, a slash or a control character")
        }
        _ => None,
    }
}

/// The one who asks, as it was when the question was asked; part of every logged command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// The name.
    pub(crate) user: String,
    /// The groups, the primary first; never empty.
    pub(crate) groups: Vec<String>,
    /// Whether everything is allowed.
    pub(crate) superuser: bool,
}

impl Caller {
    /// The group of what this caller makes.
    pub(crate) fn primary_group(&self) -> &str {
        self.groups.first().map_or(self.user.as_str(), String::as_str)
    }
}

/// Whose something is and what its bits say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Ownership<'a> {
    /// The owner's name.
    pub(crate) owner: &'a str,
    /// The group's name.
    pub(crate) group: &'a str,
    /// The permission bits.
    pub(crate) mode: u16,
}

impl Ownership<'_> {
    /// Whether `caller` has all of `need` here.
    pub(crate) fn allows(&self, caller: &Caller, need: u16) -> bool {
        if caller.superuser {
            return true;
        }
        let class = if caller.user == self.owner {
            self.mode >> 6
        } else if caller.groups.iter().any(|group| group == self.group) {
            self.mode >> 3
        } else {
            self.mode
        };
        class & need == need
    }

    /// Whether the sticky bit of this directory keeps `caller` from removing entries of other owners.
    pub(crate) fn guards_entries(&self, caller: &Caller) -> bool {
        self.mode & STICKY != 0 && !caller.superuser && caller.user != self.owner
    }

    /// Whether the sticky bit of this directory keeps `caller` from removing an entry owned by `entry_owner`.
    pub(crate) fn sticky_keeps(&self, caller: &Caller, entry_owner: &str) -> bool {
        self.guards_entries(caller) && caller.user != entry_owner
    }
}

/// `need` in words, for error texts.
pub(crate) fn need_text(need: u16) -> &'static str {
    match need {
        READ => "read",
        WRITE => "write",
        EXECUTE => "execute",
        n if n == READ | EXECUTE => "read and execute",
        n if n == WRITE | EXECUTE => "write",
        _ => "read, write and execute",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn the_first_class_that_fits_decides() {
        let groups = crate::groups::Groups::nobody("op");
        let member =
            Arc::new(Caller { user: "carol".into(), groups: vec!["staff".into()], superuser: false });
        let cases = [
            ("owner has it", groups.caller("bob"), 0o700, READ, true),
            ("owner lacks what others have", groups.caller("bob"), 0o077, READ, false),
            ("group has it", member.clone(), 0o070, WRITE, true),
            ("group lacks what others have", member, 0o707, WRITE, false),
            ("other has it", groups.caller("eve"), 0o004, READ, true),
            ("other lacks it", groups.caller("eve"), 0o770, READ, false),
            ("all of several", groups.caller("eve"), 0o001, READ | EXECUTE, false),
            ("superuser", groups.caller("op"), 0, READ | WRITE | EXECUTE, true),
            ("root", groups.caller("root"), 0, WRITE, true),
        ];
        for (name, caller, mode, need, expected) in cases {
            let it = Ownership { owner: "bob", group: "staff", mode };
            assert_eq!(it.allows(&caller, need), expected, "{name}");
        }
    }

    #[test]
    fn the_sticky_bit_leaves_removal_to_owners() {
        let groups = crate::groups::Groups::nobody("op");
        let dir = Ownership { owner: "bob", group: "bob", mode: 0o1777 };
        for (user, keeps) in [("bob", false), ("alice", false), ("eve", true), ("root", false)] {
            assert_eq!(dir.sticky_keeps(&groups.caller(user), "alice"), keeps, "{user}");
        }
        assert!(!Ownership { mode: 0o777, ..dir }.sticky_keeps(&groups.caller("eve"), "alice"));
    }
}
