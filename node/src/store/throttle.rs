//! One limit over the bytes of all uploads, which may be changed while they go, and their rate.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use crate::{
    clock::Clock,
    policy::rate::{Bucket, Throughput},
};

/// Tells each upload when its next bytes may go, and counts them.
#[derive(Debug)]
pub struct Throttle {
    state: Mutex<State>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct State {
    bucket: Bucket,
    left: Throughput,
}

impl Throttle {
    /// Makes one without a limit.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { state: Mutex::default(), clock }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Changes the limit, in bytes per second over all uploads; `None` ends it.
    pub fn set(&self, bytes_per_s: Option<u64>) {
        self.state().bucket.set(bytes_per_s, self.clock.tick());
    }

    /// Returns how many bytes go at a time; all of them without a limit.
    pub fn piece_bytes(&self) -> usize {
        self.state().bucket.piece_bytes().and_then(|bytes| usize::try_from(bytes).ok()).unwrap_or(usize::MAX)
    }

    /// Reserves bytes, and returns how long to wait before they may go. They count as gone.
    pub fn reserve(&self, bytes: usize) -> Duration {
        let now = self.clock.tick();
        let mut state = self.state();
        state.left.add(bytes as u64, now);
        state.bucket.reserve(bytes as u64, now)
    }

    /// Returns how many bytes left for the store per second over the last minute. That they arrived is not known.
    pub fn bytes_per_s(&self) -> u64 {
        self.state().left.bytes_per_s(self.clock.tick())
    }
}
