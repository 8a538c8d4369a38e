//! Whether the store still holds what the marks say: now and then all of it is listed and compared.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use bubbaloop_storage_schemas::{
    Digest, MachineId, event::Fact, journal::JournalEntry, keys::ObjectKey, limits::PAGE_ROWS_MAX, reply::Proof,
};
use tokio::task::spawn_blocking;

use super::Engine;
use crate::{
    library::{
        scan::{ChunkEntry, Recording},
        state::{NodeState, Verified},
    },
    policy::{Tick, queue::ChunkId},
    store::{Compared, ObjectMeta, StoreError},
};

/// How long a pass that the store broke off waits for its next try.
const RETRY: Duration = Duration::from_secs(600);

/// A mark whose object the listing did not show as it was proven.
struct Suspect {
    id: ChunkId,
    key: ObjectKey,
    etag: Box<str>,
    digest: Option<Digest>,
    size_bytes: u64,
}

impl Suspect {
    /// Tells whether an object is what was proven, as far as the store tells: some tell no ETag.
    fn may_be(&self, meta: &ObjectMeta) -> bool {
        match meta.compare(&self.etag, self.digest) {
            Compared::Same => true,
            Compared::Other => false,
            Compared::Unverifiable => meta.size_bytes == self.size_bytes,
        }
    }
}

impl Engine {
    /// Returns when the next pass is due, by the last one that ended.
    pub(super) fn verify_at(&self, interval: Duration) -> Tick {
        let now = self.deps.clock.tick();
        let verified = NodeState::load(&self.deps.state).verified;
        let verified = verified.filter(|verified| verified.store_id == self.deps.store_id);
        // A library that was never compared is so soon after its start, a clock that was set back notwithstanding.
        let passed = verified
            .map_or(interval, |verified| Duration::from_nanos(self.deps.clock.wall().saturating_sub(verified.at_ns)));
        now.after(interval.saturating_sub(passed))
    }

    /// Compares all marks with what the store lists; marks whose objects are gone or changed are taken back, and their
    /// chunks go up again. Returns how long to wait for the next pass.
    pub(super) async fn verify_and_note(self: &Arc<Self>, interval: Duration) -> Duration {
        let doubt = self.doubt_count();
        match self.verify().await {
            Ok(taken_back) => {
                self.settle_doubt(doubt);
                if taken_back > 0 {
                    tracing::warn!(taken_back, "objects are gone from the store or changed: they are uploaded again");
                }
                let at_ns = self.deps.clock.wall();
                let verified = Verified { store_id: self.deps.store_id.clone(), at_ns };
                let engine = Arc::clone(self);
                let saved = spawn_blocking(move || {
                    NodeState::update(&engine.deps.state, |state| {
                        state.verified = Some(verified);
                        engine.note_doubt(state);
                    })
                });
                if let Ok(Err(error)) = saved.await {
                    tracing::warn!(%error, "the time of the comparison can't be written");
                }
                interval
            }
            Err(error) => {
                tracing::warn!(%error, "marks and store can't be compared now");
                RETRY.min(interval)
            }
        }
    }

    /// Compares all marks with what the store lists, and returns how many were taken back.
    ///
    /// # Errors
    /// The store can't be listed: no mark is taken back for that.
    pub async fn verify(self: &Arc<Self>) -> Result<usize, StoreError> {
        let pass = {
            let mut state = self.state();
            state.pass = state.pass.wrapping_add(1);
            state.pass
        };
        let is_ours = |recording: &&Arc<Recording>| recording.is_ours();
        let machines: BTreeSet<_> =
            self.state().recordings.values().filter(is_ours).map(|recording| recording.machine_id.clone()).collect();
        for machine in machines {
            self.see_all(&machine, pass).await?;
        }
        self.see_manifests(pass).await?;
        let mut taken_back = 0;
        for suspect in self.suspects(pass) {
            // A listing may lag behind, so the object itself has the last word.
            let found = self.deps.store.head(&suspect.key).await?;
            if found.is_none_or(|meta| !suspect.may_be(&meta)) {
                let engine = Arc::clone(self);
                let take_back = move || engine.take_back(&suspect.id, &suspect.key);
                taken_back += usize::from(spawn_blocking(take_back).await.is_ok());
            }
        }
        self.sweep_uploads().await;
        self.changed.notify_one();
        Ok(taken_back)
    }

    async fn see_all(&self, machine: &MachineId, pass: u32) -> Result<(), StoreError> {
        let prefix = format!("{machine}/");
        let mut after = None;
        loop {
            let page = self.deps.store.list(&prefix, after.as_deref(), PAGE_ROWS_MAX).await?;
            self.see(&page.objects, pass);
            after = page.next_after;
            if after.is_none() {
                return Ok(());
            }
        }
    }

    /// Looks at the remote manifests that the listing did not show as they were written.
    async fn see_manifests(&self, pass: u32) -> Result<(), StoreError> {
        let is_unseen = |recording: &&Arc<Recording>| recording.is_ours() && recording.manifest_seen_in_pass != pass;
        let name_of = |recording: &Arc<Recording>| Some((recording.name.clone(), recording.published.clone()?));
        let unseen: Vec<_> = self.state().recordings.values().filter(is_unseen).filter_map(name_of).collect();
        for (name, published) in unseen {
            let stands = match self.still_stands(&published).await {
                Err(error) if error.is_denied() => false,
                stands => stands?,
            };
            if stands && let Some(recording) = self.state().recording_mut(&name) {
                recording.manifest_seen_in_pass = pass;
            }
        }
        Ok(())
    }

    fn see(&self, objects: &[ObjectMeta], pass: u32) {
        let mut state = self.state();
        for meta in objects.iter().filter(|meta| !meta.etag.is_empty()) {
            let Some((recording, chunk)) = meta.key.parts() else { continue };
            let Some(recording) = state.recording_mut(&recording) else { continue };
            match chunk {
                Some(chunk) => {
                    let entry = recording.chunk_mut(chunk);
                    if let Some(entry) = entry.filter(|entry| entry.etag.as_deref() == Some(&*meta.etag)) {
                        entry.seen_in_pass = pass;
                    }
                }
                None => {
                    let published = recording.published.as_ref().filter(|published| published.key == meta.key.as_str());
                    if published.is_some_and(|published| published.etag == meta.etag) {
                        recording.manifest_seen_in_pass = pass;
                    }
                }
            }
        }
    }

    /// Returns the marks that the pass did not see, and wants manifests written anew that it did not see.
    fn suspects(&self, pass: u32) -> Vec<Suspect> {
        let now = self.deps.clock.tick();
        let mut guard = self.state();
        let state = &mut *guard;
        let mut suspects = Vec::new();
        for found in state.recordings.values_mut().filter(|recording| recording.is_ours()) {
            let recording = &**found;
            // What was proven since the pass began counts as seen in it.
            let is_unseen =
                |chunk: &&ChunkEntry| chunk.seen_in_pass != pass && chunk.facts.proof.is_some_and(Proof::is_proven);
            suspects.extend(recording.chunks.iter().filter(is_unseen).filter_map(|chunk| {
                let key = ObjectKey::chunk(&recording.machine_id, &recording.name, chunk.name);
                let id = ChunkId { recording: recording.name.clone(), chunk: chunk.name };
                let (etag, digest, size_bytes) = (chunk.etag.clone()?, chunk.digest, chunk.size_bytes);
                Some(Suspect { id, key, etag, digest, size_bytes })
            }));
            if recording.published.is_some() && recording.manifest_seen_in_pass != pass {
                state.publisher.want(&recording.name, now);
                Arc::make_mut(found).published = None;
            }
        }
        suspects
    }

    pub(super) fn take_back(&self, id: &ChunkId, key: &ObjectKey) {
        self.journal(&id.recording, JournalEntry::Gone { chunk: id.chunk });
        self.change(id, |chunk| {
            chunk.facts.proof = None;
            chunk.marked_at_ns = None;
            chunk.etag = None;
        });
        let message = format!("object {key} is gone from the store or changed: it is uploaded again");
        let (recording, chunk) = (id.recording.clone(), id.chunk);
        self.deps.facts.emit(Fact::UploadFailed { recording, chunk, message });
        self.offer_pending(&mut self.state(), &id.recording);
        self.changed.notify_one();
    }
}
