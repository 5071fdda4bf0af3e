//! The chunk store of a datanode's data folder.
