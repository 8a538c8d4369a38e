//! Finalize events that arrive before their files: when to look for the files, and when to give up.

use std::{collections::VecDeque, time::Duration};

use bubbaloop_storage_schemas::limits::{EARLY_EVENT_GRACE, EARLY_EVENTS_MAX};

use super::Tick;

/// Between two looks for the files.
pub const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The next step of whoever takes in events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    /// Look for the files now, before any further event.
    Look,
    /// Wait for an event, at most this long.
    WaitFor(Duration),
    /// Wait for an event.
    Wait,
}

/// An event whose file was not there yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Early<T> {
    /// The event.
    pub event: T,
    /// Until when it may be early. After that its file is missing.
    until: Tick,
}

impl<T> Early<T> {
    /// Returns whether the file may still come.
    pub fn may_still_come(&self, now: Tick) -> bool {
        now < self.until
    }
}

/// The events that arrived before their files.
///
/// The looks for the files have a fixed schedule. It does not depend on other events: on a busy bus there is always a
/// next one.
#[derive(Debug)]
pub struct EarlyEvents<T> {
    waiting: VecDeque<Early<T>>,
    next_look: Tick,
}

impl<T> Default for EarlyEvents<T> {
    fn default() -> Self {
        Self { waiting: VecDeque::new(), next_look: Tick::default() }
    }
}

impl<T> EarlyEvents<T> {
    /// Adds an event. Returns the oldest one if there are too many: it is given up.
    pub fn add(&mut self, event: T, now: Tick) -> Option<T> {
        if self.waiting.is_empty() {
            self.next_look = now.after(LOOK_EVERY);
        }
        self.waiting.push_back(Early { event, until: now.after(EARLY_EVENT_GRACE) });
        (self.waiting.len() > EARLY_EVENTS_MAX).then(|| self.waiting.pop_front()).flatten().map(|early| early.event)
    }

    /// Returns what to do next.
    pub fn step(&self, now: Tick) -> Step {
        if self.waiting.is_empty() {
            return Step::Wait;
        }
        match self.next_look.since(now) {
            Duration::ZERO => Step::Look,
            left => Step::WaitFor(left),
        }
    }

    /// Begins a look: takes all events out.
    pub fn begin_look(&mut self) -> VecDeque<Early<T>> {
        std::mem::take(&mut self.waiting)
    }

    /// Ends a look: puts the events back whose files are still missing.
    pub fn end_look(&mut self, still_missing: VecDeque<Early<T>>, now: Tick) {
        self.waiting = still_missing;
        self.next_look = now.after(LOOK_EVERY);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(millis: u64) -> Tick {
        Tick(Duration::from_millis(millis))
    }

    #[test]
    fn a_busy_bus_does_not_delay_the_looks() {
        let mut early = EarlyEvents::default();
        early.add(0, at(0));
        let mut looks = Vec::new();
        // Every 10 ms another event arrives, also one that is early.
        for millis in (0..1000).step_by(10) {
            if early.step(at(millis)) == Step::Look {
                looks.push(millis);
                let waiting = early.begin_look();
                early.end_look(waiting, at(millis));
            }
            early.add(1, at(millis));
        }
        assert_eq!(looks, [100, 200, 300, 400, 500, 600, 700, 800, 900]);
    }

    #[test]
    fn without_early_events_only_an_event_is_waited_for() {
        let mut early = EarlyEvents::default();
        assert_eq!(early.step(at(0)), Step::Wait);
        assert_eq!(early.add('a', at(500)), None);
        assert_eq!(early.step(at(520)), Step::WaitFor(Duration::from_millis(80)));
        assert_eq!(early.step(at(700)), Step::Look);
        let looked = early.begin_look();
        assert!(looked[0].may_still_come(at(10_499)) && !looked[0].may_still_come(at(10_500)));
        early.end_look(VecDeque::new(), at(700));
        assert_eq!(early.step(at(701)), Step::Wait);
    }

    #[test]
    fn the_oldest_of_too_many_is_given_up() {
        let mut early = EarlyEvents::default();
        for number in 0..EARLY_EVENTS_MAX {
            assert_eq!(early.add(number, at(0)), None);
        }
        assert_eq!(early.add(EARLY_EVENTS_MAX, at(1)), Some(0));
        assert_eq!(early.begin_look().len(), EARLY_EVENTS_MAX);
    }
}
