//! Large chunks: which go up in parts, and what the journal says of those that were begun.

use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use bubbaloop_storage_schemas::{
    journal::JournalEntry,
    keys::ObjectKey,
    reply::{ChunkLocal, Proof},
};
use tokio::task::spawn_blocking;

use super::Engine;
use crate::{
    engine::request::{Large, PartsLog},
    library::scan::Recording,
    policy::{
        Tick,
        parts::{BegunUpload, PartLayout, SentPart},
        queue::{ChunkId, Stage},
    },
    store::StoreError,
};

/// Writes down how the upload of one chunk goes.
#[derive(Debug)]
struct Log {
    engine: Arc<Engine>,
    id: ChunkId,
    /// When the last part arrived.
    arrived_at: Mutex<Tick>,
}

impl Log {
    fn new(engine: &Arc<Engine>, id: ChunkId) -> Self {
        Self { engine: Arc::clone(engine), id, arrived_at: Mutex::new(engine.deps.clock.tick()) }
    }

    /// Writes a line, then takes it into the view.
    async fn note(&self, entry: JournalEntry, change: impl FnOnce(&mut Option<BegunUpload>) + Send) {
        let (engine, recording) = (Arc::clone(&self.engine), self.id.recording.clone());
        if let Err(error) = spawn_blocking(move || engine.journal(&recording, entry)).await {
            tracing::error!(%error, "writing down a part ended abnormally");
        }
        let mut state = self.engine.state();
        let Some(recording) = state.recording_mut(&self.id.recording) else { return };
        let mut begun = recording.begun.remove(&self.id.chunk);
        change(&mut begun);
        if let Some(begun) = begun {
            recording.begun.insert(self.id.chunk, begun);
        }
    }
}

#[async_trait]
impl PartsLog for Log {
    async fn begun(&self, upload: BegunUpload) {
        let BegunUpload { upload_id, key, part_bytes, .. } = upload.clone();
        let entry = JournalEntry::UploadBegun { chunk: self.id.chunk, key, upload_id, part_bytes };
        self.note(entry, |begun| *begun = Some(upload)).await;
    }

    async fn sent(&self, upload_id: &str, number: u32, part: SentPart) {
        let SentPart { size_bytes, digest, etag, etag_is_md5 } = part.clone();
        let (chunk, of) = (self.id.chunk, upload_id.to_owned());
        let entry =
            JournalEntry::PartSent { chunk, upload_id: of, number, size_bytes, sha256: digest, etag, etag_is_md5 };
        self.note(entry, |begun| {
            if let Some(begun) = begun.as_mut().filter(|begun| begun.upload_id == upload_id) {
                begun.sent.insert(number, part);
            }
        })
        .await;
        let now = self.engine.deps.clock.tick();
        let began = std::mem::replace(&mut *self.arrived_at.lock().unwrap_or_else(PoisonError::into_inner), now);
        let mut state = self.engine.state();
        state.note_sent(size_bytes, began, now);
        state.note_arrived(size_bytes, now);
        state.queue.progressed(&self.id);
        drop(state);
        // There may be room beside it now.
        self.engine.changed.notify_one();
    }

    async fn ended(&self, upload_id: &str) {
        let entry = JournalEntry::UploadEnded { chunk: self.id.chunk, upload_id: upload_id.to_owned() };
        self.note(entry, |begun| *begun = begun.take().filter(|begun| begun.upload_id != upload_id)).await;
    }

    fn may_go_on(&self) -> bool {
        self.engine.paused().is_none() && self.engine.state().queue.may_go_on(&self.id)
    }
}

impl Engine {
    /// Returns how a chunk goes up if it is large; `None` where it goes in one piece.
    pub(super) fn large(self: &Arc<Self>, id: &ChunkId, size_bytes: u64) -> Option<Large> {
        let state = self.state();
        let recording = state.recordings.get(&id.recording);
        let begun = recording.and_then(|recording| recording.begun.get(&id.chunk).cloned());
        let limits = state.pace.part_limits(size_bytes, state.tuning.settings.part_limits());
        let parts = PartLayout::of(size_bytes, limits);
        // One that was begun is gone on with, or given up, whatever the settings say by now.
        let parts = parts.or_else(|| PartLayout::of_begun(size_bytes, begun.as_ref()?.part_bytes))?;
        let log = Arc::new(Log::new(self, id.clone()));
        let part_bytes = begun.as_ref().map_or(parts.part_bytes(), |begun| begun.part_bytes);
        let weight = state.pace.places_of(part_bytes, state.tuning.places());
        Some(Large { parts, begun, log, places: Arc::clone(&state.places), weight })
    }

    /// Returns how many bytes of a chunk the store took in parts of which no object is made yet.
    pub fn sent_bytes(&self, id: &ChunkId) -> u64 {
        let state = self.state();
        let begun = state.recordings.get(&id.recording).and_then(|recording| recording.begun.get(&id.chunk));
        begun.map_or(0, |begun| begun.sent.values().map(|part| part.size_bytes).sum())
    }

    /// Returns the uploads in parts that nothing will go on with: of chunks that are proven, gone, damaged or
    /// withdrawn.
    fn stale_uploads(&self) -> Vec<(ChunkId, BegunUpload)> {
        let state = self.state();
        let begun = state
            .recordings
            .values()
            .flat_map(|recording| recording.begun.iter().map(move |(chunk, begun)| (recording, *chunk, begun)));
        let is_stale = |(recording, chunk, _): &(&Arc<Recording>, _, _)| {
            let id = ChunkId { recording: recording.name.clone(), chunk: *chunk };
            let is_sent = recording.chunk(*chunk).is_some_and(|entry| {
                entry.facts.local == ChunkLocal::Present && !entry.facts.proof.is_some_and(Proof::is_proven)
            }) && !recording.is_withdrawn();
            !is_sent && !matches!(state.queue.stage(&id), Some(Stage::InFlight))
        };
        begun
            .filter(is_stale)
            .map(|(recording, chunk, begun)| (ChunkId { recording: recording.name.clone(), chunk }, begun.clone()))
            .collect()
    }

    /// Gives up the uploads in parts that nothing will go on with: their parts cost money. Only those of this journal are
    /// ours to give up.
    pub(super) async fn sweep_uploads(self: &Arc<Self>) {
        for (id, begun) in self.stale_uploads() {
            if let Err(error) = self.give_up(id, &begun.key, &begun.upload_id).await {
                tracing::warn!(key = begun.key, %error, "an upload in parts can't be given up");
            }
        }
    }

    /// Gives up an upload in parts, and writes that down. Idempotent.
    ///
    /// # Errors
    /// As the store tells: it may still hold the parts.
    pub(in crate::engine) async fn give_up(
        self: &Arc<Self>,
        id: ChunkId,
        key: &str,
        upload_id: &str,
    ) -> Result<(), StoreError> {
        let (Some(multi), Ok(key)) = (self.deps.store.multipart(), key.parse::<ObjectKey>()) else { return Ok(()) };
        multi.abort(&key, upload_id).await?;
        tracing::info!(%key, "an upload in parts that nothing goes on with is given up");
        Log::new(self, id).ended(upload_id).await;
        Ok(())
    }
}
