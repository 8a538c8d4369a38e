//! A person's word that uploads stop: it outlives a restart, and ends by another word or at its time.

use std::{io, time::Duration};

use bubbaloop_storage_schemas::{event::Fact, reply::Paused};

use super::Sync;
use crate::{library::state::NodeState, policy::Tick};

/// Longest pause with an end: a later time is of no use to anybody's calendar.
const PAUSE_MAX: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

impl Sync {
    /// Stops uploads until somebody resumes them, or for a time. What is on its way ends. Said again it counts anew.
    ///
    /// # Errors
    /// It can't be written down: uploads are stopped all the same, until a restart.
    pub fn pause(&self, lasts: Option<Duration>) -> io::Result<Paused> {
        let since_ns = self.parts.clock.wall();
        let nanos = |lasts: Duration| u64::try_from(lasts.as_nanos()).unwrap_or(u64::MAX);
        let lasts = lasts.map(|lasts| lasts.min(PAUSE_MAX));
        let paused = Paused { since_ns, until_ns: lasts.map(|lasts| since_ns.saturating_add(nanos(lasts))) };
        self.state().paused = Some(paused.clone());
        self.parts.facts.tell(Fact::Paused { until_ns: paused.until_ns });
        self.changed.notify_one();
        NodeState::update(&self.parts.state, |state| state.paused = Some(paused.clone()))?;
        Ok(paused)
    }

    /// Lets uploads go on. It is no error if they do.
    ///
    /// # Errors
    /// It can't be written down: uploads go on all the same, until a restart.
    pub fn resume(&self) -> io::Result<()> {
        if self.state().paused.take().is_some() {
            self.parts.facts.tell(Fact::Resumed {});
        }
        self.changed.notify_one();
        NodeState::update(&self.parts.state, |state| state.paused = None)
    }

    /// Returns how uploads are paused, if they are.
    pub fn paused(&self) -> Option<Paused> {
        let now_ns = self.parts.clock.wall();
        self.state().paused.clone().filter(|paused| paused.until_ns.is_none_or(|until_ns| now_ns < until_ns))
    }

    /// Takes in what an earlier run was told.
    pub(super) fn restore_pause(&self) {
        self.state().paused = NodeState::load(&self.parts.state).paused;
    }

    /// Returns until when nothing is started; `None` where things are. A pause whose time is over ends here.
    pub(super) fn pause_until(&self) -> Option<Tick> {
        // A pause without an end is looked at again when somebody resumes.
        const LONG: Duration = Duration::from_secs(3600);
        let now_ns = self.parts.clock.wall();
        let until_ns = self.state().paused.as_ref()?.until_ns;
        if until_ns.is_some_and(|until_ns| until_ns <= now_ns) {
            if let Err(error) = self.resume() {
                tracing::warn!(%error, "the end of the pause can't be written down");
            }
            return None;
        }
        let left = until_ns.map_or(LONG, |until_ns| Duration::from_nanos(until_ns - now_ns).min(LONG));
        Some(self.parts.clock.tick().after(left))
    }
}
