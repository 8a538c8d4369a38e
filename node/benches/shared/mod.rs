//! Shared parts of the benchmarks.

pub(crate) mod library;
pub(crate) mod measure;
pub(crate) mod node;
pub(crate) mod proxy;

/// Name of the bucket.
pub(crate) const BUCKET: &str = "bench";

/// Folder for the servers' objects if it exists: their disk is not measured.
pub(crate) const RAM_DISK: &str = "/dev/shm";
