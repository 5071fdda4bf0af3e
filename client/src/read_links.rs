//! The links of a client, one for each node that it reads from.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use distrifs_proto::types::NodeId;

use crate::link_state::Missed;
use crate::read_link::{ReadLink, Standing};
use crate::status::Node;

/// Links at once; reads of further nodes go over connections of their own.
const LINKS_MAX: usize = 64;
/// Idle ones that are older are not trusted: a peer that hung meanwhile would be blamed for the wrong reason.
const IDLE_AGE_MAX: Duration = Duration::from_secs(5);
/// After a fault a node is left without a link for so long.
const FAULT_REST: Duration = Duration::from_secs(1);
/// A node that was silent, for so long.
const SILENT_REST: Duration = Duration::from_secs(5);

/// How to read from a node.
pub(crate) enum Way {
    /// Over its link.
    Link(Arc<ReadLink>),
    /// Over a connection of the read's own, for there is no link, for this reason.
    Alone(Option<Missed>),
}

#[derive(Debug)]
enum Entry {
    Link(Arc<ReadLink>),
    Rests(Missed, Instant),
}

/// The links.
#[derive(Debug, Default)]
pub(crate) struct ReadLinks {
    entries: Mutex<BTreeMap<NodeId, Entry>>,
}

impl ReadLinks {
    /// The way to a node at this time; a link that is not there yet is opened within `patience`.
    pub(crate) fn way(&self, node: &Node, patience: Duration, now: Instant) -> Way {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        match entries.get(&node.id) {
            Some(Entry::Link(link)) if link.node().address == node.address => match link.standing(now) {
                Standing::Closed(Missed::Ended) => {}
                Standing::Closed(why) => {
                    let rest = if why == Missed::Silent { SILENT_REST } else { FAULT_REST };
                    entries.insert(node.id, Entry::Rests(why, now + rest));
                    return Way::Alone(Some(why));
                }
                Standing::Idle(since) if since >= IDLE_AGE_MAX => link.close(Missed::Fault),
                Standing::Idle(_) | Standing::Busy => return Way::Link(link.clone()),
            },
            Some(Entry::Link(link)) => link.close(Missed::Fault),
            Some(Entry::Rests(why, until)) if now < *until => return Way::Alone(Some(*why)),
            Some(Entry::Rests(..)) => {}
            None if entries.len() >= LINKS_MAX => {
                entries.retain(|_, entry| match entry {
                    Entry::Link(link) => link.closed().is_none(),
                    Entry::Rests(_, until) => now < *until,
                });
                if entries.len() >= LINKS_MAX {
                    return Way::Alone(None);
                }
            }
            None => {}
        }
        let link = ReadLink::open(node, patience);
        entries.insert(node.id, Entry::Link(link.clone()));
        Way::Link(link)
    }
}

impl Drop for ReadLinks {
    fn drop(&mut self) {
        let entries = self.entries.get_mut().unwrap_or_else(PoisonError::into_inner);
        for entry in entries.values() {
            if let Entry::Link(link) = entry {
                link.close(Missed::Fault);
            }
        }
    }
}
