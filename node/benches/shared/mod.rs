//! What the benchmarks share.

pub(crate) mod library;
pub(crate) mod measure;
pub(crate) mod node;
pub(crate) mod proxy;

/// Where uploads go.
pub(crate) const BUCKET: &str = "bench";

/// Where servers keep their objects if it is there: their disk is not what is measured.
pub(crate) const RAM_DISK: &str = "/dev/shm";
