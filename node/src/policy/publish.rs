//! When a recording's remote manifest is written.
//!
//! An ended recording's is written as soon as nothing of it waits. One that goes on gets it at most once a minute,
//! the first time moments after its first chunks are there.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use bubbaloop_storage_schemas::RecordingName;

use super::{Tick, backoff};

/// The shortest time between two writes for a recording that goes on or of which chunks still wait.
const INTERVAL: Duration = Duration::from_secs(60);

/// How long nothing may have changed before the first write: chunks that come together are written together.
const SETTLING: Duration = Duration::from_secs(2);

/// Manifests that are written at once.
const WRITING_MAX: usize = 4;

/// How a recording stands when its manifest may be due.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ManifestState {
    /// Nothing will be added to it.
    pub has_ended: bool,
    /// None of its chunks waits or is on its way.
    pub is_quiet: bool,
}

#[derive(Debug, Clone, Copy)]
struct Want {
    since: Tick,
    changed: Tick,
    /// A failed write is not repeated before this.
    not_before: Tick,
    failures: u32,
    look_at: Tick,
}

/// The state machine. It is a cache: a scan finds again whose manifest differs.
#[derive(Debug, Default)]
pub struct Publisher {
    wants: BTreeMap<RecordingName, Want>,
    order: BTreeSet<(Tick, RecordingName)>,
    writing: BTreeMap<RecordingName, Want>,
    written: BTreeMap<RecordingName, Tick>,
}

impl Publisher {
    /// Tells that a recording's remote manifest is to say something else.
    pub fn want(&mut self, name: &RecordingName, now: Tick) {
        let earlier = self.take(name);
        let want = Want {
            since: earlier.map_or(now, |earlier| earlier.since),
            changed: now,
            not_before: earlier.map_or(now, |earlier| earlier.not_before),
            failures: earlier.map_or(0, |earlier| earlier.failures),
            look_at: now,
        };
        self.put(name.clone(), want);
    }

    /// Takes a recording whose manifest is due now; report with [`Publisher::finish`].
    pub fn next(&mut self, now: Tick, standing: impl Fn(&RecordingName) -> ManifestState) -> Option<RecordingName> {
        while self.writing.len() < WRITING_MAX {
            let (look_at, name) = self.order.first().cloned()?;
            if look_at > now {
                return None;
            }
            let mut want = self.take(&name)?;
            let due_at = self.due_at(&name, want, standing(&name));
            if due_at <= now && !self.writing.contains_key(&name) {
                self.writing.insert(name.clone(), want);
                return Some(name);
            }
            want.look_at = due_at.max(now.after(SETTLING));
            self.put(name, want);
        }
        None
    }

    fn due_at(&self, name: &RecordingName, want: Want, standing: ManifestState) -> Tick {
        let at = match (self.written.get(name), standing) {
            (_, ManifestState { has_ended: true, is_quiet: true }) => want.changed,
            (Some(written), _) => written.after(INTERVAL).max(want.changed.after(SETTLING)),
            (None, ManifestState { is_quiet: true, .. }) => want.changed.after(SETTLING),
            (None, ManifestState { is_quiet: false, .. }) => want.since.after(INTERVAL),
        };
        at.max(want.not_before)
    }

    /// Tells how a write ended; a failed one is repeated, ever later.
    pub fn finish(&mut self, name: &RecordingName, is_written: bool, now: Tick, jitter: f64) {
        let Some(tried) = self.writing.remove(name) else { return };
        if is_written {
            self.written.insert(name.clone(), now);
            return;
        }
        let changed = self.take(name).map_or(tried.changed, |newer| newer.changed);
        let failures = tried.failures.saturating_add(1);
        let not_before = now.after(backoff::delay(failures.saturating_add(1), jitter));
        self.put(name.clone(), Want { changed, not_before, failures, look_at: not_before, ..tried });
    }

    /// Forgets a recording that is gone.
    pub fn forget(&mut self, name: &RecordingName) {
        self.take(name);
        self.written.remove(name);
    }

    /// Returns when to ask again; `None` while nothing is wanted.
    pub fn next_look_at(&self) -> Option<Tick> {
        if self.writing.len() >= WRITING_MAX {
            return None;
        }
        self.order.first().map(|(tick, _)| *tick)
    }

    /// Tells whether a recording's manifest is being written.
    pub fn is_writing(&self, name: &RecordingName) -> bool {
        self.writing.contains_key(name)
    }

    /// Tells how often the writing of a recording's manifest has failed; `None` where none is wanted or being written.
    pub fn failures(&self, name: &RecordingName) -> Option<u32> {
        let want = self.wants.get(name).or_else(|| self.writing.get(name))?;
        Some(want.failures)
    }

    /// Tells whether nothing is wanted or being written.
    pub fn is_idle(&self) -> bool {
        self.wants.is_empty() && self.writing.is_empty()
    }

    fn take(&mut self, name: &RecordingName) -> Option<Want> {
        let want = self.wants.remove(name)?;
        self.order.remove(&(want.look_at, name.clone()));
        Some(want)
    }

    fn put(&mut self, name: RecordingName, want: Want) {
        self.order.insert((want.look_at, name.clone()));
        self.wants.insert(name, want);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOING_ON: ManifestState = ManifestState { has_ended: false, is_quiet: true };
    const BUSY: ManifestState = ManifestState { has_ended: false, is_quiet: false };
    const ENDED: ManifestState = ManifestState { has_ended: true, is_quiet: true };

    fn name() -> RecordingName {
        "drive".parse().unwrap()
    }

    fn at(seconds: u64) -> Tick {
        Tick(Duration::from_secs(seconds))
    }

    /// The first second from `from` on in which the manifest is due.
    fn due(publisher: &mut Publisher, from: u64, standing: ManifestState) -> Option<u64> {
        (from..from + 200).find(|&second| publisher.next(at(second), |_| standing).is_some())
    }

    #[test]
    fn an_ended_recording_is_written_as_soon_as_nothing_waits() {
        let mut publisher = Publisher::default();
        publisher.want(&name(), at(10));
        assert_eq!(due(&mut publisher, 10, ENDED), Some(10));
        publisher.finish(&name(), true, at(10), 1.0);
        publisher.want(&name(), at(11));
        assert_eq!(due(&mut publisher, 11, ENDED), Some(11), "once more when the last chunk is there");
    }

    #[test]
    fn a_recording_that_goes_on_is_written_once_a_minute() {
        let mut publisher = Publisher::default();
        publisher.want(&name(), at(0));
        let first = due(&mut publisher, 0, GOING_ON).unwrap();
        assert_eq!(first, 2);
        publisher.finish(&name(), true, at(first), 1.0);
        let mut written = 0;
        for second in first..first + 300 {
            publisher.want(&name(), at(second));
            if publisher.next(at(second), |_| GOING_ON).is_some() {
                publisher.finish(&name(), true, at(second), 1.0);
                written += 1;
            }
        }
        assert!(written <= 5, "{written} in five minutes");
    }

    #[test]
    fn a_recording_whose_chunks_still_wait_is_written_after_a_minute() {
        let mut publisher = Publisher::default();
        for second in 0..30 {
            publisher.want(&name(), at(second));
        }
        assert_eq!(due(&mut publisher, 30, BUSY), Some(60));
    }

    #[test]
    fn changes_during_a_write_are_written_after_it_and_never_beside_it() {
        let mut publisher = Publisher::default();
        publisher.want(&name(), at(0));
        assert_eq!(due(&mut publisher, 0, ENDED), Some(0));
        publisher.want(&name(), at(1));
        assert_eq!(due(&mut publisher, 1, ENDED), None, "one write of a recording at a time");
        publisher.finish(&name(), true, at(201), 1.0);
        assert!(due(&mut publisher, 201, ENDED).is_some());
        publisher.finish(&name(), true, at(203), 1.0);
        assert!(publisher.is_idle());
    }

    #[test]
    fn a_failed_write_is_repeated_ever_later() {
        let mut publisher = Publisher::default();
        publisher.want(&name(), at(0));
        let (mut now, mut waits) = (due(&mut publisher, 0, ENDED).unwrap(), Vec::new());
        for _ in 0..6 {
            publisher.finish(&name(), false, at(now), 1.0);
            let next = due(&mut publisher, now, ENDED).unwrap();
            waits.push(next - now);
            now = next;
        }
        assert_eq!(waits, [5, 10, 20, 40, 60, 60]);
        assert_eq!(publisher.failures(&name()), Some(6));
        publisher.finish(&name(), true, at(now), 1.0);
        assert_eq!(publisher.failures(&name()), None);
    }

    #[test]
    fn a_recording_that_is_gone_is_forgotten() {
        let mut publisher = Publisher::default();
        publisher.want(&name(), at(0));
        publisher.forget(&name());
        assert!(publisher.is_idle() && publisher.next_look_at().is_none());
    }
}
