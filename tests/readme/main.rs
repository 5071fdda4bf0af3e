//! The front door tells the truth: every path that the README names is there.

use std::path::Path;

/// Folders of the repository: what stands in backticks and begins with one of them is a path.
const ROOTS: &[&str] =
    &["src/", "proto/", "engine/", "master/", "datanode/", "client/", "tests/", "benches/", ".ci/"];

#[test]
fn every_path_in_the_readme_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(root.join("README.md")).expect("the README");
    let quoted = text.split('`').skip(1).step_by(2);
    let paths: Vec<&str> =
        quoted.filter(|quoted| ROOTS.iter().any(|folder| quoted.starts_with(folder))).collect();
    assert!(paths.len() > 20, "the table is read: {paths:?}");
    let missing: Vec<&&str> = paths.iter().filter(|path| !root.join(path).exists()).collect();
    assert!(missing.is_empty(), "README.md names what is not there: {missing:?}");
}
