//! What changed, told to whoever listens: each fact once, in order, with its number in this run.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use bubbaloop_storage_schemas::{
    UnixNs,
    event::{EventHead, Fact, StorageEvent},
    limits::FACTS_BUFFERED_MAX,
};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{clock::Clock, library::identity::Identity};

/// One run of the node's process. It outlives the components, which are rebuilt when settings change.
#[derive(Debug)]
pub struct Run {
    boot_id: String,
    started_at_ns: UnixNs,
    /// Held while a fact is told, so that numbers rise in the order of telling.
    told: Mutex<Told>,
    listeners: broadcast::Sender<StorageEvent>,
}

impl Run {
    /// Begins a run now.
    pub fn begin(clock: &dyn Clock) -> Self {
        let boot_id = Uuid::new_v4().simple().to_string();
        let (listeners, _) = broadcast::channel(FACTS_BUFFERED_MAX);
        Self { boot_id, started_at_ns: clock.wall(), told: Mutex::default(), listeners }
    }
}

/// What was told in this run.
#[derive(Debug, Default)]
struct Told {
    seq: u64,
    kinds: BTreeSet<&'static str>,
}

/// Tells what changed in one library. Telling never waits: a listener that is too slow misses facts and learns how many.
#[derive(Debug)]
pub struct Events {
    run: Arc<Run>,
    identity: Identity,
    clock: Arc<dyn Clock>,
}

impl Events {
    /// Tells the facts of a library in a run. Numbers go on where an earlier one of the run ended.
    pub const fn new(run: Arc<Run>, identity: Identity, clock: Arc<dyn Clock>) -> Self {
        Self { run, identity, clock }
    }

    /// Returns when the run began.
    pub fn started_at_ns(&self) -> UnixNs {
        self.run.started_at_ns
    }

    /// Returns the library that the facts are about.
    pub fn library_id(&self) -> &str {
        &self.identity.library_id
    }

    /// Tells one fact.
    pub fn emit(&self, fact: Fact) {
        let mut told = self.run.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.seq += 1;
        told.kinds.insert(fact.kind());
        let head = EventHead {
            library_id: self.identity.library_id.clone(),
            boot_id: self.run.boot_id.clone(),
            seq: told.seq,
            at_ns: self.clock.wall(),
        };
        // Nobody listening is no error.
        self.run.listeners.send(StorageEvent { head, machine_id: self.identity.machine_id.clone(), fact }).ok();
    }

    /// Tells whether a fact of this kind was told in this run.
    pub fn has_told(&self, kind: &str) -> bool {
        self.run.told.lock().unwrap_or_else(PoisonError::into_inner).kinds.contains(kind)
    }

    /// Listens from now on.
    pub fn listen(&self) -> broadcast::Receiver<StorageEvent> {
        self.run.listeners.subscribe()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemClock;

    #[test]
    fn a_run_keeps_its_id_start_and_numbers_when_the_components_are_rebuilt() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
        let run = Arc::new(Run::begin(&*clock));
        let identity = || Identity { machine_id: "robot_1".parse().unwrap(), library_id: "l".into() };
        let rebuilt = || Events::new(Arc::clone(&run), identity(), Arc::clone(&clock));
        let (before, after) = (rebuilt(), rebuilt());
        let mut heard = before.listen();
        before.emit(Fact::Resumed {});
        after.emit(Fact::Resumed {});
        let (first, second) = (heard.try_recv().unwrap().head, heard.try_recv().unwrap().head);
        assert_eq!((first.seq, second.seq), (1, 2));
        assert_eq!(first.boot_id, second.boot_id);
        assert_eq!(before.started_at_ns(), after.started_at_ns());
    }
}
