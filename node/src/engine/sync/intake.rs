//! What comes in: scans of the library, finalize events, and what a person asks to be sent.

use std::{
    cmp::Ordering,
    collections::BTreeSet,
    fs::{self, DirEntry},
    io,
    path::Path,
    str::FromStr,
    sync::atomic::Ordering::{Relaxed, Release},
    thread,
};

use bubbaloop_storage_schemas::{
    ChunkName, RecordingName, UnixNs,
    codec::Format,
    event::FinalizeEvent,
    limits::{EVENT_BYTES_MAX, REFUSED_EVENTS_LOGGED_MAX},
    reply::{ChunkLocal, Proof, RefusedEvents},
};

use super::{State, Sync, publish};
use crate::{
    content::ContentError,
    library::{
        disk,
        scan::{self, ChunkEntry, Loaded, Look, Recording},
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
pub enum Standing {
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
pub struct Legacy {
    /// Recordings that somebody asked for and of which something still waits.
    asked: BTreeSet<RecordingName>,
    /// Finalize events that were refused.
    refused: RefusedEvents,
}

/// A chunk that somebody asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Errand {
    /// Which.
    pub id: ChunkId,
    /// Its size.
    pub size_bytes: u64,
}

/// The folders and files under the folder of recordings.
pub(super) struct Entries {
    names: BTreeSet<RecordingName>,
    /// Folders that may be another tool's.
    pub(super) folders: BTreeSet<String>,
    /// What is no folder.
    pub(super) files: Vec<DirEntry>,
}

impl Entries {
    pub(super) fn read(recordings: &Path) -> io::Result<Self> {
        let mut found = Self { names: BTreeSet::new(), folders: BTreeSet::new(), files: Vec::new() };
        for entry in fs::read_dir(recordings)? {
            let entry = entry?;
            let Ok(name) = entry.file_name().into_string() else { continue };
            // Through a link too: recordings may stand on a larger disk.
            if !fs::metadata(entry.path()).is_ok_and(|metadata| metadata.is_dir()) {
                found.files.push(entry);
                continue;
            }
            found.names.extend(RecordingName::from_str(&name).ok());
            found.folders.insert(name);
        }
        Ok(found)
    }
}

impl Sync {
    /// Reads the whole library and offers what is pending. A recording that can't be read keeps what was known of it;
    /// one whose folder is as it was is not read again.
    ///
    /// # Errors
    /// The folder of recordings can't be read: nothing is forgotten.
    pub fn scan(&self) -> io::Result<()> {
        self.journals.write_kept();
        let entries = Entries::read(&self.parts.recordings);
        self.note_scan(entries.as_ref().err());
        let Entries { names, folders, files } = entries?;
        let free_bytes = disk::free_bytes(&self.parts.recordings);
        {
            let mut state = self.state();
            let State { recordings, publisher, filling, .. } = &mut *state;
            for name in recordings.keys().filter(|name| !names.contains(*name)) {
                publisher.forget(name);
            }
            recordings.retain(|name, _| names.contains(name));
            if let Ok(free_bytes) = free_bytes {
                filling.sample(free_bytes, self.parts.clock.tick());
            }
        }
        self.scan_each(names);
        self.salvage(&files);
        let unmanaged = self.gather_unmanaged(&files, &folders)?;
        let mut state = self.state();
        state.unmanaged = unmanaged;
        state.unreadable.retain(|name, _| folders.contains(name));
        drop(state);
        self.is_scanned.store(true, Release);
        Ok(())
    }

    /// Remembers why the folder of recordings can't be read, and tells when that changes.
    fn note_scan(&self, error: Option<&io::Error>) {
        let now = error.map(ToString::to_string);
        let mut state = self.state();
        let before = state.unscannable.as_ref().map(|(reason, _)| reason.clone());
        if now == before {
            return;
        }
        match &now {
            Some(error) => tracing::warn!(error, "the folder of recordings can't be read"),
            None => tracing::info!("the folder of recordings can be read again"),
        }
        state.unscannable = now.map(|reason| (reason, self.parts.clock.wall()));
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
        let is_open = |recording: &&Recording| recording::is_open(&recording.manifest);
        let names: Vec<_> = self.state().recordings.values().filter(is_open).map(|found| found.name.clone()).collect();
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
        let now_ns = self.parts.clock.wall();
        let settled = self.state().recordings.get(name).and_then(|known| known.settled(now_ns));
        if settled.is_some_and(|settled| settled.is_of(&self.parts.recordings, name)) {
            self.offer_pending(&mut self.state(), name);
            self.fold(name);
        } else {
            let read = self.refresh(name, Look::Scan);
            self.note_unreadable(name.as_str(), read.err().map(|error| error.to_string()));
        }
    }

    /// Reads one recording and offers what is pending of it.
    ///
    /// # Errors
    /// It can't be read: what was known of it stays.
    pub fn refresh(&self, name: &RecordingName, look: Look) -> Result<(), ContentError> {
        let earlier = self.state().recordings.get(name).cloned();
        let super::Parts { recordings, machine_id, store_id, .. } = &self.parts;
        let loaded = scan::load(recordings, name, machine_id, store_id, earlier.as_ref(), look)?;
        let mut state = self.state();
        let Some(Loaded { mut recording, manifest }) = loaded else {
            state.recordings.remove(name);
            state.publisher.forget(name);
            return Ok(());
        };
        if let Some(known) = state.recordings.get(name) {
            recording.keep_from(known);
        }
        if manifest.is_some_and(|manifest| publish::is_due(&recording, &manifest, self.parts.facts.library_id())) {
            state.publisher.want(name, self.parts.clock.tick());
        }
        state.recordings.insert(name.clone(), recording);
        self.offer_pending(&mut state, name);
        Ok(())
    }

    /// Offers what is pending of a recording, where uploads go by themselves or somebody asked for it.
    pub(super) fn offer_pending(&self, state: &mut State, name: &RecordingName) {
        if state.held.contains(name) || (!state.tuning.auto_upload && !state.asked.contains(name)) {
            return;
        }
        let Some(recording) = state.recordings.get(name) else { return };
        let pending: Vec<_> = recording.pending().cloned().collect();
        let rank = state.tuning.rank(Some(recording));
        for chunk in &pending {
            let item = self.item(name, chunk, rank);
            if state.is_given_up(&item.id, chunk) {
                self.restore_letter(state, item);
            } else if state.queue.offer(item) == Offered::Full {
                break;
            }
        }
        if pending.is_empty() {
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
    /// [`Sync::announce`] again before it counts it with [`Sync::refuse`].
    ///
    /// # Errors
    /// Why the event is refused.
    pub fn take_event(&self, bytes: &[u8], format: Option<Format>) -> Result<(), (Refused, Option<Announced>)> {
        self.has_heard.store(true, Relaxed);
        let decoded = if bytes.len() > EVENT_BYTES_MAX { None } else { FinalizeEvent::decode(bytes, format).ok() };
        let announced =
            decoded.ok_or(Refused::Undecodable).and_then(|event| intake::check(&event, &self.parts.machine_id));
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
        if !self.has_file(name, chunk.name) {
            return Err(Refused::Missing);
        }
        self.refresh(name, Look::Glance).map_err(|_| Refused::Missing)?;
        let mut guard = self.state();
        let state = &mut *guard;
        let recording = state.recordings.get_mut(name).ok_or(Refused::Missing)?;
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
        if let Some(entry) = entry.filter(|_| state.tuning.auto_upload) {
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

    fn has_file(&self, name: &RecordingName, chunk: ChunkName) -> bool {
        fs::symlink_metadata(scan::Folder::new(&self.parts.recordings, name).chunk(chunk)).is_ok()
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
    pub fn ask(&self, name: Option<&RecordingName>) -> Vec<Errand> {
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
            if let Err(error) = self.refresh(name, Look::Glance) {
                tracing::warn!(recording = %name, %error, "a recording can't be read");
            }
            if is_named {
                self.offer_again(name);
            }
            let mut guard = self.state();
            let state = &mut *guard;
            let may_go = |recording: &&mut Recording| recording.is_ours() && !recording.is_withdrawn();
            let Some(recording) = state.recordings.get_mut(name).filter(may_go) else { continue };
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
            errands.extend(recording.chunks.iter().filter(is_meant).map(|chunk| Errand {
                id: ChunkId { recording: name.clone(), chunk: chunk.name },
                size_bytes: chunk.size_bytes,
            }));
            state.asked.insert(name.clone());
            self.offer_pending(state, name);
            state.queue.urge(Some(name));
        }
        self.changed.notify_one();
        errands
    }

    /// Reads the recordings that no scan saw yet: who asks for all means them too.
    pub fn discover(&self) {
        // Why the folder can't be read is told by the scans.
        let Ok(entries) = Entries::read(&self.parts.recordings) else { return };
        for name in entries.names.iter().filter(|name| !self.knows(name.as_str())) {
            if let Err(error) = self.refresh(name, Look::Glance) {
                tracing::warn!(recording = %name, %error, "a recording can't be read");
            }
        }
    }

    /// Returns what a sync that takes this one's place must know.
    pub fn legacy(&self) -> Legacy {
        let state = self.state();
        Legacy { asked: state.asked.clone(), refused: state.refused }
    }

    /// Forgets that somebody asked for a recording (for all, without one). What waits by itself goes on.
    pub fn forget_asked(&self, name: Option<&RecordingName>) {
        self.state().asked.retain(|asked| name.is_some_and(|name| name != asked));
    }

    /// Takes the place of another sync of this library.
    pub fn inherit(&self, legacy: Legacy) {
        let mut state = self.state();
        state.asked.extend(legacy.asked);
        state.refused = legacy.refused;
    }

    /// Tells how a chunk stands that somebody asked for.
    pub fn standing(&self, id: &ChunkId) -> Standing {
        let state = self.state();
        let failed = |reason: &str, is_corrupt| Standing::Failed { reason: reason.to_owned(), is_corrupt };
        let chunk = state.recordings.get(&id.recording).and_then(|recording| recording.chunk(id.chunk));
        let Some(chunk) = chunk else { return failed("it is not there any more", true) };
        if chunk.facts.proof.is_some_and(Proof::is_proven) {
            return Standing::Proven;
        }
        match (state.queue.stage(id), chunk.facts.local) {
            (Some(Stage::Dead(reason)), local) => failed(reason, local != ChunkLocal::Present),
            (Some(Stage::Waiting | Stage::InFlight), _) | (None, ChunkLocal::Present) => Standing::Waiting,
            (None, ChunkLocal::Missing) => failed("its file is missing", true),
            (None, ChunkLocal::Damaged) => failed("its file is damaged", true),
            (None, ChunkLocal::Evicted) => failed("it was evicted and is not proven in this store", true),
        }
    }

    /// Returns when the run began.
    pub const fn started_at_ns(&self) -> UnixNs {
        self.started_at_ns
    }
}
