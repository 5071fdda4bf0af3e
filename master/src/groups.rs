//! Who belongs to which group: from the master's configuration, or from the operating system. Never from the caller.
//!
//! A user whom neither knows has only the group of its own name, and not even that one where a group of this name
//! exists: calling oneself `staff` is no way into `staff`.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::permission::{Caller, ROOT};

/// The group of a user who may not have the one of its own name.
const NO_GROUP: &str = "nogroup";
/// How long an answer of the operating system is believed.
const BELIEVED: Duration = Duration::from_secs(60);
/// Users whose groups are remembered.
const REMEMBERED_MAX: usize = 4096;
/// Groups of one user; more are ignored, the primary never.
const GROUPS_MAX: usize = 256;

/// The groups of every user.
#[derive(Debug)]
pub(crate) struct Groups {
    superuser: String,
    source: Source,
    remembered: Mutex<HashMap<String, Remembered>>,
}

/// What the operating system said of a user, and when.
type Remembered = (Arc<Caller>, Instant);

#[derive(Debug)]
enum Source {
    /// Group to members.
    Configured(BTreeMap<String, Vec<String>>),
    /// The database of users and groups.
    System,
}

impl Groups {
    /// The groups of a cluster whose superuser, beside `root`, is `superuser`.
    pub(crate) fn new(superuser: &str, configured: Option<BTreeMap<String, Vec<String>>>) -> Self {
        let source = configured.map_or(Source::System, Source::Configured);
        Self { superuser: superuser.to_owned(), source, remembered: Mutex::new(HashMap::new()) }
    }

    /// Where no group has members.
    #[cfg(test)]
    pub(crate) fn nobody(superuser: &str) -> Self {
        Self::new(superuser, Some(BTreeMap::new()))
    }

    /// What is known of `user` at once; `None`: the operating system has to be asked, which may take its time.
    pub(crate) fn known(&self, user: &str) -> Option<Arc<Caller>> {
        {
            let remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
            if let Some((caller, since)) = remembered.get(user)
                && since.elapsed() <= BELIEVED
            {
                return Some(caller.clone());
            }
        }
        match &self.source {
            Source::Configured(groups) => Some(self.remember(user, configured(groups, user))),
            Source::System => None,
        }
    }

    /// Asks the operating system. Blocks.
    pub(crate) fn ask(&self, user: &str) -> Arc<Caller> {
        self.remember(user, system(user))
    }

    fn remember(&self, user: &str, groups: Vec<String>) -> Arc<Caller> {
        let superuser = user == ROOT || user == self.superuser;
        let caller = Arc::new(Caller { user: user.to_owned(), groups, superuser });
        let mut remembered = self.remembered.lock().unwrap_or_else(PoisonError::into_inner);
        if remembered.len() >= REMEMBERED_MAX {
            remembered.retain(|_, (_, since)| since.elapsed() <= BELIEVED);
        }
        if remembered.len() >= REMEMBERED_MAX {
            // More users within a minute than are remembered: begin anew rather than grow.
            remembered.clear();
        }
        remembered.insert(user.to_owned(), (caller.clone(), Instant::now()));
        caller
    }

    /// For tests: what is configured.
    #[cfg(test)]
    pub(crate) fn caller(&self, user: &str) -> Arc<Caller> {
        self.known(user).expect("configured")
    }
}

/// The groups that name `user` as a member, in the order of their names. The primary one is the first.
fn configured(groups: &BTreeMap<String, Vec<String>>, user: &str) -> Vec<String> {
    let member = |(_, members): &(&String, &Vec<String>)| members.iter().any(|member| member == user);
    let mut of: Vec<String> = groups.iter().filter(member).map(|(name, _)| name.clone()).collect();
    of.truncate(GROUPS_MAX);
    if of.is_empty() {
        of.push(if groups.contains_key(user) { NO_GROUP.to_owned() } else { user.to_owned() });
    }
    of
}

/// The primary group and all others.
fn system(user: &str) -> Vec<String> {
    let Some(found) = uzers::get_user_by_name(user) else {
        let taken = uzers::get_group_by_name(user).is_some();
        return vec![if taken { NO_GROUP.to_owned() } else { user.to_owned() }];
    };
    let name = |group: &uzers::Group| group.name().to_str().map(str::to_owned);
    let primary = uzers::get_group_by_gid(found.primary_group_id());
    let primary = primary.as_ref().and_then(name).unwrap_or_else(|| NO_GROUP.to_owned());
    let all = uzers::get_user_groups(user, found.primary_group_id()).unwrap_or_default();
    let others = all.iter().filter_map(name).filter(|group| *group != primary);
    std::iter::once(primary.clone()).chain(others).take(GROUPS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn configured_groups() {
        let groups = BTreeMap::from([
            ("staff".to_owned(), vec!["alice".to_owned(), "bob".to_owned()]),
            ("admin".to_owned(), vec!["bob".to_owned()]),
            ("empty".to_owned(), Vec::new()),
        ]);
        let groups = Groups::new("op", Some(groups));
        let cases: [(&str, &[&str], bool); 6] = [
            ("alice", &["staff"], false),
            ("bob", &["admin", "staff"], false),
            ("eve", &["eve"], false),
            ("staff", &[NO_GROUP], false),
            ("op", &["op"], true),
            ("root", &["root"], true),
        ];
        for (user, expected, superuser) in cases {
            let caller = groups.caller(user);
            assert_eq!(caller.superuser, superuser, "{user}");
            assert!(caller.groups.iter().eq(expected), "{user}: {:?}", caller.groups);
        }
    }

    #[test]
    fn the_system_is_asked_once_and_names_are_no_way_into_groups() {
        let groups = Groups::new("op", None);
        assert!(groups.known("root").is_none(), "nobody was asked yet");
        let root = groups.ask("root");
        assert!(!root.groups.is_empty() && root.superuser);
        assert_eq!(groups.known("root"), Some(root));
        // A group of every Linux system that is no user's name, if it is one here.
        if uzers::get_group_by_name("tty").is_some() && uzers::get_user_by_name("tty").is_none() {
            assert_eq!(groups.ask("tty").groups, [NO_GROUP]);
        }
        assert_eq!(groups.ask("no-such-user-here").groups, ["no-such-user-here"]);
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let groups = Groups::new("op", None);
        let caller = Arc::new(Caller { user: "u".into(), groups: vec!["g".into()], superuser: false });
        let entry = || (caller.clone(), Instant::now());
        for i in 0..REMEMBERED_MAX {
            groups.remembered.lock().unwrap_or_else(PoisonError::into_inner).insert(i.to_string(), entry());
        }
        groups.ask("one-more");
        assert!(groups.remembered.lock().unwrap_or_else(PoisonError::into_inner).len() <= REMEMBERED_MAX);
    }
}
