//! A person's word that uploads stop: it outlives a restart, and ends by another word or at its time.

use std::{io, sync::Arc, time::Duration};

use bubbaloop_storage_schemas::{event::Fact, reply::Paused};
use tokio::task::JoinSet;

use super::Engine;
use crate::{library::state::NodeState, policy::Tick};

/// How far the wall clock may be off from what a pause's end was reckoned by before that is reckoned anew.
const DRIFT_MAX_NS: u64 = 2_000_000_000;

/// A pause, and the tick at which it ends: a wall clock that jumps makes it neither longer nor shorter.
#[derive(Debug, Clone)]
pub(super) struct Pause {
    told: Paused,
    ends_at: Option<Tick>,
    /// The clock is behind the time at which it began, as at the start of a machine that has none of its own: what is left
    /// of it is known when the clock is set.
    is_unsure: bool,
}

/// Longest pause with an end: a later time is of no use to anybody's calendar.
const PAUSE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Engine {
    /// Stops uploads until somebody resumes them, or for a time. What is on its way ends, a large chunk with the parts that
    /// are. Said again it counts anew.
    ///
    /// # Errors
    /// It can't be written down: uploads are stopped all the same, until a restart.
    pub fn pause(&self, lasts: Option<Duration>) -> io::Result<Paused> {
        let since_ns = self.deps.clock.wall();
        let nanos = |lasts: Duration| u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX);
        let lasts = lasts.map(|lasts| lasts.min(PAUSE_MAX));
        let paused = Paused { since_ns, until_ns: lasts.map(|lasts| since_ns.saturating_add(nanos(lasts))) };
        let ends_at = lasts.map(|lasts| self.deps.clock.tick().after(lasts));
        self.state().paused = Some(Pause { told: paused.clone(), ends_at, is_unsure: false });
        self.deps.facts.emit(Fact::Paused { until_ns: paused.until_ns });
        self.changed.notify_one();
        NodeState::update(&self.deps.state, |state| state.paused = Some(paused.clone()))?;
        Ok(paused)
    }

    /// Lets uploads go on. It is no error if they do.
    ///
    /// # Errors
    /// It can't be written down: uploads go on all the same, until a restart.
    pub fn resume(&self) -> io::Result<()> {
        if self.state().paused.take().is_some() {
            self.deps.facts.emit(Fact::Resumed {});
        }
        self.changed.notify_one();
        NodeState::update(&self.deps.state, |state| state.paused = None)
    }

    /// Returns how uploads are paused, if they are.
    pub fn paused(&self) -> Option<Paused> {
        let now = self.deps.clock.tick();
        let state = self.state();
        state
            .paused
            .as_ref()
            .filter(|paused| paused.ends_at.is_none_or(|tick| now < tick))
            .map(|found| found.told.clone())
    }

    /// Takes in what an earlier run was told. A clock that was set back meanwhile makes a pause no longer than it was.
    pub fn restore_pause(&self) {
        let Some(told) = NodeState::load(&self.deps.state).paused else { return };
        let (now, now_ns) = (self.deps.clock.tick(), self.deps.clock.wall());
        let left = |until_ns: u64| {
            let whole_ns = until_ns.saturating_sub(told.since_ns);
            Duration::from_nanos(until_ns.saturating_sub(now_ns).min(whole_ns))
        };
        let ends_at = told.until_ns.map(|until_ns| now.after(left(until_ns)));
        let is_unsure = now_ns < told.since_ns;
        self.state().paused = Some(Pause { told, ends_at, is_unsure });
    }

    /// Reckons anew at which wall time a pause ends, where the clock was set: so it is told, and so a restart knows it.
    ///
    /// It blocks.
    pub fn follow_clock(&self) {
        if let Some((before, told)) = self.reckon() {
            self.rewrite(&before, Some(told));
        }
    }

    /// Reckons anew at which wall time a pause ends, and returns how it was told before and is now, where that changes.
    fn reckon(&self) -> Option<(Paused, Paused)> {
        let (now, now_ns) = (self.deps.clock.tick(), self.deps.clock.wall());
        let mut state = self.state();
        let Some(Pause { told, ends_at: Some(ends_at), is_unsure }) = &mut state.paused else { return None };
        let until_ns = told.until_ns?;
        if *is_unsure {
            if now_ns >= told.since_ns {
                *is_unsure = false;
                *ends_at = now.after(Duration::from_nanos(until_ns.saturating_sub(now_ns)));
            }
            return None;
        }
        let left_ns = u64::try_from(ends_at.since(now).as_nanos()).unwrap_or(u64::MAX);
        let ends_at_ns = now_ns.saturating_add(left_ns);
        if ends_at_ns.abs_diff(until_ns) <= DRIFT_MAX_NS {
            return None;
        }
        // It began as long ago as before.
        let lasts_ns = until_ns.saturating_sub(told.since_ns);
        let anew = Paused { since_ns: ends_at_ns.saturating_sub(lasts_ns), until_ns: Some(ends_at_ns) };
        Some((std::mem::replace(told, anew.clone()), anew))
    }

    /// Writes down how a pause goes on, or that it has ended. Somebody may have resumed meanwhile, or paused anew: that word
    /// stands.
    fn rewrite(&self, before: &Paused, now: Option<Paused>) {
        let change = |state: &mut NodeState| {
            if state.paused.as_ref() == Some(before) {
                state.paused = now;
            }
        };
        if let Err(error) = NodeState::update(&self.deps.state, change) {
            tracing::warn!(%error, "when the pause ends can't be written down");
        }
    }

    /// Returns until when nothing is started; `None` where things are. A pause whose time is over ends here.
    pub(super) fn pause_until(self: &Arc<Self>, tasks: &mut JoinSet<()>) -> Option<Tick> {
        // A pause without an end is looked at again when somebody resumes.
        const LONG: Duration = Duration::from_secs(3600);
        let mut rewrite = |before, told| {
            let engine = Arc::clone(self);
            tasks.spawn_blocking(move || engine.rewrite(&before, told));
        };
        if let Some((before, told)) = self.reckon() {
            rewrite(before, Some(told));
        }
        let now = self.deps.clock.tick();
        let has_ended = |paused: &mut Pause| paused.ends_at.is_some_and(|tick| tick <= now);
        let ended = self.state().paused.take_if(has_ended);
        if let Some(Pause { told, .. }) = ended {
            self.deps.facts.emit(Fact::Resumed {});
            rewrite(told, None);
            return None;
        }
        let ends_at = self.state().paused.as_ref()?.ends_at;
        let longest = now.after(LONG);
        Some(ends_at.map_or(longest, |tick| tick.min(longest)))
    }
}
