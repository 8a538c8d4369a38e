//! What a removal needs of the shared state: the recording is held, so that nothing of it goes up meanwhile, and what is
//! known of it changes with each step.

use std::{collections::BTreeMap, io, pin::pin, sync::Arc, time::Duration};

use bubbaloop_storage_schemas::{
    ChunkName, RecordingName,
    error::{ErrorCode, Refusal},
    journal::{JournalEntry, JournalLine},
    keys::ObjectKey,
    reply::{ChunkLocal, Proof},
};
use futures_util::{StreamExt, TryStreamExt, stream};
use tokio::{sync::OwnedRwLockWriteGuard, task::spawn_blocking};

use super::{Engine, State};
use crate::{
    content::ContentError,
    durable,
    library::scan::{ChunkEntry, Folder, ReadReason, Recording},
    policy::{
        queue::{ChunkId, Stage},
        recording::ManifestFacts,
    },
    store::{Compared, StoreError},
};

/// Chunks that a refusal names one by one.
const TOLD_MAX: usize = 3;

/// Objects that are looked at at once.
const LOOKS_AT_ONCE: usize = 4;

/// A recording of which nothing goes up, and on which nobody else works, as long as this is there.
#[derive(Debug)]
pub(in crate::engine) struct Held {
    engine: Arc<Engine>,
    name: RecordingName,
    _alone: OwnedRwLockWriteGuard<()>,
}

impl Drop for Held {
    fn drop(&mut self) {
        let mut state = self.engine.state();
        state.held.remove(&self.name);
        self.engine.offer_pending(&mut state, &self.name);
        drop(state);
        self.engine.changed.notify_one();
    }
}

fn conflict(message: String, hint: &str) -> Refusal {
    Refusal::new(ErrorCode::Conflict, message).hint(hint)
}

/// What forbids it ends by itself.
fn busy(message: String, hint: &str) -> Refusal {
    Refusal { retryable: true, ..conflict(message, hint) }
}

/// Tells what forbids to remove a recording, whoever forces it.
fn obstacle(recording: &Recording, state: &State, force: bool, now_ns: u64) -> Option<Refusal> {
    let name = &recording.name;
    if !recording.is_ours() {
        let message = format!("recording {name} is another machine's");
        return Some(conflict(message, "remove it on that machine"));
    }
    // What an earlier removal took touched the folder, and what was written since by others did not.
    let is_begun = recording.removal_begun_at_ns.is_some_and(|begun_at_ns| {
        recording.open_files.is_empty() && recording.chunks.iter().all(|chunk| chunk.finalized_at_ns < begun_at_ns)
    });
    if !recording.has_ended(now_ns) && !is_begun {
        let is_written = !recording.open_files.is_empty()
            || recording.chunks.iter().any(|chunk| chunk.facts.local == ChunkLocal::Present);
        if matches!(recording.manifest, ManifestFacts::Readable { .. }) {
            let message = format!("recording {name} is open: its recorder still adds to it");
            return Some(conflict(message, "end it first; one that a crash left open may go after a day"));
        } else if is_written && !force {
            let message = format!("recording {name} may still be written: no readable manifest says that it has ended");
            return Some(conflict(message, "wait until its folder has been still for a day, or use force"));
        }
    }
    let is_going = |chunk: &&ChunkEntry| {
        let id = ChunkId { recording: name.clone(), chunk: chunk.name };
        matches!(state.queue.stage(&id), Some(Stage::InFlight))
    };
    let going: Vec<_> = recording.chunks.iter().filter(is_going).map(|chunk| chunk.name.to_string()).collect();
    if !going.is_empty() {
        let more = if going.len() > TOLD_MAX { format!(" and {} more", going.len() - TOLD_MAX) } else { String::new() };
        let told = going.iter().take(TOLD_MAX).cloned().collect::<Vec<_>>().join(", ");
        let message = format!("recording {name} is being uploaded: {told}{more} is on its way");
        return Some(busy(message, "ask again when it is there, or pause uploads"));
    }
    None
}

impl Engine {
    /// Refuses what may not be removed now, whoever forces it. It looks at the recording's folder.
    ///
    /// # Errors
    /// It is open, on its way, worked on, or another machine's.
    pub fn may_remove(&self, name: &RecordingName, force: bool) -> Result<(), Refusal> {
        if let Err(error) = self.refresh(name, ReadReason::OnDemand) {
            return Err(unreadable(name, &error));
        }
        let found = {
            let state = self.state();
            let now_ns = self.deps.clock.wall();
            state.recordings.get(name).and_then(|recording| obstacle(recording, &state, force, now_ns))
        };
        match found {
            Some(refusal) => Err(refusal),
            None => self.try_lease_alone(name).map(drop).ok_or_else(|| leased(name)),
        }
    }

    /// Holds a recording for its removal.
    ///
    /// # Errors
    /// As [`Engine::may_remove`]. It is not held then.
    pub(in crate::engine) fn hold(self: &Arc<Self>, name: &RecordingName, force: bool) -> Result<Held, Refusal> {
        let alone = self.try_lease_alone(name).ok_or_else(|| leased(name))?;
        if let Err(error) = self.refresh(name, ReadReason::OnDemand) {
            return Err(unreadable(name, &error));
        }
        let mut guard = self.state();
        let state = &mut *guard;
        let now_ns = self.deps.clock.wall();
        if let Some(recording) = state.recordings.get(name) {
            if let Some(refusal) = obstacle(recording, state, force, now_ns) {
                return Err(refusal);
            }
            if state.publisher.is_writing(name) {
                let message = format!("the remote manifest of recording {name} is being written");
                return Err(busy(message, "ask again in a moment"));
            }
            for chunk in &recording.chunks {
                state.queue.forget(&ChunkId { recording: name.clone(), chunk: chunk.name });
            }
        }
        state.held.insert(name.clone());
        drop(guard);
        Ok(Held { engine: Arc::clone(self), name: name.clone(), _alone: alone })
    }

    /// Waits, for so long at most, until no remote manifest of a recording is being written; with `is_wanted` until one that
    /// is due was, too. One that could not be written is not waited for.
    pub(in crate::engine) async fn manifest_settled(&self, name: &RecordingName, is_wanted: bool, patience: Duration) {
        let goes_on = || {
            let (now, now_ns) = (self.deps.clock.tick(), self.deps.clock.wall());
            let state = self.state();
            let has_ended = || state.recordings.get(name).is_some_and(|recording| recording.has_ended(now_ns));
            let is_due = || state.publisher.failures(name) == Some(0) && state.queue.admits_other(now) && has_ended();
            state.publisher.is_writing(name) || is_wanted && is_due()
        };
        let settled = async {
            loop {
                // Heard from before the look, so that no end is missed.
                let mut told = pin!(self.published.notified());
                told.as_mut().enable();
                if !goes_on() {
                    return;
                }
                told.await;
            }
        };
        // What goes on all the same is told by the look that follows.
        tokio::time::timeout(patience, settled).await.ok();
    }

    /// Finds out, for each chunk of a recording, why the store is not known to hold it just now; `None` where it is.
    ///
    /// # Errors
    /// The store gives no answer.
    pub(in crate::engine) async fn doubts(
        self: &Arc<Self>,
        recording: &Recording,
    ) -> Result<BTreeMap<ChunkName, Option<String>>, StoreError> {
        let all = |reason: &str| Ok(recording.chunks.iter().map(|chunk| (chunk.name, Some(reason.into()))).collect());
        let engine = Arc::clone(self);
        match spawn_blocking(move || engine.is_other_disk()).await.unwrap_or(None) {
            Some(true) => {}
            Some(false) => return all("the store is on the library's own disk"),
            None => return all("the store is not there, so that it is not known whether it is another disk"),
        }
        if recording.chunks.is_empty() {
            return Ok(BTreeMap::new());
        }
        if !self.is_published(&recording.name).await? {
            return all("the manifest that names what is proven does not stand in the store");
        }
        let looks = recording.chunks.iter().map(|chunk| async move {
            let doubt = self.doubt(recording, chunk).await?;
            Ok((chunk.name, doubt))
        });
        stream::iter(looks.collect::<Vec<_>>()).buffered(LOOKS_AT_ONCE).try_collect().await
    }

    async fn doubt(self: &Arc<Self>, recording: &Recording, chunk: &ChunkEntry) -> Result<Option<String>, StoreError> {
        let etag = chunk.etag.as_deref().filter(|_| chunk.facts.proof.is_some_and(Proof::is_proven));
        let Some(etag) = etag else { return Ok(Some("it is not proven in the store".into())) };
        if !chunk.facts.is_listed {
            return Ok(Some("the manifest does not name it".into()));
        }
        let key = ObjectKey::chunk(&recording.machine_id, &recording.name, chunk.name);
        let meta = self.deps.store.head(&key).await?;
        match meta.filter(|meta| meta.size_bytes == chunk.size_bytes).map(|meta| meta.compare(etag, chunk.digest)) {
            Some(Compared::Same) => return Ok(None),
            Some(Compared::Unverifiable) => {
                return Ok(Some("the store does not tell whether it still holds what was proven".into()));
            }
            Some(Compared::Other) | None => {}
        }
        self.unmark(ChunkId { recording: recording.name.clone(), chunk: chunk.name }, key).await;
        Ok(Some("the store does not hold it as it was proven".into()))
    }

    /// Appends a fact that must be on the disk before what follows from it is done. It blocks.
    fn journal_now(&self, name: &RecordingName, entry: JournalEntry) -> io::Result<u64> {
        let at_ns = self.deps.clock.wall();
        let line = JournalLine { at_ns, store_id: self.deps.store_id.clone(), entry };
        self.journals.append_now(name, line)?;
        self.note_own_line(name);
        Ok(at_ns)
    }

    /// Writes down that a person removes a recording from the store. It blocks.
    ///
    /// # Errors
    /// It can't be written: nothing has changed.
    pub(in crate::engine) fn withdraw(&self, name: &RecordingName) -> io::Result<()> {
        let at_ns = self.journal_now(name, JournalEntry::Withdrawn)?;
        let mut state = self.state();
        state.asked.remove(name);
        state.publisher.forget(name);
        if let Some(recording) = state.recording_mut(name) {
            recording.withdraw(at_ns);
        }
        Ok(())
    }

    /// Writes down that a recording that a person had removed from the store is wanted there again. It blocks.
    pub(super) fn offer_again(&self, name: &RecordingName) {
        if !self.recording(name).is_some_and(|recording| recording.is_withdrawn()) {
            return;
        }
        let at_ns = self.journal(name, JournalEntry::Offered);
        if let Some(recording) = self.state().recording_mut(name) {
            recording.withdrawn = Some((false, at_ns));
        }
    }

    /// Writes down that a person removes a recording's files: what the removal touches is not taken for a recorder's
    /// work. On a full disk it waits in memory. It blocks.
    pub(in crate::engine) fn note_removal(&self, name: &RecordingName) {
        let at_ns = self.journal(name, JournalEntry::RemovalBegun);
        if let Some(recording) = self.state().recording_mut(name) {
            recording.removal_begun_at_ns = Some(at_ns);
        }
    }

    /// Removes a chunk's file. One that is proven in the store counts as evicted from then on. It blocks.
    ///
    /// # Errors
    /// It can't be removed.
    pub(in crate::engine) fn remove_chunk(&self, id: &ChunkId, size_bytes: u64) -> io::Result<()> {
        let is_proven = self.recording(&id.recording).is_some_and(|recording| {
            recording.chunk(id.chunk).is_some_and(|chunk| chunk.facts.proof.is_some_and(Proof::is_proven))
        });
        if is_proven {
            self.journal(&id.recording, JournalEntry::Evicted { chunk: id.chunk, size_bytes });
        }
        durable::remove(&Folder::new(&self.deps.recordings, &id.recording).chunk(id.chunk))?;
        let local = if is_proven { ChunkLocal::Evicted } else { ChunkLocal::Missing };
        self.change(id, |chunk| chunk.facts.local = local);
        Ok(())
    }

    /// Forgets what was to be written to a journal that goes.
    pub(in crate::engine) fn forget_lines(&self, name: &RecordingName) {
        self.journals.forget(name);
    }

    /// Takes in that files of a recording were removed. It blocks.
    pub(in crate::engine) fn note_removed(&self, name: &RecordingName) {
        if let Err(error) = self.refresh(name, ReadReason::OnDemand) {
            tracing::warn!(recording = %name, %error, "what is left of a recording can't be read");
        }
        let mut state = self.state();
        if state.recordings.contains_key(name) {
            state.note_done();
            return;
        }
        state.forget(name);
        drop(state);
        self.changed.notify_one();
    }

    /// Tells that a recording is not known, with the nearest name.
    pub fn no_such(&self, name: &str) -> Refusal {
        let names: Vec<_> = self.state().recordings.keys().map(ToString::to_string).collect();
        let hint = match bubbaloop_storage_schemas::error::nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => "list tells the names of the recordings".into(),
        };
        Refusal::new(ErrorCode::NotFound, format!("there is no recording {name}")).hint(hint)
    }
}

fn leased(name: &RecordingName) -> Refusal {
    let message = format!("recording {name} is being worked on by another job");
    busy(message, "jobs tells which; ask again when it has ended, or cancel it")
}

fn unreadable(name: &RecordingName, error: &ContentError) -> Refusal {
    let refusal = Refusal::new(ErrorCode::Unavailable, format!("recording {name} can't be read: {error}"));
    refusal.hint("make its folder readable for the node")
}
