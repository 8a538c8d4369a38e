//! Remote manifests: written when the plan says so, read before they are replaced, and never made smaller.

use std::{
    fmt,
    io::{self, BufWriter},
    sync::Arc,
};

use bubbaloop_storage_schemas::{
    Digest, RecordingName,
    event::Fact,
    journal::JournalEntry,
    keys::ObjectKey,
    limits::MANIFEST_BYTES_MAX,
    manifest::{Indices, Manifest},
};
use sha2::{Digest as _, Sha256};
use tokio::task::spawn_blocking;

use super::{Engine, State};
use crate::{
    engine::transfer::TransferError,
    library::{
        fold::{self, Folded},
        journal::Published,
        scan::{Folder, Recording},
    },
    policy::{
        self,
        manifest::{self, Merged},
        publish::ManifestState,
        queue::Outcome,
        recording::ManifestFacts,
    },
    store::{Body, PutMode, StoreError, StoreErrorKind, Stored},
};

/// What a recording's remote manifest is to say.
struct Wanted {
    recording: Arc<Recording>,
    manifest: Manifest,
    /// Digest and length of its text.
    digest: Digest,
    length: usize,
    /// The library that the local manifest came from, where it was restored: no twin, but what was here before.
    predecessor: Option<String>,
}

/// What came of comparing the wanted manifest with the one that stands in the store.
struct Compared {
    /// The digest of the text that stands there.
    stands: Digest,
    /// The library that wrote it, where it says so.
    library: Option<String>,
    /// The text that is to stand there, and its digest; `None` where it is another capture's, or none.
    joined: Option<Result<(Vec<u8>, Digest), StoreError>>,
}

impl Wanted {
    /// Returns the text, as it stands in the store. It takes long of a large one.
    fn text(&self) -> Result<Vec<u8>, StoreError> {
        text_of(&self.manifest, self.length)
    }

    /// Compares with the text that stands in the store. It takes long of a large one.
    fn compare(&self, theirs: Vec<u8>) -> Compared {
        let stands = Digest::of(&theirs);
        let parsed = Manifest::parse(&theirs, Indices::Rising).ok().map(|(theirs, _)| theirs);
        drop(theirs);
        let library = parsed.as_ref().and_then(manifest::library_of).map(str::to_owned);
        let joined = match parsed.map(|theirs| manifest::merge(&self.manifest, &theirs)) {
            Some(Merged::Ours) => Some(self.text().map(|text| (text, self.digest))),
            Some(Merged::Joined(joined)) => Some(joined_text(&joined)),
            Some(Merged::NameTaken) | None => None,
        };
        Compared { stands, library, joined }
    }
}

/// Returns what may be published of a recording, with digest and length of its text; `None` while nothing of it is proven,
/// or where it is not ours to publish.
fn wanted(recording: &Recording, local: Manifest, library_id: &str) -> Option<(Manifest, (Digest, usize))> {
    if !matches!(recording.manifest, ManifestFacts::Readable { is_ours: true, .. }) || recording.is_withdrawn() {
        return None;
    }
    let manifest = manifest::remote(local, |chunk| recording.uploaded(chunk), library_id);
    if manifest.chunks.is_empty() {
        return None;
    }
    let measured = measure(&manifest).ok()?;
    Some((manifest, measured))
}

/// Hashes and counts what is written.
#[derive(Default)]
struct Measuring {
    hasher: Sha256,
    length: usize,
}

impl io::Write for Measuring {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.hasher.update(bytes);
        self.length += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Returns digest and length of a manifest's text, which of a long recording is too large to be made for that.
fn measure(manifest: &Manifest) -> io::Result<(Digest, usize)> {
    let mut text = BufWriter::new(Measuring::default());
    serde_json::to_writer_pretty(&mut text, manifest)?;
    let Measuring { hasher, length } = text.into_inner()?;
    Ok((Digest::from_bytes(hasher.finalize().into()), length))
}

fn not_encoded(manifest: &Manifest, error: &dyn fmt::Display) -> StoreError {
    let message = format!("the remote manifest of {} can't be encoded: {error}", manifest.name);
    StoreError::new(StoreErrorKind::Rejected, message)
}

/// Returns a manifest's text, which has this length: one that grows takes two to three times its memory.
fn text_of(manifest: &Manifest, length: usize) -> Result<Vec<u8>, StoreError> {
    let mut text = Vec::with_capacity(length);
    serde_json::to_writer_pretty(&mut text, manifest).map_err(|error| not_encoded(manifest, &error))?;
    Ok(text)
}

/// Returns the text of a manifest that names more than ours, and its digest.
fn joined_text(joined: &Manifest) -> Result<(Vec<u8>, Digest), StoreError> {
    let (digest, length) = measure(joined).map_err(|error| not_encoded(joined, &error))?;
    can_come_back(joined, length)?;
    Ok((text_of(joined, length)?, digest))
}

/// Tells whether a recording's remote manifest says something else than it should.
pub(super) fn is_due(recording: &Recording, local: Manifest, library_id: &str) -> bool {
    wanted(recording, local, library_id)
        .is_some_and(|(_, (digest, _))| recording.published.as_ref().is_none_or(|published| published.wanted != digest))
}

impl Engine {
    /// Starts the writing of manifests that are due and returns one that is.
    pub(super) fn next_manifest(&self) -> Option<RecordingName> {
        let now = self.deps.clock.tick();
        let now_ns = self.deps.clock.wall();
        let mut guard = self.state();
        let State { queue, publisher, recordings, .. } = &mut *guard;
        if !queue.admits_other(now) {
            return None;
        }
        publisher.next(now, |name| {
            let recording = recordings.get(name);
            let has_ended = recording.is_none_or(|recording| recording.has_ended(now_ns));
            // A file that can't be read may stay so: no manifest waits for it.
            ManifestState { has_ended, is_quiet: !queue.is_busy(name) }
        })
    }

    /// Writes one remote manifest and tells plan and gate how it went.
    pub(super) async fn publish(self: &Arc<Self>, name: RecordingName) {
        let result = self.publish_now(&name).await;
        let (is_written, outcome) = match result {
            Ok(was_asked) => (true, was_asked.then_some(Outcome::Settled)),
            Err(error) => {
                tracing::warn!(recording = %name, %error, "a remote manifest can't be written");
                // A key may not read or overwrite manifests and still send chunks: that stops no upload.
                let is_its_own = matches!(&error, TransferError::Store(error) if error.may_concern_one_object());
                let outcome = if is_its_own { Outcome::Dead(error.to_string()) } else { Outcome::from(error) };
                (false, Some(outcome))
            }
        };
        let (now, jitter) = (self.deps.clock.tick(), fastrand::f64());
        let mut state = self.state();
        match &outcome {
            Some(Outcome::Retry { message, .. }) => state.note_failing(message, self.deps.clock.wall()),
            Some(Outcome::Settled) => state.failing = None,
            _ => {}
        }
        if let Some(outcome) = outcome {
            state.queue.finish_other(&outcome, now, jitter);
        }
        state.publisher.finish(&name, is_written, now, jitter);
        state.note_done();
        self.note_gate(&mut state);
        drop(state);
        self.published.notify_waiters();
    }

    /// Returns whether the store was asked.
    async fn publish_now(self: &Arc<Self>, name: &RecordingName) -> Result<bool, TransferError> {
        let engine = Arc::clone(self);
        let owned = name.clone();
        let read = spawn_blocking(move || engine.wanted_now(&owned)).await;
        let Some(wanted) = read.ok().flatten().map(Arc::new) else { return Ok(false) };
        if wanted.recording.published.as_ref().is_some_and(|published| published.wanted == wanted.digest) {
            return Ok(false);
        }
        let published = self.replace_manifest(&wanted).await?;
        let engine = Arc::clone(self);
        let noted = spawn_blocking(move || engine.note_published(&wanted, published)).await;
        if let Err(error) = noted {
            tracing::error!(recording = %name, %error, "noting a remote manifest ended abnormally");
        }
        Ok(true)
    }

    fn wanted_now(&self, name: &RecordingName) -> Option<Wanted> {
        // What is being removed gets no manifest, and no line in a journal that goes.
        if self.state().held.contains(name) {
            return None;
        }
        let local = self.manifest(name)?;
        let recording = self.recording(name)?;
        let predecessor = manifest::library_of(&local).map(str::to_owned);
        let (manifest, (digest, length)) = wanted(&recording, local, self.deps.facts.library_id())?;
        Some(Wanted { recording, manifest, digest, length, predecessor })
    }

    /// Puts the wanted manifest in the place of the one that stands there, joined with it; another capture's is left
    /// alone, and ours gets a name of its own.
    async fn replace_manifest(&self, wanted: &Arc<Wanted>) -> Result<Published, TransferError> {
        can_come_back(&wanted.manifest, wanted.length)?;
        let Recording { name, machine_id, published, .. } = &*wanted.recording;
        let usual = ObjectKey::manifest(machine_id, name);
        let own = ObjectKey::manifest_of_capture(machine_id, name, wanted.manifest.started_at_ns);
        let known = published.as_ref().filter(|published| published.key == own.as_str());
        let keys = if known.is_some() { vec![own] } else { vec![usual, own] };
        for key in keys {
            let written = published.as_ref().filter(|published| published.key == key.as_str());
            if let Some(published) = self.replace_under(&key, wanted, written).await? {
                return Ok(published);
            }
            tracing::warn!(recording = %name, %key, "name_taken: another capture's manifest stands there");
        }
        let message = format!("the manifest of {name} is not written: other captures' manifests stand under its keys");
        Err(StoreError::new(StoreErrorKind::Rejected, message).into())
    }

    async fn replace_under(
        &self,
        key: &ObjectKey,
        wanted: &Arc<Wanted>,
        written: Option<&Published>,
    ) -> Result<Option<Published>, TransferError> {
        let store = &*self.deps.store;
        let found = match store.head(key).await {
            // A key that may not look can still create the first one.
            Err(error) if error.is_denied() && written.is_none() => None,
            found => found?,
        };
        let Some(meta) = found else {
            let ours = Arc::clone(wanted);
            let text = apart(move || ours.text()).await??;
            return self.put_manifest(key, (text, wanted.digest), wanted, PutMode::Create).await.map(Some);
        };
        // Even what we wrote ourselves is read: the local manifest may name less than it did, and this one only grows.
        let Some(object) = store.get(key, None).await? else {
            let message = format!("object {key} vanished while it was looked at");
            return Err(StoreError::new(StoreErrorKind::Retry { after: None }, message).into());
        };
        let etag = object.meta.etag.clone();
        let (theirs, ours) = (object.collect(MANIFEST_BYTES_MAX).await?, Arc::clone(wanted));
        let Compared { stands, library, joined } = apart(move || ours.compare(theirs)).await?;
        if let Some(twin) = library.filter(|library| wanted.predecessor.as_ref() != Some(library)) {
            self.note_library(&twin, "bucket");
        }
        let Some((text, digest)) = joined.transpose()? else { return Ok(None) };
        if stands == digest {
            return Ok(Some(Published { key: key.to_string(), digest, wanted: wanted.digest, etag }));
        }
        let honours_if_match = self.state().probe.is_some_and(|probe| probe.honours_if_match);
        let mode = if honours_if_match { PutMode::Update(meta.etag) } else { PutMode::Overwrite };
        self.put_manifest(key, (text, digest), wanted, mode).await.map(Some)
    }

    /// Tells whether the remote manifest that was written last still stands there. Of a store that tells no ETag it is read.
    pub(in crate::engine) async fn still_stands(&self, published: &Published) -> Result<bool, StoreError> {
        let Ok(key) = published.key.parse::<ObjectKey>() else { return Ok(false) };
        let Some(meta) = self.deps.store.head(&key).await? else { return Ok(false) };
        if !meta.etag.is_empty() {
            return Ok(meta.etag == published.etag);
        }
        let Some(object) = self.deps.store.get(&key, None).await? else { return Ok(false) };
        let text = object.collect(MANIFEST_BYTES_MAX).await?;
        Ok(Digest::of(&text) == published.digest)
    }

    async fn put_manifest(
        &self,
        key: &ObjectKey,
        (text, digest): (Vec<u8>, Digest),
        wanted: &Wanted,
        mode: PutMode,
    ) -> Result<Published, TransferError> {
        let Stored { etag, .. } = self.deps.store.put(key, &Body::Bytes(text.into()), mode).await?;
        Ok(Published { key: key.to_string(), digest, wanted: wanted.digest, etag })
    }

    fn note_published(&self, wanted: &Wanted, published: Published) {
        let name = &wanted.recording.name;
        let Published { key, digest, wanted: text, etag } = published.clone();
        let entry = JournalEntry::Published { key, recording: name.clone(), sha256: digest, wanted: text, etag };
        self.journal(name, entry);
        let mut state = self.state();
        if let Some(recording) = state.recording_mut(name) {
            recording.published = Some(published);
        }
        drop(state);
        self.tell_complete(&wanted.recording, &wanted.manifest);
    }

    fn tell_complete(&self, recording: &Recording, remote: &Manifest) {
        let has_ended = recording.has_ended(self.deps.clock.wall());
        if has_ended && recording.is_proven_whole() && remote.chunks.len() == recording.chunks.len() {
            let chunks = remote.chunks.len() as u64;
            self.deps.facts.emit(Fact::RecordingComplete { recording: recording.name.clone(), chunks });
        }
    }

    /// Folds the marks of an ended recording into its manifest, when that may be.
    pub(super) fn fold(&self, name: &RecordingName) {
        let foldable = {
            let state = self.state();
            let is_free = |recording: &&Arc<Recording>| recording.is_foldable() && !state.held.contains(name);
            state.recordings.get(name).filter(is_free).cloned()
        };
        let Some(recording) = foldable else { return };
        let path = Folder::new(&self.deps.recordings, &recording.name).manifest();
        match fold::fold(&path, |chunk| recording.uploaded(chunk), self.deps.clock.wall()) {
            Ok(Folded::Written) => tracing::debug!(recording = %recording.name, "marks folded into manifest.json"),
            Ok(Folded::LeftAlone) => {}
            Err(error) => tracing::warn!(recording = %recording.name, %error, "manifest.json can't be written"),
        }
    }
}

/// Runs what takes long of a large manifest, apart from all that waits.
async fn apart<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let ended = |error| StoreError::new(StoreErrorKind::Retry { after: None }, format!("encoding ended: {error}"));
    spawn_blocking(work).await.map_err(ended)
}

/// Refuses to write a manifest that would be refused when it is to come back.
fn can_come_back(manifest: &Manifest, length: usize) -> Result<(), StoreError> {
    policy::fetch::size(manifest.chunks.len(), length).map_err(|reason| {
        let name = &manifest.name;
        let message = format!("the remote manifest of {name} is not written: {reason}: record it in several parts");
        StoreError::new(StoreErrorKind::Rejected, message)
    })
}
