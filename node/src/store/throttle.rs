//! One limit over the bytes of all uploads, which may be changed while they go.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{clock::Clock, policy::rate::Bucket};

/// Tells each upload when its next bytes may go.
#[derive(Debug)]
pub struct Throttle {
    bucket: Mutex<Bucket>,
    clock: Arc<dyn Clock>,
}

impl Throttle {
    /// Makes one without a limit.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { bucket: Mutex::default(), clock }
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limit, in bytes per second over all uploads; `None` ends it.
    pub fn set(&self, bytes_per_s: Option<u64>) {
        self.bucket().set(bytes_per_s, self.clock.tick());
    }

    /// Returns how many bytes go at a time; all of them without a limit.
    pub fn piece_bytes(&self) -> usize {
        self.bucket().piece_bytes().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX)
    }

    /// Reserves bytes, and returns how long to wait before they may go.
    pub fn reserve(&self, bytes: usize) -> Duration {
        self.bucket().reserve(bytes as u64, self.clock.tick())
    }
}
