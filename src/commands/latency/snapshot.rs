//! The histograms of all nodes at one time. Pure.

use hdrhistogram::Histogram;
use hdrhistogram::serialization::Deserializer;

/// How the sum of all nodes is called.
pub(super) const ALL: &str = "all";

/// One stage on one node.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Cell {
    pub(super) stage: String,
    pub(super) node: String,
    /// In microseconds.
    pub(super) histogram: Histogram<u64>,
}

/// Stages of nodes, those of one node in the order of an operation's way.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Snapshot {
    pub(super) cells: Vec<Cell>,
}

impl Snapshot {
    /// Adds a stage of a node as it came.
    ///
    /// # Errors
    /// What is wrong with it.
    pub(super) fn add(&mut self, node: &str, stage: &str, v2: &[u8]) -> Result<(), String> {
        let read = Deserializer::new().deserialize(&mut &v2[..]);
        let histogram = read.map_err(|error| format!("{node}: the histogram of {stage}: {error}"))?;
        self.cells.push(Cell { stage: stage.to_owned(), node: node.to_owned(), histogram });
        Ok(())
    }

    /// The names of the stages, each once.
    pub(super) fn stages(&self) -> Vec<&str> {
        let mut names: Vec<&str> = Vec::new();
        for cell in &self.cells {
            if !names.contains(&cell.stage.as_str()) {
                names.push(&cell.stage);
            }
        }
        names
    }

    /// A stage on the nodes that have it.
    pub(super) fn of_stage<'a>(&'a self, stage: &'a str) -> impl Iterator<Item = &'a Cell> {
        self.cells.iter().filter(move |cell| cell.stage == stage)
    }

    /// A stage on all nodes together.
    pub(super) fn merged(&self, stage: &str) -> Histogram<u64> {
        let mut cells = self.of_stage(stage);
        let mut sum = cells.next().map_or_else(empty, |cell| cell.histogram.clone());
        for cell in cells {
            // Resized where a node of another version has a wider range; then nothing is out of range.
            sum.auto(true);
            let _ = sum.add(&cell.histogram);
        }
        sum
    }

    /// Only stages with these names, or of the operations of these names; all where there is no name.
    ///
    /// # Errors
    /// A name that is none.
    pub(super) fn only(self, names: &[String]) -> Result<Self, String> {
        let matches = |name: &String, stage: &str| {
            stage == name || stage.strip_prefix(name.as_str()).is_some_and(|rest| rest.starts_with('.'))
        };
        for name in names {
            if !self.cells.is_empty() && !self.cells.iter().any(|cell| matches(name, &cell.stage)) {
                return Err(format!("--stage {name}: there are {}", self.stages().join(", ")));
            }
        }
        let wanted = |cell: &Cell| names.is_empty() || names.iter().any(|name| matches(name, &cell.stage));
        Ok(Self { cells: self.cells.into_iter().filter(wanted).collect() })
    }

    /// What came since an earlier one. A node that was started again since has counted from zero.
    pub(super) fn since(&self, before: &Self) -> Self {
        let mut now = self.clone();
        for cell in &mut now.cells {
            let same = |other: &&Cell| other.node == cell.node && other.stage == cell.stage;
            let Some(earlier) = before.cells.iter().find(same) else { continue };
            let mut difference = cell.histogram.clone();
            if difference.subtract(&earlier.histogram).is_ok() {
                cell.histogram = difference;
            }
        }
        now
    }
}

fn empty() -> Histogram<u64> {
    Histogram::new(2).expect("two digits are allowed")
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) fn cell(stage: &str, node: &str, values: &[u64]) -> Cell {
        let mut histogram = Histogram::new_with_bounds(1, (1 << 26) - 1, 2).unwrap();
        values.iter().for_each(|&value| histogram.record(value).unwrap());
        Cell { stage: stage.into(), node: node.into(), histogram }
    }

    #[test]
    fn nodes_are_merged_and_stages_chosen() {
        let cells = vec![
            cell("write.sync", "1", &[5]),
            cell("write.crc", "1", &[1]),
            cell("write.sync", "2", &[7, 9]),
        ];
        let snapshot = Snapshot { cells };
        assert_eq!(snapshot.stages(), ["write.sync", "write.crc"]);
        let merged = snapshot.merged("write.sync");
        assert_eq!((merged.len(), merged.min(), merged.max()), (3, 5, 9));
        let only = |name: &str| snapshot.clone().only(&[name.to_owned()]).map(|it| it.cells.len());
        assert_eq!((only("write"), only("write.crc")), (Ok(3), Ok(1)));
        assert!(only("writ").is_err() && only("read").is_err());
    }

    #[test]
    fn a_difference_is_what_came_since() {
        let at = |values: &[u64]| Snapshot { cells: vec![cell("read.disk", "1", values)] };
        assert_eq!(at(&[3, 4, 5]).since(&at(&[3, 4])).merged("read.disk").len(), 1);
        // Started again: it has forgotten.
        assert_eq!(at(&[9]).since(&at(&[3, 4])).merged("read.disk").len(), 1);
        assert_eq!(at(&[9]).since(&Snapshot::default()), at(&[9]));
    }
}
