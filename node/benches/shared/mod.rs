//! What the benchmarks share.

pub mod library;
pub mod measure;
pub mod node;
pub mod proxy;

/// Where uploads go.
pub const BUCKET: &str = "bench";

/// Where servers keep their objects if it is there: their disk is not what is measured.
pub const RAM_DISK: &str = "/dev/shm";
