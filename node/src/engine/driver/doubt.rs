//! NeedsVerification: a fact was met that may mean that what was proven is not there any more.
//!
//! Nothing is safe then until marks and store were compared. A new run, and a change of settings, know of it: most of what
//! mends such a fact comes with one.

use std::sync::Arc;

use tokio::task::JoinSet;

use super::{Deps, Engine};
use crate::library::state::NodeState;

/// Whether marks and store must be compared.
#[derive(Debug, Default)]
pub(super) struct NeedsVerification {
    /// How often it arose since they were compared.
    count: u64,
    /// A later run knows of it.
    is_written: bool,
}

impl NeedsVerification {
    /// Returns what an earlier run left open.
    pub(super) fn of(parts: &Deps) -> Self {
        let is_open = NodeState::load(&parts.state).doubted.contains(&parts.store_id);
        Self { count: is_open.into(), is_written: is_open }
    }

    /// Takes in that it arose.
    pub(super) const fn arises(&mut self) {
        self.count = self.count.saturating_add(1);
    }
}

impl Engine {
    /// Tells whether marks and store must be compared before anything may be called safe.
    pub fn is_in_doubt(&self) -> bool {
        self.doubt_count() > 0
    }

    /// Returns how often doubt arose since marks and store were compared.
    pub(super) fn doubt_count(&self) -> u64 {
        self.state().doubt.count
    }

    /// Ends the doubt that a comparison began with. What arose meanwhile is not answered by it.
    pub(super) fn settle_doubt(&self, begun_with: u64) {
        let mut state = self.state();
        if state.doubt.count == begun_with {
            state.doubt = NeedsVerification::default();
        }
    }

    /// Takes into what is remembered whether there is doubt.
    pub(super) fn note_doubt(&self, remembered: &mut NodeState) {
        if self.is_in_doubt() {
            remembered.doubted.insert(self.deps.store_id.clone());
        } else {
            remembered.doubted.remove(&self.deps.store_id);
        }
    }

    /// Writes down that there is doubt, where it is not yet.
    pub(super) fn save_doubt_later(self: &Arc<Self>, tasks: &mut JoinSet<()>) {
        let mut state = self.state();
        if state.doubt.count == 0 || std::mem::replace(&mut state.doubt.is_written, true) {
            return;
        }
        drop(state);
        let engine = Arc::clone(self);
        tasks.spawn_blocking(move || {
            if let Err(error) = NodeState::update(&engine.deps.state, |state| engine.note_doubt(state)) {
                tracing::warn!(%error, "it can't be written down that marks and store must be compared");
            }
        });
    }
}
