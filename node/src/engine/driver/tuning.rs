//! The settings that apply to a sync as it runs.

use std::{sync::Arc, time::Duration};

use bubbaloop_storage_schemas::{RecordingName, limits::QUEUE_CHUNKS_MAX, reply::UploadWindow};
use tokio::sync::Semaphore;

use super::{Engine, State};
use crate::{
    config::LiveSettings,
    library::scan::Recording,
    policy::{Tick, queue::Limits},
};

/// Parts of large chunks on their way at once, over all of them: R2 refuses more.
const PARTS_AT_ONCE: usize = 4;

/// The longest time between two scans of recordings that are still being recorded.
const RESCAN_OPEN_MAX: Duration = Duration::from_secs(5);

/// The live settings as the engine follows them, and two limits that are no settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Tuning {
    /// The live settings.
    pub settings: LiveSettings,
    /// Chunks that the queue holds; the others are offered again later.
    pub queue_chunks_max: usize,
    /// The longest time between two scans of recordings that are still being recorded.
    pub rescan_open_max: Duration,
}

impl From<LiveSettings> for Tuning {
    fn from(settings: LiveSettings) -> Self {
        Self { settings, queue_chunks_max: QUEUE_CHUNKS_MAX, rescan_open_max: RESCAN_OPEN_MAX }
    }
}

impl Default for Tuning {
    fn default() -> Self {
        Self::from(LiveSettings::default())
    }
}

/// How often the running sync looks, and how long it may take to end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Timers {
    /// Between looks at recordings that go on.
    pub rescan_open: Duration,
    /// Between looks at the whole library.
    pub rescan_all: Duration,
    /// Between comparisons of all marks with the store.
    pub verify: Duration,
    /// For what is on its way when it ends.
    pub shutdown_grace: Duration,
}

impl Tuning {
    /// Returns the limits of the upload queue.
    pub(super) const fn limits(&self) -> Limits {
        let LiveSettings { concurrency, give_up_after, order, .. } = self.settings;
        Limits { concurrency, chunks_max: self.queue_chunks_max, give_up_after, order }
    }

    /// Returns how often the running engine does what it repeats.
    pub(super) fn timers(&self) -> Timers {
        let settings = &self.settings;
        Timers {
            rescan_open: settings.rescan_interval.min(self.rescan_open_max),
            rescan_all: settings.rescan_interval,
            verify: settings.verify_interval,
            shutdown_grace: settings.shutdown_grace,
        }
    }

    /// Returns how many parts may be on their way at once.
    pub(super) fn places(&self) -> usize {
        self.settings.concurrency.clamp(1, PARTS_AT_ONCE)
    }

    /// Returns how a recording's tags rank it: a lower one goes first.
    pub(super) fn rank(&self, recording: Option<&Recording>) -> u32 {
        let tags = recording.map(|recording| recording.tags.as_slice()).unwrap_or_default();
        let place = self.settings.priority_tags.iter().position(|tag| tags.contains(tag));
        u32::try_from(place.unwrap_or(self.settings.priority_tags.len())).unwrap_or(u32::MAX)
    }
}

impl State {
    /// Counts bytes that arrived and began to go at a tick.
    pub(super) fn note_sent(&mut self, bytes: u64, began: Tick, now: Tick) {
        if bytes > 0 {
            self.throughput.add_over(bytes, began, now);
        }
    }

    /// Takes in that bytes arrived, by which the link is known and how much may be on its way.
    pub(super) fn note_arrived(&mut self, bytes: u64, now: Tick) {
        self.pace.arrived(bytes, now);
        self.queue.set_room(Some(self.pace.room_bytes()));
    }

    /// Puts the queue into the order of the recordings' tags.
    fn rank(&mut self) {
        let Self { queue, recordings, tuning, .. } = self;
        queue.rank(|id| tuning.rank(recordings.get(&id.recording).map(Arc::as_ref)));
    }
}

impl Engine {
    /// Takes up other settings at once. What is on its way goes on.
    pub fn tune(&self, tuning: Tuning) {
        self.deps.throttle.set(tuning.settings.bandwidth_limit.map(|limit| limit.0));
        let mut guard = self.state();
        let state = &mut *guard;
        if state.tuning.places() != tuning.places() {
            // Parts that have a place keep it; the next ones are counted anew.
            state.places = Arc::new(Semaphore::new(tuning.places()));
        }
        state.queue.set_limits(tuning.limits());
        state.tuning = tuning;
        state.rank();
        let names: Vec<RecordingName> = state.recordings.keys().cloned().collect();
        for name in &names {
            self.offer_pending(state, name);
        }
        drop(guard);
        self.changed.notify_one();
    }

    /// Takes in that an upload ended, for which so many bytes arrived in one piece.
    pub(super) fn end_pace(&self, sent_bytes: u64) {
        let now = self.deps.clock.tick();
        let mut state = self.state();
        state.note_arrived(sent_bytes, now);
        state.pace.end(now);
    }

    pub(super) fn timers(&self) -> Timers {
        self.state().tuning.timers()
    }

    /// Returns how the hours stand in which uploads go by themselves; `None` where they go at all hours.
    pub fn window(&self) -> Option<UploadWindow> {
        let window = self.state().tuning.settings.upload_window?;
        let second = self.deps.clock.second_of_day();
        let (is_open, changes_in_s) = (window.holds(second), window.changes_in(second).as_secs());
        Some(UploadWindow { hours: window.to_string(), is_open, changes_in_s })
    }

    /// Tells the queue whether uploads may go at this hour, and returns when that changes.
    pub(super) fn apply_window(&self) -> Option<Tick> {
        let now = self.deps.clock.tick();
        let window = self.window();
        self.state().queue.set_window(window.as_ref().is_none_or(|window| window.is_open));
        window.map(|window| now.after(Duration::from_secs(window.changes_in_s)))
    }
}
