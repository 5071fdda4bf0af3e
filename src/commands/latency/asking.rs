//! Asks master and datanodes, all at once.

use distrifs_client::{Client, Node};
use tokio::task::JoinSet;

use super::snapshot::Snapshot;
use crate::error::CommandError;

/// How the master is called among the nodes.
const MASTER: &str = "master";

/// Whom to ask.
pub(super) struct Asking {
    client: Client,
    /// Only these; all where there are none.
    only: Vec<String>,
}

impl Asking {
    pub(super) fn new(client: Client, only: Vec<String>) -> Self {
        Self { client, only }
    }

    /// What they have counted, and why some say nothing, a line each.
    ///
    /// # Errors
    /// No master, or a node that is asked for by name and is none.
    pub(super) async fn ask(&self) -> Result<(Snapshot, Vec<String>), CommandError> {
        let nodes = self.client.nodes().await?;
        let wanted = |id: &str| self.only.is_empty() || self.only.iter().any(|name| name == id);
        let known = |name: &str| name == MASTER || nodes.iter().any(|node| node.id.to_string() == name);
        if let Some(unknown) = self.only.iter().find(|name| !known(name)) {
            return Err(CommandError::Usage(format!("--node {unknown}: no such node, see `distrifs nodes`")));
        }
        let mut asked = JoinSet::new();
        for (place, node) in nodes.iter().enumerate() {
            let name = node.id.to_string();
            if !wanted(&name) {
                continue;
            }
            let (client, id, address) = (self.client.clone(), node.id, node.address.clone());
            asked.spawn(async move {
                let told = match address.parse() {
                    Ok(address) => {
                        client.node_latency(&Node { id, address }).await.map_err(|error| error.to_string())
                    }
                    Err(_) => Err(format!("node {id}: no address that can be asked: {address:?}")),
                };
                (place, name, told)
            });
        }
        let mut answers = asked.join_all().await;
        answers.sort_by_key(|(place, ..)| *place);
        if wanted(MASTER) {
            let told = self.client.master_latency().await.map_err(|error| error.to_string());
            answers.push((nodes.len(), MASTER.to_owned(), told));
        }
        let (mut snapshot, mut silent) = (Snapshot::default(), Vec::new());
        for (_, name, told) in answers {
            let added = told.and_then(|stages| {
                stages.iter().try_for_each(|stage| snapshot.add(&name, &stage.name, &stage.v2))
            });
            silent.extend(added.err());
        }
        Ok((snapshot, silent))
    }
}
