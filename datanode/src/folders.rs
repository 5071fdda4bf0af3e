//! The data folders of a datanode at its start: of one node and one cluster, and those whose disk fails left out.

use std::io;
use std::path::{Path, PathBuf};

use distrifs_engine::io::{Body, block_on};
use distrifs_engine::store::journal::Recovered;
use distrifs_engine::store::{
    ChunkStore, Folder, Identity, Inventory as FolderInventory, StoreError, Witness,
};
use distrifs_proto::types::{ClusterId, NodeId};

use crate::control::Inventory;
use crate::datanode::StartError;

/// The folders that serve, at least one, and those that do not.
#[derive(Debug)]
pub(crate) struct Folders {
    pub(crate) serving: Vec<Folder>,
    /// Their journals, once they were scanned.
    pub(crate) journals: Vec<Recovered>,
    /// Their disk failed at the start. What they hold counts as lost until a start on which it works.
    pub(crate) left_out: Vec<PathBuf>,
    /// Chunks in the quarantine of those that serve.
    pub(crate) in_quarantine: u64,
    /// What any of them was shown.
    pub(crate) witness: Witness,
    /// Why the first one was left out.
    failure: Option<StoreError>,
}

impl Folders {
    /// Takes all folders; they are of one node and one cluster. New ones become this node's. A mistake of whoever
    /// set it up refuses the start, a failing disk takes its folder out.
    ///
    /// # Errors
    /// [`StartError::Store`], [`StartError::MixedFolders`].
    pub(crate) fn open(dirs: &[PathBuf]) -> Result<Self, StartError> {
        let owner = owner(dirs)?;
        let fresh = Identity { node: NodeId(rand::random_range(1..=u64::MAX)), cluster: None };
        let mut folders = Self {
            serving: Vec::new(),
            journals: Vec::new(),
            left_out: Vec::new(),
            in_quarantine: 0,
            witness: Witness::default(),
            failure: None,
        };
        for dir in dirs {
            match take(dir, owner.unwrap_or(fresh)) {
                Ok((folder, seen)) => {
                    folders.witness = folders.witness.joined(seen);
                    folders.serving.push(folder);
                }
                // A new node begins with all its folders.
                Err(StartError::Store(error)) if owner.is_some() => folders.leave_out(dir, error)?,
                Err(error) => return Err(error),
            }
        }
        folders.checked()
    }

    /// Whose they are.
    pub(crate) fn identity(&self) -> Identity {
        self.serving[0].identity()
    }

    /// Brings back what is in the journals of the folders and lists what they hold, on a thread of its own; leaves those
    /// out with which that cannot be done.
    ///
    /// # Errors
    /// [`StartError::Store`] when none is left, [`StartError::System`].
    pub(crate) async fn scan(mut self, body: &Body) -> Result<(Self, Inventory), StartError> {
        let roots: Vec<_> = self.serving.iter().map(|folder| folder.root().to_owned()).collect();
        let (body, owner) = (body.clone(), self.identity());
        let scanned = tokio::task::spawn_blocking(move || {
            block_on(body, |io| async move {
                let mut found = Vec::with_capacity(roots.len());
                for root in roots {
                    found.push(list(&ChunkStore::attach(io.clone(), root, None), owner).await);
                }
                found
            })
        });
        let system = |source| StartError::System { what: "inventory", source };
        let found = scanned.await.map_err(|e| system(io::Error::other(e)))?.map_err(system)?;
        let mut listed = Vec::with_capacity(found.len());
        for (folder, found) in std::mem::take(&mut self.serving).into_iter().zip(found) {
            match found {
                Ok((journal, found)) => {
                    self.serving.push(folder);
                    self.journals.push(journal);
                    listed.push(found);
                }
                Err(error) => self.leave_out(folder.root(), error)?,
            }
        }
        let mut this = self.checked()?;
        let mut inventory = Inventory::new(listed.len());
        for (disk, found) in listed.into_iter().enumerate() {
            this.in_quarantine += found.in_quarantine;
            let root = this.serving[disk].root().display();
            if !found.quarantined.is_empty() {
                let count = found.quarantined.len();
                tracing::warn!(count, folder = %root, "chunks were moved to quarantine");
            }
            if !found.unreadable.is_empty() {
                let count = found.unreadable.len();
                tracing::error!(count, folder = %root, "replicas cannot be read: they count as lost");
            }
            found.replicas.into_iter().for_each(|replica| inventory.add(replica, disk));
            for chunk in found.damaged {
                // Not one of which another folder has a newer one.
                let _ = inventory.mark(chunk, disk, true);
            }
        }
        Ok((this, inventory))
    }

    fn leave_out(&mut self, dir: &Path, error: StoreError) -> Result<(), StoreError> {
        if matches!(error, StoreError::Folder { .. }) {
            return Err(error);
        }
        tracing::error!(
            folder = %dir.display(), %error,
            "is left out: what it holds counts as lost until its disk works and the datanode starts again"
        );
        self.left_out.push(dir.to_owned());
        self.failure.get_or_insert(error);
        Ok(())
    }

    /// Itself, unless no folder is left.
    fn checked(mut self) -> Result<Self, StartError> {
        match self.failure.take() {
            Some(error) if self.serving.is_empty() => Err(error.into()),
            failure => Ok(Self { failure, ..self }),
        }
    }
}

/// Whose the folders are, as the first of them says that was in use before: an emptied one before it must not make the
/// node another. `None` for a new node.
fn owner(dirs: &[PathBuf]) -> Result<Option<Identity>, StoreError> {
    let (mut owner, mut failure) = (None::<Identity>, None);
    for dir in dirs {
        match Folder::owner(dir) {
            Ok(None) => {}
            Ok(Some(found)) => {
                let own = owner.get_or_insert(found);
                if own.node == found.node {
                    own.cluster = own.cluster.or(found.cluster);
                }
            }
            Err(error @ StoreError::Folder { .. }) => return Err(error),
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match (owner, failure) {
        // The disk that fails may know who this node is: it does not become a new one beside it.
        (None, Some(error)) => Err(error),
        (owner, _) => Ok(owner),
    }
}

fn take(dir: &Path, owner: Identity) -> Result<(Folder, Witness), StartError> {
    let mut folder = Folder::open(dir, owner.node)?;
    let found = folder.identity();
    let mixed = |found: String, expected: String| StartError::MixedFolders {
        path: folder.root().display().to_string(),
        found,
        expected,
    };
    if found.node != owner.node {
        return Err(mixed(format!("node {}", found.node), format!("node {}", owner.node)));
    }
    match (owner.cluster, found.cluster) {
        (Some(cluster), None) => folder.join(cluster)?,
        (own, found) if own != found => {
            let name = |c: Option<ClusterId>| c.map_or("no cluster".into(), |c| format!("cluster {c}"));
            return Err(mixed(name(found), name(own)));
        }
        _ => {}
    }
    let witness = folder.witness()?;
    Ok((folder, witness))
}

async fn list(store: &ChunkStore, owner: Identity) -> Result<(Recovered, FolderInventory), StoreError> {
    store.clear_tmp().await?;
    let journal = store.replay(owner.node, owner.cluster).await?;
    let found = match owner.cluster {
        Some(cluster) => store.inventory(cluster).await?,
        None => FolderInventory::default(),
    };
    Ok((journal, found))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use distrifs_engine::io::{SimOperation, SimWorld};
    use distrifs_proto::types::{Epoch, Lsn};

    use super::*;

    /// Nothing can be made there, by nobody.
    const BROKEN: &str = "/proc/self/distrifs";
    const CLUSTER: ClusterId = ClusterId(7);

    fn dirs(root: &Path, names: &[&str]) -> Vec<PathBuf> {
        // Joined with a whole path it is that path.
        names.iter().map(|name| root.join(name)).collect()
    }

    /// A folder of this node; in no cluster for zero.
    fn formatted(dir: &Path, node: u64, cluster: u128) {
        let mut folder = Folder::open(dir, NodeId(node)).unwrap();
        if cluster != 0 {
            folder.join(ClusterId(cluster)).unwrap();
        }
    }

    #[test]
    fn which_folders_serve_and_whose_they_are() {
        type Case<'a> = (&'a str, &'a [(&'a str, u64, u128)], &'a [&'a str], Result<&'a [&'a str], &'a str>);
        let cases: &[Case<'_>] = &[
            ("both", &[("a", 5, 7), ("b", 5, 7)], &["a", "b"], Ok(&[])),
            ("the first was emptied", &[("b", 5, 7)], &["a", "b"], Ok(&[])),
            ("the first joined no cluster yet", &[("a", 5, 0), ("b", 5, 7)], &["a", "b"], Ok(&[])),
            ("the first fails", &[("b", 5, 7)], &[BROKEN, "b"], Ok(&[BROKEN])),
            ("the last fails, one is new", &[("a", 5, 7)], &["a", "b", BROKEN], Ok(&[BROKEN])),
            ("another node's", &[("a", 5, 7), ("b", 6, 7)], &["a", "b"], Err("belongs to node")),
            ("another cluster's", &[("a", 5, 7), ("b", 5, 8)], &["a", "b"], Err("belongs to cluster")),
            ("twice the same", &[("a", 5, 7)], &["a", "a"], Err("in use by another datanode")),
            ("a new node with a broken folder", &[], &["a", BROKEN], Err(BROKEN)),
            ("nothing but broken ones", &[], &[BROKEN], Err(BROKEN)),
        ];
        for (name, before, dirs_of, expected) in cases {
            let root = tempfile::tempdir().unwrap();
            for (dir, node, cluster) in *before {
                formatted(&root.path().join(dir), *node, *cluster);
            }
            match (Folders::open(&dirs(root.path(), dirs_of)), expected) {
                (Ok(folders), Ok(left_out)) => {
                    assert_eq!(folders.left_out, dirs(root.path(), left_out), "{name}");
                    assert_eq!(folders.serving.len() + left_out.len(), dirs_of.len(), "{name}");
                    let own = Identity { node: NodeId(5), cluster: Some(CLUSTER) };
                    assert!(folders.serving.iter().all(|folder| folder.identity() == own), "{name}");
                }
                (Err(error), Err(complaint)) => {
                    assert!(error.to_string().contains(complaint), "{name}: {error}");
                }
                (found, _) => panic!("{name}: {found:?}"),
            }
        }
    }

    #[test]
    fn a_damaged_folder_refuses_the_start_and_what_any_was_shown_counts() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path(), &["a", "b"]);
        let of =
            |(epoch, lsn, history)| Witness { epoch: Epoch(epoch), lsn: Lsn(lsn), history: Epoch(history) };
        for (name, shown, expected) in [
            ("turns in being broken, and a master that is behind", [(3, 10, 0), (2, 11, 0)], (3, 11, 0)),
            ("away when a loss was accepted", [(2, 11, 0), (3, 10, 3)], (3, 10, 3)),
            ("a crash between the two", [(3, 10, 3), (2, 11, 0)], (3, 10, 3)),
        ] {
            for (dir, shown) in dirs.iter().zip(shown) {
                Folder::open(dir, NodeId(5)).unwrap().set_witness(of(shown)).unwrap();
            }
            assert_eq!(Folders::open(&dirs).unwrap().witness, of(expected), "{name}");
        }
        for file in ["WITNESS", "VERSION"] {
            std::fs::write(dirs[1].join(file), "garbage").unwrap();
            let error = Folders::open(&dirs).unwrap_err().to_string();
            assert!(error.contains(file), "{error}");
        }
    }

    /// The lists are those of a simulated disk with the same paths: a real one does not fail on demand.
    #[tokio::test]
    async fn a_folder_that_cannot_be_listed_is_left_out() {
        let root = tempfile::tempdir().unwrap();
        let dirs = dirs(root.path(), &["a", "b"]);
        dirs.iter().for_each(|dir| formatted(dir, 5, 7));
        for (failing, left) in [(&["a"][..], Some("b")), (&["b"], Some("a")), (&["a", "b"], None)] {
            for (operation, place) in [(SimOperation::List, "chunks/80"), (SimOperation::List, "tmp")] {
                let world = SimWorld::new(1);
                for dir in &dirs {
                    world.create_dir_all(&dir.join("tmp"));
                    (0..256).for_each(|n| world.create_dir_all(&dir.join(format!("chunks/{n:02x}"))));
                }
                for name in failing {
                    world.faults().fail(operation, &format!("{name}/{place}"), u64::MAX);
                }
                let scanned = Folders::open(&dirs).unwrap().scan(&Body::Sim(world)).await;
                match (scanned, left) {
                    (Ok((folders, _)), Some(left)) => {
                        assert_eq!(folders.serving[0].root(), root.path().join(left));
                        assert_eq!(folders.left_out, [root.path().join(failing[0])]);
                    }
                    (Err(error), None) => assert!(error.to_string().contains("a/"), "{error}"),
                    (found, _) => panic!("{failing:?}: {found:?}"),
                }
            }
        }
    }
}
