//! The write-ahead log of the master, with group commit.
