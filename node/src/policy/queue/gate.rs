//! The one gate before all uploads: open, waiting after failures, or blocked by a fact.

use std::time::Duration;

use super::types::{Block, Next, ProbeFailure};
use crate::policy::{Tick, backoff};

/// Whether uploads may start.
#[derive(Debug, Clone, PartialEq, Eq)]
enum State {
    /// They may.
    Open,
    /// The store fails: one try at a time, not before `until`.
    Waiting { failures: u32, until: Tick },
    /// A fact stops them: one probe at a time, not before `probe_at`.
    Blocked { block: Block, probes: u32, probe_at: Tick, is_probing: bool },
}

/// The gate, and the count of its changes.
#[derive(Debug)]
pub(super) struct Gate {
    state: State,
    era: u64,
}

impl Gate {
    pub(super) const fn open() -> Self {
        Self { state: State::Open, era: 0 }
    }

    /// Returns a number that grows with each change of the gate.
    pub(super) const fn era(&self) -> u64 {
        self.era
    }

    /// Returns whether the store fails, so that one try at a time is allowed.
    pub(super) const fn is_waiting(&self) -> bool {
        matches!(self.state, State::Waiting { .. })
    }

    /// Returns whether requests may go out freely.
    pub(super) const fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    /// Returns how many failures in a row closed the gate; 0 if it is open or blocked.
    pub(super) const fn failures(&self) -> u32 {
        match &self.state {
            State::Waiting { failures, .. } => *failures,
            State::Open | State::Blocked { .. } => 0,
        }
    }

    /// Returns what the gate demands instead of an upload; `None` if an upload may start. `has_any` tells whether any chunk
    /// is in order.
    pub(super) fn demand(&mut self, has_any: bool, now: Tick) -> Option<Next> {
        match &mut self.state {
            State::Blocked { is_probing: true, .. } => Some(Next::Idle),
            State::Blocked { probe_at, .. } if now < *probe_at => Some(Next::WaitUntil(*probe_at)),
            State::Blocked { is_probing, .. } => {
                *is_probing = true;
                Some(Next::Probe)
            }
            State::Waiting { until, .. } if now < *until && has_any => Some(Next::WaitUntil(*until)),
            State::Open | State::Waiting { .. } => None,
        }
    }

    /// Notes that the store did what it was asked for.
    pub(super) fn succeeded(&mut self) {
        if self.is_waiting() {
            self.era += 1;
            self.state = State::Open;
        }
    }

    /// Notes a failure of the store; it may have said when to try again.
    pub(super) fn failed(&mut self, after: Option<Duration>, now: Tick, jitter: f64) {
        if matches!(self.state, State::Blocked { .. }) {
            return;
        }
        let failures = self.failures().saturating_add(1);
        let wait = backoff::delay(failures, jitter).max(after.unwrap_or_default());
        self.era += 1;
        self.state = State::Waiting { failures, until: now.after(wait) };
    }

    /// Notes that the link carried something: the next failure counts as the first one.
    pub(super) const fn reset_failures(&mut self) {
        if let State::Waiting { failures, .. } = &mut self.state {
            *failures = 0;
        }
    }

    /// Closes the gate because of a fact, until a probe finds that it has ended. Returns whether the fact is new.
    pub(super) fn block(&mut self, block: Block, now: Tick) -> bool {
        if self.blocked() == Some(&block) {
            return false;
        }
        self.era += 1;
        self.state = State::Blocked { block, probes: 0, probe_at: probe_at(0, now), is_probing: false };
        true
    }

    /// Notes the result of a probe. Without an answer the fact is assumed to last.
    pub(super) fn probed(&mut self, found: Result<(), ProbeFailure>, now: Tick) {
        let State::Blocked { block, probes, probe_at: at, is_probing } = &mut self.state else { return };
        let Err(failure) = found else {
            self.era += 1;
            self.state = State::Open;
            return;
        };
        let after = match failure {
            ProbeFailure::Blocked(found) => {
                *block = found;
                None
            }
            ProbeFailure::Unanswered { after } => after,
        };
        *probes = probes.saturating_add(1);
        *at = probe_at(*probes, now).max(now.after(after.unwrap_or_default()));
        *is_probing = false;
    }

    /// Returns the fact that stops uploads, if one does.
    pub(super) const fn blocked(&self) -> Option<&Block> {
        match &self.state {
            State::Blocked { block, .. } => Some(block),
            State::Open | State::Waiting { .. } => None,
        }
    }

    /// Returns the earliest time of a request; `None` while a fact stops them.
    pub(super) fn opens_at(&self) -> Option<Tick> {
        match &self.state {
            State::Open => Some(Tick::default()),
            State::Waiting { until, .. } => Some(*until),
            State::Blocked { .. } => None,
        }
    }

    /// Returns the time of the next probe while a fact stops uploads.
    pub(super) const fn probe_at(&self) -> Option<Tick> {
        match &self.state {
            State::Blocked { probe_at, .. } => Some(*probe_at),
            State::Open | State::Waiting { .. } => None,
        }
    }
}

/// A probe costs little, so the first ones come sooner than the 60 seconds between later ones.
fn probe_at(probes: u32, now: Tick) -> Tick {
    now.after(backoff::delay(probes.saturating_add(2), 1.0))
}
