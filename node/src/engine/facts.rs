//! What changed, told to whoever listens: each fact once, in order, with its number in this run.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
};

use bubbaloop_storage_schemas::{
    event::{EventHead, Fact, StorageEvent},
    limits::FACTS_BUFFERED_MAX,
};
use tokio::sync::broadcast;
use uuid::Uuid;

use crate::{clock::Clock, library::identity::Identity};

/// Tells what changed. Telling never waits: a listener that is too slow misses facts and learns how many.
#[derive(Debug)]
pub struct Facts {
    identity: Identity,
    boot_id: String,
    clock: Arc<dyn Clock>,
    /// Held while a fact is told, so that numbers rise in the order of telling.
    told: Mutex<Told>,
    listeners: broadcast::Sender<StorageEvent>,
}

/// What was told in this run.
#[derive(Debug, Default)]
struct Told {
    seq: u64,
    kinds: BTreeSet<&'static str>,
}

impl Facts {
    /// Begins a run of the node.
    pub fn new(identity: Identity, clock: Arc<dyn Clock>) -> Self {
        let boot_id = Uuid::new_v4().simple().to_string();
        let (listeners, _) = broadcast::channel(FACTS_BUFFERED_MAX);
        Self { identity, boot_id, clock, told: Mutex::default(), listeners }
    }

    /// Returns the library that the facts are about.
    pub fn library_id(&self) -> &str {
        &self.identity.library_id
    }

    /// Tells one fact.
    pub fn tell(&self, fact: Fact) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.seq += 1;
        told.kinds.insert(fact.kind());
        let head = EventHead {
            library_id: self.identity.library_id.clone(),
            boot_id: self.boot_id.clone(),
            seq: told.seq,
            at_ns: self.clock.wall(),
        };
        // Nobody listening is no error.
        self.listeners.send(StorageEvent { head, machine_id: self.identity.machine_id.clone(), fact }).ok();
    }

    /// Tells whether a fact of this kind was told in this run.
    pub fn has_told(&self, kind: &str) -> bool {
        self.told.lock().unwrap_or_else(PoisonError::into_inner).kinds.contains(kind)
    }

    /// Listens from now on.
    pub fn listen(&self) -> broadcast::Receiver<StorageEvent> {
        self.listeners.subscribe()
    }
}
