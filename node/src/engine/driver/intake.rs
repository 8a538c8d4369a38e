//! What comes in: scans of the library, finalize events, and what a person asks to be sent.

use std::{
    cmp::Ordering,
    collections::{BTreeMap, BTreeSet},
    fs::{self, DirEntry},
    io,
    path::Path,
    str::FromStr,
    sync::{
        Arc,
        atomic::Ordering::{Relaxed, Release},
    },
    thread,
};

use bubbaloop_storage_schemas::{
    ChunkName, RecordingName,
    codec::Format,
    event::FinalizeEvent,
    limits::{EVENT_BYTES_MAX, REFUSED_EVENTS_LOGGED_MAX},
    reply::{ChunkLocal, Proof, RefusedEvents},
};

use super::{Engine, LibraryUnavailable, State, publish};
use crate::{
    content::ContentError,
    library::{
        disk,
        journals::Journals,
        scan::{self, ChunkEntry, ChunkFile, Folder, Loaded, ReadReason, Recording},
    },
    policy::{
        intake::{self, Announced, OnDisk, Refused},
        queue::{ChunkId, Item, Offered, Stage},
        recording::{self, ManifestFacts},
    },
};

/// Threads of a scan: more would keep a robot's other work from the disk.
const SCAN_THREADS_MAX: usize = 4;

/// Recordings that are worth a thread.
const SCAN_SHARE_MIN: usize = 64;

/// How a chunk stands that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UploadOutcome {
    /// It is proven in the store.
    Proven,
    /// It waits or is on its way.
    Waiting,
    /// It can't be sent as it is.
    Failed {
        /// Why.
        reason: String,
        /// Its local bytes are damaged or missing.
        is_corrupt: bool,
    },
}

/// What outlives a sync within one process.
#[derive(Debug, Clone, Default)]
pub struct Handover {
    /// Recordings that somebody asked for and of which something still waits.
    asked: BTreeSet<RecordingName>,
    /// Finalize events that were refused.
    refused: RefusedEvents,
    /// Recordings that can't be read now and hold what is not proven.
    away: Vec<Arc<Recording>>,
    /// Where the library is, if it can have no mark.
    place_without_mark: Option<(u64, u64)>,
    /// Who writes the journals.
    pub(super) journals: Option<Arc<Journals>>,
}

impl Handover {
    /// Returns what of it holds for a folder of recordings: of another library nothing does but the counts.
    pub(super) fn of(self, recordings: &Path) -> Self {
        match &self.journals {
            Some(journals) if journals.are_of(recordings) => self,
            Some(_) | None => Self { refused: self.refused, ..Self::default() },
        }
    }
}

/// A chunk that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestedChunk {
    /// Which.
    pub id: ChunkId,
    /// Its size.
    pub size_bytes: u64,
}

/// The folders and files under the folder of recordings.
#[derive(Default)]
pub(super) struct Entries {
    names: BTreeSet<RecordingName>,
    /// Folders that may be another tool's.
    pub(super) folders: BTreeSet<String>,
    /// What is no folder.
    pub(super) files: Vec<DirEntry>,
    /// What can't be looked at, with the reason: a link to a disk that is away.
    unreadable: BTreeMap<String, String>,
}

/// Tells whether what can't be looked at may be a disk that is away: no link to a neighbour, as `latest` often is.
fn leads_out(path: &Path, recordings: &Path) -> bool {
    match fs::read_link(path) {
        Ok(target) => recordings.join(target).parent() != Some(recordings),
        Err(_) => path.symlink_metadata().map_or_else(|error| error.kind() != io::ErrorKind::NotFound, |_| true),
    }
}

impl Entries {
    pub(super) fn read(recordings: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        for entry in fs::read_dir(recordings)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Through a link too: recordings may stand on a larger disk.
            match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_dir() => {}
                Err(error) if !name.starts_with('.') && leads_out(&entry.path(), recordings) => {
                    found.unreadable.insert(name, format!("{}: {error}", entry.path().display()));
                    continue;
                }
                Ok(_) | Err(_) => {
                    found.files.push(entry);
                    continue;
                }
            }
            found.names.extend(RecordingName::from_str(&name).ok());
            found.folders.insert(name);
        }
        Ok(found)
    }
}

impl Engine {
    /// Reads the whole library and offers what is pending. A recording that can't be read keeps what was known of it;
    /// one whose folder is as it was is not read again.
    ///
    /// # Errors
    /// The folder of recordings can't be read: nothing is forgotten.
    pub fn scan(&self) -> io::Result<()> {
        self.journals.write_kept();
        // Looked for on both sides of the reading: a disk that comes or goes in between is noticed.
        let before = self.look_for_library();
        let entries = Entries::read(&self.deps.recordings);
        let away = match &entries {
            Err(error) => Some(LibraryUnavailable::Unreadable(error.to_string())),
            Ok(_) => before.or_else(|| self.look_for_library()),
        };
        let is_here = away.is_none();
        self.note_away(away);
        let Entries { names, folders, files, unreadable } = entries?;
        let has_any = !folders.is_empty() || !files.is_empty();
        let free_bytes = disk::free_bytes(&self.deps.recordings);
        let is_seen = |name: &RecordingName| names.contains(name) || unreadable.contains_key(name.as_str());
        let gone: Vec<_> = self.state().recordings.keys().filter(|name| !is_seen(name)).cloned().collect();
        for name in &gone {
            self.note_gone(name, is_here);
        }
        if let Ok(free_bytes) = free_bytes {
            self.state().filling.sample(free_bytes, self.deps.clock.tick());
        }
        self.scan_each(names);
        for (name, error) in &unreadable {
            self.note_unreadable(name, Some(error.clone()));
        }
        self.salvage(&files);
        let unmanaged = self.gather_unmanaged(&files, &folders)?;
        let mut state = self.state();
        if is_here {
            state.unmanaged = unmanaged;
            state.unreadable.retain(|name, _| folders.contains(name) || unreadable.contains_key(name));
        } else {
            state.unmanaged.retain(|_, found| found.is_any_unadopted());
            state.unmanaged.extend(unmanaged);
        }
        drop(state);
        if is_here && has_any {
            self.mark_library();
        }
        self.is_scanned.store(true, Release);
        Ok(())
    }

    /// Takes in that a scan did not see a recording.
    fn note_gone(&self, name: &RecordingName, is_here: bool) {
        // It may have come since the folder was listed, or can't be looked at. A file in its place is no recording.
        let is_gone = match self.deps.recordings.join(name.as_str()).symlink_metadata() {
            Ok(metadata) => metadata.is_file(),
            Err(error) => error.kind() == io::ErrorKind::NotFound,
        };
        if !is_gone {
            return;
        }
        let mut state = self.state();
        // Of what is proven nothing is lost sight of.
        if is_here || state.is_proven(name) {
            state.forget(name);
            return;
        }
        state.let_rest(name);
        drop(state);
        self.note_unreadable(name.as_str(), Some("it stands on a disk that is away".into()));
    }

    /// Remembers which folders can't be read, and tells when one begins to be so.
    pub(super) fn note_unreadable(&self, name: &str, error: Option<String>) {
        let mut state = self.state();
        match error {
            None => drop(state.unreadable.remove(name)),
            Some(error) => {
                if state.unreadable.insert(name.to_owned(), error.clone()).as_ref() != Some(&error) {
                    tracing::warn!(recording = name, error, "a recording can't be read");
                }
            }
        }
    }

    /// Reads the recordings that may still change and offers what is pending.
    pub(super) fn scan_open(&self) {
        let names: Vec<_> = {
            let state = self.state();
            // What can't be read is looked at with all the others.
            let is_open = |found: &&Arc<Recording>| {
                recording::is_open(&found.manifest) && !state.unreadable.contains_key(found.name.as_str())
            };
            state.recordings.values().filter(is_open).map(|found| found.name.clone()).collect()
        };
        self.scan_each(names);
    }

    /// Looks at recordings, on several threads where there are many: a library is read whole at the start, and until
    /// then `list` can't answer.
    fn scan_each(&self, names: impl IntoIterator<Item = RecordingName>) {
        let names: Vec<_> = names.into_iter().collect();
        let threads = thread::available_parallelism().map_or(1, usize::from).min(SCAN_THREADS_MAX);
        let share = names.len().div_ceil(threads).max(SCAN_SHARE_MIN);
        thread::scope(|scope| {
            let mut shares = names.chunks(share);
            let own = shares.next().unwrap_or_default();
            for share in shares {
                scope.spawn(|| share.iter().for_each(|name| self.scan_one(name)));
            }
            own.iter().for_each(|name| self.scan_one(name));
        });
    }

    fn scan_one(&self, name: &RecordingName) {
        let settled = self.state().recordings.get(name).and_then(|known| known.settled());
        if settled.is_some_and(|settled| settled.is_of(&self.deps.recordings, name)) {
            self.note_unreadable(name.as_str(), None);
            self.offer_pending(&mut self.state(), name);
            self.fold(name);
        } else {
            let read = self.refresh(name, ReadReason::Scan);
            self.note_unreadable(name.as_str(), read.err().map(|error| error.to_string()));
        }
    }

    /// Reads one recording and offers what is pending of it.
    ///
    /// # Errors
    /// It can't be read: what was known of it stays.
    pub fn refresh(&self, name: &RecordingName, reason: ReadReason) -> Result<(), ContentError> {
        let earlier = self.state().recordings.get(name).cloned();
        let super::Deps { recordings, machine_id, store_id, .. } = &self.deps;
        let read_at_ns = self.deps.clock.wall();
        let loaded = scan::load(recordings, name, machine_id, store_id, earlier.as_deref(), reason)?;
        let earlier = earlier.map(|earlier| earlier.fingerprint.clone());
        let Some(Loaded { mut recording, manifest }) = loaded else {
            if let Some(reason) = self.is_only_away(name) {
                let (path, source) = (recordings.join(name.as_str()), io::Error::other(reason));
                return Err(ContentError::Unreadable { path, source });
            }
            self.state().forget(name);
            return Ok(());
        };
        recording.fingerprint.note_reading(read_at_ns);
        let mut state = self.state();
        if let Some(known) = state.recordings.get(name) {
            recording.keep_from(known, earlier.as_ref());
        }
        let recording = Arc::new(recording);
        state.recordings.insert(name.clone(), Arc::clone(&recording));
        state.unreadable.remove(name.as_str());
        self.offer_pending(&mut state, name);
        drop(state);
        // Of a long recording that takes a while, in which others want the state.
        if manifest.is_some_and(|manifest| publish::is_due(&recording, *manifest, self.deps.facts.library_id())) {
            self.state().publisher.want(name, self.deps.clock.tick());
        }
        Ok(())
    }

    /// Offers what is pending of a recording, where uploads go by themselves or somebody asked for it.
    pub(super) fn offer_pending(&self, state: &mut State, name: &RecordingName) {
        let may_be_read = !state.held.contains(name) && !state.unreadable.contains_key(name.as_str());
        if !may_be_read || (!state.tuning.settings.auto_upload && !state.asked.contains(name)) {
            return;
        }
        let Some(recording) = state.recordings.get(name).cloned() else { return };
        let rank = state.tuning.rank(Some(&recording));
        for chunk in recording.pending() {
            let item = self.item(name, chunk, rank);
            if state.is_given_up(&item.id, chunk) {
                self.restore_letter(state, item);
            } else if state.queue.offer(item) == Offered::Full {
                break;
            }
        }
        if recording.pending().next().is_none() {
            state.asked.remove(name);
        }
    }

    /// A chunk that was finalized since the run started can't have been sent by an earlier one.
    pub(super) fn item(&self, recording: &RecordingName, chunk: &ChunkEntry, rank: u32) -> Item {
        Item {
            id: ChunkId { recording: recording.clone(), chunk: chunk.name },
            size_bytes: chunk.size_bytes,
            finalized_at_ns: chunk.finalized_at_ns,
            rank,
            is_fresh: chunk.finalized_at_ns >= self.started_at_ns,
        }
    }

    /// Takes in the bytes of a finalize event: what the disk confirms is queued at once.
    ///
    /// Idempotent. What is refused is counted, save `Missing`, which the caller may hold a while and give to
    /// [`Engine::announce`] again before it counts it with [`Engine::refuse`].
    ///
    /// # Errors
    /// Why the event is refused.
    pub fn take_event(&self, bytes: &[u8], format: Option<Format>) -> Result<(), (Refused, Option<Announced>)> {
        self.has_heard.store(true, Relaxed);
        let decoded = if bytes.len() > EVENT_BYTES_MAX { None } else { FinalizeEvent::decode(bytes, format).ok() };
        let announced =
            decoded.ok_or(Refused::Undecodable).and_then(|event| intake::check(&event, &self.deps.machine_id));
        let announced = announced.map_err(|refused| (self.refuse(refused), None))?;
        match self.announce(&announced) {
            Ok(()) => Ok(()),
            Err(Refused::Missing) => Err((Refused::Missing, Some(announced))),
            Err(refused) => Err((self.refuse(refused), None)),
        }
    }

    /// Queues an announced chunk if the disk confirms it. Nothing is counted.
    ///
    /// # Errors
    /// Why the disk does not.
    pub fn announce(&self, announced: &Announced) -> Result<(), Refused> {
        let Announced { machine_id, recording: name, chunk } = announced;
        if self.is_proven(name, chunk) {
            return Ok(());
        }
        // An early event is looked at again and again: that must not read the whole recording each time.
        let file = ChunkFile::look(&Folder::new(&self.deps.recordings, name), chunk.name).ok_or(Refused::Missing)?;
        if !self.take_file(name, chunk.name, file) {
            self.refresh(name, ReadReason::OnDemand).map_err(|_| Refused::Missing)?;
        }
        let mut guard = self.state();
        let state = &mut *guard;
        let recording = state.recordings.get_mut(name).map(Arc::make_mut).ok_or(Refused::Missing)?;
        let is_foreign = matches!(recording.manifest, ManifestFacts::Readable { is_ours: false, .. });
        let place = recording.chunks.binary_search_by_key(&chunk.name, |entry| entry.name);
        let place = place.map_err(|_| Refused::Missing)?;
        let known = recording.chunks.get(place).ok_or(Refused::Missing)?;
        let disk = match known.facts.local {
            ChunkLocal::Missing | ChunkLocal::Evicted => OnDisk::Absent,
            ChunkLocal::Present | ChunkLocal::Damaged => {
                let is_other_digest = known.digest.is_some_and(|digest| digest != chunk.digest);
                OnDisk::Present { size_bytes: known.size_bytes, is_other_digest, is_foreign }
            }
        };
        intake::compare(chunk, disk)?;
        if !matches!(recording.manifest, ManifestFacts::Readable { .. }) {
            recording.spell_machine(machine_id);
        }
        let entry = recording.chunks.get_mut(place).ok_or(Refused::Missing)?;
        entry.facts.is_announced = true;
        entry.digest = Some(chunk.digest);
        entry.log_time_first_ns = entry.log_time_first_ns.or(chunk.log_time_first_ns);
        entry.log_time_last_ns = entry.log_time_last_ns.or(chunk.log_time_last_ns);
        let is_kept_back = recording.is_withdrawn() || state.held.contains(name);
        let entry = recording.chunk(chunk.name).filter(|entry| recording::is_pending(&entry.facts) && !is_kept_back);
        if let Some(entry) = entry.filter(|_| state.tuning.settings.auto_upload) {
            let rank = state.tuning.rank(Some(recording));
            let item = self.item(name, entry, rank);
            state.queue.offer(item);
            self.changed.notify_one();
        }
        Ok(())
    }

    /// Tells whether an announced chunk is in the store already: an event that comes again costs no look at the disk.
    fn is_proven(&self, name: &RecordingName, chunk: &bubbaloop_storage_schemas::manifest::Chunk) -> bool {
        let state = self.state();
        let entry = state.recordings.get(name).and_then(|recording| recording.chunk(chunk.name));
        entry.is_some_and(|entry| entry.digest == Some(chunk.digest) && entry.facts.proof.is_some_and(Proof::is_proven))
    }

    /// Takes in the file of a chunk that was just finalized, without reading all of its recording, which costs the more the
    /// longer it is: the next scan does that. Returns false where more must be known first.
    fn take_file(&self, name: &RecordingName, chunk: ChunkName, file: ChunkFile) -> bool {
        let mut state = self.state();
        if state.unreadable.contains_key(name.as_str()) {
            return false;
        }
        let Some(recording) = state.recordings.get_mut(name) else { return false };
        if !matches!(recording.manifest, ManifestFacts::Readable { is_ours: true, has_ended: false }) {
            return false;
        }
        match recording.chunks.binary_search_by_key(&chunk, |entry| entry.name) {
            Ok(place) => recording.chunks.get(place).is_some_and(|entry| entry.is_of(file)),
            Err(place) => {
                Arc::make_mut(recording).chunks.insert(place, ChunkEntry::of_file(chunk, file));
                true
            }
        }
    }

    /// Counts a refused event, and logs it as long as there are few.
    pub fn refuse(&self, refused: Refused) -> Refused {
        let mut state = self.state();
        intake::count(&mut state.refused, refused);
        let total = state.refused.total;
        drop(state);
        match total.cmp(&(REFUSED_EVENTS_LOGGED_MAX as u64)) {
            Ordering::Less => tracing::warn!(?refused, total, "a finalize event is refused"),
            Ordering::Equal => tracing::warn!(total, "further refused events are counted and not logged"),
            Ordering::Greater => {}
        }
        refused
    }

    /// Returns how many events were refused, and why.
    pub fn refused_events(&self) -> RefusedEvents {
        self.state().refused
    }

    /// Sends now what is known of a recording (of all, without one): its chunks go first, and what was given up or
    /// found damaged is tried again. Returns its chunks, the proven ones too. A recording that a person removed from the
    /// store goes up again where it is named, and so do chunks at once that no readable manifest names.
    pub fn ask(&self, name: Option<&RecordingName>) -> Vec<RequestedChunk> {
        let is_named = name.is_some();
        let names: Vec<_> = match name {
            Some(name) => vec![name.clone()],
            None => {
                self.discover();
                self.state().recordings.keys().cloned().collect()
            }
        };
        let mut errands = Vec::new();
        for name in &names {
            let read = self.refresh(name, ReadReason::OnDemand);
            self.note_unreadable(name.as_str(), read.err().map(|error| error.to_string()));
            if is_named {
                self.offer_again(name);
            }
            let mut guard = self.state();
            let state = &mut *guard;
            let may_go = |recording: &&mut Arc<Recording>| recording.is_ours() && !recording.is_withdrawn();
            let Some(recording) = state.recordings.get_mut(name).filter(may_go) else { continue };
            let recording = Arc::make_mut(recording);
            for chunk in &mut recording.chunks {
                if chunk.facts.local == ChunkLocal::Damaged {
                    chunk.facts.local = ChunkLocal::Present;
                }
                // Who names a recording need not wait for the scans that see a chunk without a manifest's word.
                if is_named && chunk.facts.local == ChunkLocal::Present {
                    chunk.facts.sightings = chunk.facts.sightings.max(recording::SIGHTINGS_MIN);
                }
            }
            let is_meant = |chunk: &&ChunkEntry| recording::is_finalized(&chunk.facts);
            errands.extend(recording.chunks.iter().filter(is_meant).map(|chunk| RequestedChunk {
                id: ChunkId { recording: name.clone(), chunk: chunk.name },
                size_bytes: chunk.size_bytes,
            }));
            state.asked.insert(name.clone());
            self.offer_pending(state, name);
            state.queue.prioritize(name);
        }
        self.changed.notify_one();
        errands
    }

    /// Reads the recordings that no scan saw yet: who asks for all means them too.
    pub fn discover(&self) {
        // Why the folder can't be read is told by the scans.
        let Ok(entries) = Entries::read(&self.deps.recordings) else { return };
        for name in entries.names.iter().filter(|name| !self.knows(name.as_str())) {
            if let Err(error) = self.refresh(name, ReadReason::OnDemand) {
                tracing::warn!(recording = %name, %error, "a recording can't be read");
            }
        }
    }

    /// Returns what a sync that takes this one's place must know.
    pub fn legacy(&self) -> Handover {
        let state = self.state();
        let is_away = |found: &&Arc<Recording>| state.unreadable.contains_key(found.name.as_str());
        Handover {
            asked: state.asked.clone(),
            refused: state.refused,
            away: state.recordings.values().filter(is_away).cloned().collect(),
            place_without_mark: state.place_without_mark,
            journals: Some(Arc::clone(&self.journals)),
        }
    }

    /// Forgets that somebody asked for a recording (for all, without one). What waits by itself goes on.
    pub fn forget_asked(&self, name: Option<&RecordingName>) {
        self.state().asked.retain(|asked| name.is_some_and(|name| name != asked));
    }

    /// Takes the place of another sync.
    pub(super) fn inherit(&self, legacy: Handover) {
        let mut state = self.state();
        state.asked.extend(legacy.asked);
        state.refused = legacy.refused;
        state.place_without_mark = legacy.place_without_mark;
        for mut recording in legacy.away {
            // The store may be another one.
            for chunk in &mut Arc::make_mut(&mut recording).chunks {
                (chunk.facts.proof, chunk.marked_at_ns, chunk.etag) = (None, None, None);
            }
            state.recordings.insert(recording.name.clone(), recording);
        }
    }

    /// Tells how a chunk stands that somebody asked for.
    pub fn standing(&self, id: &ChunkId) -> UploadOutcome {
        let state = self.state();
        let failed = |reason: &str, is_corrupt| UploadOutcome::Failed { reason: reason.to_owned(), is_corrupt };
        let chunk = state.recordings.get(&id.recording).and_then(|recording| recording.chunk(id.chunk));
        let Some(chunk) = chunk else { return failed("it is not there any more", true) };
        if chunk.facts.proof.is_some_and(Proof::is_proven) {
            return UploadOutcome::Proven;
        }
        match (state.queue.stage(id), chunk.facts.local) {
            (Some(Stage::Dead(reason)), local) => failed(reason, local != ChunkLocal::Present),
            // It is tried again; who asked need not wait for a disk that may stay so.
            (Some(Stage::Waiting), _) if let Some(reason) = state.queue.unreadable(id) => failed(reason, false),
            (Some(Stage::Waiting | Stage::InFlight), _) => UploadOutcome::Waiting,
            // Nothing waits for a disk that may stay away.
            (None, ChunkLocal::Present) => {
                let reason = state.unreadable.get(id.recording.as_str());
                reason.map_or(UploadOutcome::Waiting, |reason| failed(reason, false))
            }
            (None, ChunkLocal::Missing) => failed("its file is missing", true),
            (None, ChunkLocal::Damaged) => failed("its file is damaged", true),
            (None, ChunkLocal::Evicted) => failed("it was evicted and is not proven in this store", true),
        }
    }
}
