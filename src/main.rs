//! DistriFS.
fn main() {}
