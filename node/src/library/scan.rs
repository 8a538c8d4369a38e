//! Reads one recording's folder: its manifest, its chunks' files, its journal, merged.

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::Arc,
};

use bubbaloop_storage_schemas::{
    ChunkName, Digest, MachineId, RecordingName, UnixNs,
    adopt::AdoptedFrom,
    keys::ObjectKey,
    limits::{CHUNK_BYTES_MAX, CHUNKS_PER_RECORDING_MAX, MANIFEST_BYTES_MAX},
    manifest::{Checked, Indices, Manifest},
    reply::{ChunkLocal, Proof},
};

pub use self::fingerprint::{Fingerprint, OwnLine};
use super::{
    journal::{self, Fold, Mark, Published},
    mtime_ns,
};
use crate::{
    content::{self, ContentError},
    policy::{
        fetch,
        manifest::Uploaded,
        parts::BegunUpload,
        recording::{self, ChunkFacts, ManifestFacts},
    },
};

mod fingerprint;

/// Where the parts of one recording are.
#[derive(Debug, Clone)]
pub struct Folder(PathBuf);

impl Folder {
    /// Names the folder of a recording.
    pub fn new(recordings: &Path, name: &RecordingName) -> Self {
        Self(recordings.join(name.as_str()))
    }

    /// Names a folder that is laid out as a recording's.
    pub fn at(folder: &Path) -> Self {
        Self(folder.to_owned())
    }

    /// Returns where it is.
    pub fn root(&self) -> &Path {
        &self.0
    }

    /// The recorder's manifest.
    pub fn manifest(&self) -> PathBuf {
        self.0.join("manifest.json")
    }

    /// The journal.
    pub fn journal(&self) -> PathBuf {
        self.0.join("uploads.jsonl")
    }

    /// The folder of the chunks' files.
    pub fn chunks(&self) -> PathBuf {
        self.0.join("chunks")
    }

    /// A chunk's file.
    pub fn chunk(&self, name: ChunkName) -> PathBuf {
        self.chunks().join(name.to_string())
    }

    /// What of a chunk's file was fetched so far.
    pub fn part(&self, name: ChunkName) -> PathBuf {
        self.chunks().join(format!(".{name}.part"))
    }

    /// Returns the chunk of which a file name is the fetched part.
    pub fn chunk_of_part(file_name: &str) -> Option<ChunkName> {
        file_name.strip_prefix('.')?.strip_suffix(".part")?.parse().ok()
    }
}

/// One chunk as manifest, disk and journal tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkEntry {
    /// Its name.
    pub name: ChunkName,
    /// Its digest; `None` while only the eight digits of its name are known.
    pub digest: Option<Digest>,
    /// The file's size; the manifest's where there is no file.
    pub size_bytes: u64,
    /// The first log time in it.
    pub log_time_first_ns: Option<UnixNs>,
    /// The last log time in it.
    pub log_time_last_ns: Option<UnixNs>,
    /// When its file was finalized; zero where there is none.
    pub finalized_at_ns: UnixNs,
    /// What decides whether it goes up.
    pub facts: ChunkFacts,
    /// When its upload was proven.
    pub marked_at_ns: Option<UnixNs>,
    /// The ETag of the object that was proven.
    pub etag: Option<Box<str>>,
    /// The digest that the manifest names, where the file's bytes have another one that fits the chunk's name.
    pub refused_digest: Option<Digest>,
    /// The last comparison with the store that saw the object as it was proven.
    pub seen_in_pass: u32,
    /// Until when it is not removed to make room: a person had it fetched from the store.
    pub pinned_until_ns: Option<UnixNs>,
}

impl ChunkEntry {
    /// A chunk whose file stands there and of which nothing else is known.
    pub fn of_file(name: ChunkName, file: ChunkFile) -> Self {
        let ChunkFile { size_bytes, finalized_at_ns } = file;
        Self {
            name,
            digest: None,
            size_bytes,
            log_time_first_ns: None,
            log_time_last_ns: None,
            finalized_at_ns,
            facts: ChunkFacts {
                is_listed: false,
                is_announced: false,
                sightings: 0,
                local: ChunkLocal::Present,
                proof: None,
            },
            marked_at_ns: None,
            etag: None,
            refused_digest: None,
            seen_in_pass: 0,
            pinned_until_ns: None,
        }
    }

    /// Tells whether its file is this one.
    pub fn is_of(&self, file: ChunkFile) -> bool {
        self.facts.local == ChunkLocal::Present
            && (self.size_bytes, self.finalized_at_ns) == (file.size_bytes, file.finalized_at_ns)
    }

    /// Tells whether somebody wants its file to stay. `now_ns` is wall time.
    pub const fn is_pinned(&self, now_ns: UnixNs) -> bool {
        matches!(self.pinned_until_ns, Some(until_ns) if now_ns < until_ns)
    }

    /// Takes in that its bytes have a digest that fits its name and is not the manifest's: the manifest is wrong, and
    /// the chunk goes up as one that no manifest names.
    pub fn contradict(&mut self, found: Option<Digest>) {
        self.refused_digest = self.digest;
        self.digest = found;
        self.facts.is_listed = false;
        self.facts.is_announced = true;
    }
}

/// One recording as manifest, disk and journal tell it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Recording {
    /// Its name.
    pub name: RecordingName,
    /// Whose it is: this machine's, where no readable manifest says otherwise.
    pub machine_id: MachineId,
    /// Its manifest.
    pub manifest: ManifestFacts,
    /// When it began.
    pub started_at_ns: Option<UnixNs>,
    /// When it ended.
    pub ended_at_ns: Option<UnixNs>,
    /// A person's labels.
    pub tags: Vec<String>,
    /// Nothing here can heal it.
    pub is_corrupt: bool,
    /// When the journal was told so, or that it is healed.
    pub corrupt_noted_at_ns: Option<UnixNs>,
    /// Whether a person removed it from the store, so that nothing of it goes up by itself, and when that was noted.
    pub withdrawn: Option<(bool, UnixNs)>,
    /// When a person began to remove its files.
    pub removal_begun_at_ns: Option<UnixNs>,
    /// Its chunks, by index.
    pub chunks: Vec<ChunkEntry>,
    /// When its folder changed last.
    pub touched_at_ns: UnixNs,
    /// The remote manifest that was written last.
    pub published: Option<Published>,
    /// MCAP files among its chunks whose names are no chunk's, with their size: nobody takes them anywhere.
    pub strays: (u64, u64),
    /// The files among its chunks that are open in a recorder, or that a crash left so.
    pub open_files: Vec<Box<str>>,
    /// What its folder looked like when it was read.
    pub fingerprint: Fingerprint,
    /// What it was made of, where it was adopted.
    pub adopted_from: Option<Arc<AdoptedFrom>>,
    /// Its manifest says of every proven chunk what the journal says.
    pub is_folded: bool,
    /// The last comparison with the store that saw the remote manifest as it was written.
    pub manifest_seen_in_pass: u32,
    /// The uploads in parts that were begun and have not ended.
    pub begun: BTreeMap<ChunkName, BegunUpload>,
}

/// A recording as it was just read.
#[derive(Debug)]
pub struct Loaded {
    /// The merged view.
    pub recording: Recording,
    /// Its manifest, where one is readable.
    pub manifest: Option<Box<Manifest>>,
}

impl Recording {
    /// Returns the chunks that are to go up. Another machine's never are, and what a person removed from the store is not.
    pub fn pending(&self) -> impl Iterator<Item = &ChunkEntry> {
        let may_go = self.is_ours() && !self.is_withdrawn();
        self.chunks.iter().filter(move |chunk| may_go && recording::is_pending(&chunk.facts))
    }

    /// Tells whether a person removed it from the store and did not want it there again.
    pub const fn is_withdrawn(&self) -> bool {
        matches!(self.withdrawn, Some((true, _)))
    }

    /// Takes in that a person removes it from the store: nothing of it counts as being there any more.
    pub fn withdraw(&mut self, at_ns: UnixNs) {
        self.withdrawn = Some((true, at_ns));
        self.published = None;
        for chunk in &mut self.chunks {
            chunk.facts.proof = None;
            chunk.marked_at_ns = None;
            chunk.etag = None;
        }
    }

    /// Tells whether it is this machine's, as far as is known.
    pub const fn is_ours(&self) -> bool {
        !matches!(self.manifest, ManifestFacts::Readable { is_ours: false, .. })
    }

    /// Tells whether nothing will be added to it: it names an end, or was interrupted. `now_ns` is wall time.
    pub const fn has_ended(&self, now_ns: UnixNs) -> bool {
        match self.manifest {
            ManifestFacts::Readable { has_ended: true, .. } => true,
            ManifestFacts::Readable { .. } | ManifestFacts::Absent | ManifestFacts::Refused(_) => {
                recording::is_still(self.touched_at_ns, now_ns)
            }
        }
    }

    /// Tells whether all of its chunks are proven in the store.
    pub fn is_proven_whole(&self) -> bool {
        self.chunks.iter().all(|chunk| chunk.facts.proof.is_some_and(Proof::is_proven))
    }

    /// Tells whether its marks may be folded into its manifest: it is ours, has ended, and
    /// nothing waits.
    pub fn is_foldable(&self) -> bool {
        let is_ended = matches!(self.manifest, ManifestFacts::Readable { is_ours: true, has_ended: true });
        is_ended && !self.is_folded && self.published.is_some() && self.pending().next().is_none()
    }

    /// Returns one of its chunks.
    pub fn chunk(&self, name: ChunkName) -> Option<&ChunkEntry> {
        let place = self.chunks.binary_search_by_key(&name, |chunk| chunk.name).ok()?;
        self.chunks.get(place)
    }

    /// Returns one of its chunks, to be changed.
    pub fn chunk_mut(&mut self, name: ChunkName) -> Option<&mut ChunkEntry> {
        let place = self.chunks.binary_search_by_key(&name, |chunk| chunk.name).ok()?;
        self.chunks.get_mut(place)
    }

    /// Takes in how its recorder spells the machine. What is proven under another spelling's keys is not under its own.
    pub fn spell_machine(&mut self, machine_id: &MachineId) {
        if self.machine_id == *machine_id {
            return;
        }
        self.machine_id = machine_id.clone();
        for chunk in &mut self.chunks {
            (chunk.facts.proof, chunk.marked_at_ns, chunk.etag) = (None, None, None);
        }
    }

    /// Keeps what `known` has and the disk does not tell: marks of which the journal line could not be written
    /// or was written after the journal was read, and announcements that came meanwhile. `earlier` is what was known when
    /// the reading began.
    ///
    /// Where a line was written meanwhile, it may have taken marks back that were read before.
    pub fn keep_from(&mut self, known: &Self, earlier: Option<&Fingerprint>) {
        self.fingerprint.keep_from(earlier, &known.fingerprint);
        if !matches!(self.manifest, ManifestFacts::Readable { .. }) {
            self.machine_id = known.machine_id.clone();
        }
        // Under another spelling of the machine the store's objects are others.
        let is_same_place = self.machine_id == known.machine_id;
        self.manifest_seen_in_pass = known.manifest_seen_in_pass;
        self.begun.clone_from(&known.begun);
        if known.corrupt_noted_at_ns > self.corrupt_noted_at_ns {
            (self.is_corrupt, self.corrupt_noted_at_ns) = (known.is_corrupt, known.corrupt_noted_at_ns);
        }
        self.removal_begun_at_ns = self.removal_begun_at_ns.max(known.removal_begun_at_ns);
        // Written after the journal was read.
        match known.withdrawn {
            Some((true, at_ns)) if known.withdrawn_at_ns() > self.withdrawn_at_ns() => self.withdraw(at_ns),
            later if known.withdrawn_at_ns() > self.withdrawn_at_ns() => self.withdrawn = later,
            _ => {}
        }
        for chunk in &mut self.chunks {
            let Some(before) = known.chunk(chunk.name) else { continue };
            chunk.facts.is_announced |= before.facts.is_announced;
            chunk.seen_in_pass = before.seen_in_pass;
            chunk.pinned_until_ns = chunk.pinned_until_ns.max(before.pinned_until_ns);
            if self.fingerprint.is_overtaken() && before.marked_at_ns.is_none() {
                (chunk.facts.proof, chunk.marked_at_ns, chunk.etag) = (before.facts.proof, None, None);
            }
            let is_same = chunk.digest.is_none() || before.digest.is_none() || chunk.digest == before.digest;
            if is_same_place && is_same && chunk.marked_at_ns.is_none() && before.marked_at_ns.is_some() {
                chunk.digest = before.digest;
                chunk.facts.proof = before.facts.proof;
                chunk.marked_at_ns = before.marked_at_ns;
                chunk.etag.clone_from(&before.etag);
            }
        }
    }

    fn withdrawn_at_ns(&self) -> Option<UnixNs> {
        self.withdrawn.map(|(_, at_ns)| at_ns)
    }

    /// Returns what its folder must look like for nothing to be read again; `None` where something in it waits for
    /// another look.
    ///
    /// A damaged file may be mended in place, which its folder does not show.
    pub fn settled(&self) -> Option<Fingerprint> {
        let waits = |chunk: &ChunkEntry| {
            chunk.facts.local == ChunkLocal::Damaged
                || (!chunk.facts.is_listed && chunk.facts.sightings < recording::SIGHTINGS_MIN)
        };
        let is_settled = self.fingerprint.is_settled() && !self.chunks.iter().any(waits);
        is_settled.then(|| self.fingerprint.clone())
    }

    /// Tells how the chunk of a name is proven in the store, as a manifest records it; `None` where it is not.
    pub fn uploaded(&self, name: &str) -> Option<Uploaded<'_>> {
        let chunk = self.chunk(name.parse().ok()?)?;
        let (sha256, at_ns, etag) = (chunk.digest?, chunk.marked_at_ns?, chunk.etag.as_deref()?);
        chunk.facts.proof.is_some_and(Proof::is_proven).then_some(Uploaded { sha256, at_ns, etag })
    }

    /// Returns how many chunks no manifest names that were seen often enough to count.
    pub fn unlisted_chunks(&self) -> usize {
        let is_unlisted = |chunk: &&ChunkEntry| {
            !chunk.facts.is_listed
                && (chunk.refused_digest.is_some() || chunk.facts.sightings >= recording::SIGHTINGS_MIN)
        };
        self.chunks.iter().filter(is_unlisted).count()
    }
}

/// Why a recording's folder is read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadReason {
    /// A scan came by: a chunk that it sees has been there for another while.
    Scan,
    /// Something asked in between: that tells nothing of how long a chunk has been there.
    OnDemand,
}

/// Reads a recording's folder; `None` where it is none. `earlier` is what was known before.
///
/// # Errors
/// The folder can't be read: nothing is known of it then, which is not the same as nothing being there.
pub fn load(
    recordings: &Path,
    name: &RecordingName,
    machine_id: &MachineId,
    store_id: &str,
    earlier: Option<&Recording>,
    reason: ReadReason,
) -> Result<Option<Loaded>, ContentError> {
    let folder = Folder::new(recordings, name);
    // Taken before the reading: a change meanwhile shows as one later.
    let fingerprint = Fingerprint::of(&folder);
    let unreadable = |path: PathBuf| move |source: io::Error| ContentError::Unreadable { path, source };
    let mut files = chunk_files(&folder.chunks()).map_err(unreadable(folder.chunks()))?;
    let manifest = read_manifest(&folder, name);
    if files.is_none() && matches!(manifest, Read::Absent) {
        return Ok(None);
    }
    // Without its journal nothing is known to be uploaded, and the store tells each chunk again: no upload stops.
    let mut fold = journal::load(&folder.journal(), store_id).unwrap_or_else(|error| {
        tracing::warn!(recording = %name, %error, "the journal can't be read");
        Fold::default()
    });
    let mut recording = Recording {
        name: name.clone(),
        machine_id: machine_id.clone(),
        manifest: ManifestFacts::Absent,
        started_at_ns: None,
        ended_at_ns: None,
        tags: Vec::new(),
        is_corrupt: false,
        corrupt_noted_at_ns: None,
        withdrawn: fold.withdrawn,
        removal_begun_at_ns: fold.removal_begun_at_ns,
        chunks: Vec::new(),
        touched_at_ns: fingerprint.touched_at_ns().max(files.as_ref().map_or(0, |files| files.written_at_ns)),
        published: None,
        strays: files.as_ref().map_or((0, 0), |files| files.strays),
        open_files: files.as_mut().map(|files| std::mem::take(&mut files.open)).unwrap_or_default(),
        fingerprint,
        adopted_from: None,
        is_folded: false,
        manifest_seen_in_pass: 0,
        begun: std::mem::take(&mut fold.begun),
    };
    let mut readable = None;
    match manifest {
        Read::Absent => {}
        Read::Refused(reasons) => recording.manifest = ManifestFacts::Refused(reasons),
        Read::Readable(manifest, checked) => {
            let is_ours = checked.machine_id.is_same_machine(machine_id);
            let has_ended = manifest.ended_at_ns.is_some();
            recording.manifest = ManifestFacts::Readable { is_ours, has_ended };
            recording.started_at_ns = Some(manifest.started_at_ns);
            recording.ended_at_ns = manifest.ended_at_ns;
            recording.is_corrupt = manifest.corrupt.unwrap_or(false);
            recording.chunks = listed(&manifest, &checked);
            recording.tags.clone_from(&manifest.tags);
            recording.adopted_from = AdoptedFrom::of(&manifest).map(Arc::new);
            recording.machine_id = checked.machine_id;
            readable = Some(manifest);
        }
    }
    add_files(&mut recording.chunks, files.unwrap_or_default().chunks, earlier, reason);
    // Until a manifest tells how the recorder spells the machine, an event's spelling holds.
    if let (None, Some(earlier)) = (&readable, earlier) {
        recording.machine_id = earlier.machine_id.clone();
    }
    add_marks(&mut recording, std::mem::take(&mut fold.marks));
    add_evicted(&mut recording.chunks, &fold, earlier);
    for (name, &restored_at_ns) in &fold.restored {
        if let Some(entry) = recording.chunk_mut(*name) {
            entry.pinned_until_ns = Some(fetch::pinned_until_ns(restored_at_ns));
        }
    }
    if let Some((is_corrupt, noted_at_ns)) = fold.corrupt {
        (recording.is_corrupt, recording.corrupt_noted_at_ns) = (is_corrupt, Some(noted_at_ns));
    }
    recording.published = fold.published;
    recording.is_folded = readable.as_ref().is_some_and(|manifest| is_folded(manifest, &recording));
    Ok(Some(Loaded { recording, manifest: readable }))
}

fn is_folded(manifest: &Manifest, recording: &Recording) -> bool {
    manifest.chunks.iter().all(|chunk| recording.uploaded(&chunk.name).is_none_or(|mark| mark.is_recorded(chunk)))
}

/// Reads a recording's manifest; `None` where none is readable.
pub fn manifest(recordings: &Path, name: &RecordingName) -> Option<Manifest> {
    match read_manifest(&Folder::new(recordings, name), name) {
        Read::Readable(manifest, _) => Some(*manifest),
        Read::Absent | Read::Refused(_) => None,
    }
}

/// What stands in a recording's `manifest.json`.
enum Read {
    Absent,
    Refused(Vec<String>),
    Readable(Box<Manifest>, Checked),
}

fn read_manifest(folder: &Folder, name: &RecordingName) -> Read {
    let text = match content::read(&folder.manifest(), MANIFEST_BYTES_MAX) {
        Ok(text) => text,
        Err(ContentError::Gone(_)) => return Read::Absent,
        Err(error) => return Read::Refused(vec![error.to_string()]),
    };
    match Manifest::parse(&text, Indices::Contiguous) {
        Ok((_, checked)) if checked.name != *name => {
            Read::Refused(vec![format!("it is the manifest of {}, not of {name}", checked.name)])
        }
        Ok((manifest, checked)) => Read::Readable(Box::new(manifest), checked),
        Err(reasons) => Read::Refused(reasons),
    }
}

/// The chunks that a manifest names, not yet looked for on disk. What it says of uploads is a claim.
fn listed(manifest: &Manifest, checked: &Checked) -> Vec<ChunkEntry> {
    let entry = |(chunk, claimed_at_ns): (&bubbaloop_storage_schemas::manifest::Chunk, Option<UnixNs>)| ChunkEntry {
        name: chunk.name,
        digest: Some(chunk.digest),
        size_bytes: chunk.size_bytes,
        log_time_first_ns: chunk.log_time_first_ns,
        log_time_last_ns: chunk.log_time_last_ns,
        finalized_at_ns: 0,
        facts: ChunkFacts {
            is_listed: true,
            is_announced: false,
            sightings: 0,
            local: ChunkLocal::Missing,
            proof: claimed_at_ns.map(|_| Proof::Claimed),
        },
        marked_at_ns: None,
        etag: None,
        refused_digest: None,
        seen_in_pass: 0,
        pinned_until_ns: None,
    };
    let claims = manifest.chunks.iter().map(|chunk| chunk.uploaded_at_ns);
    checked.chunks.iter().zip(claims).map(entry).collect()
}

/// A chunk's file as it stands in its folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChunkFile {
    /// Its size.
    pub size_bytes: u64,
    /// When it was finalized.
    pub finalized_at_ns: UnixNs,
}

impl ChunkFile {
    /// Looks at a chunk's file; `None` where no regular file stands there.
    pub fn look(folder: &Folder, name: ChunkName) -> Option<Self> {
        let metadata = fs::symlink_metadata(folder.chunk(name)).ok()?;
        metadata.is_file().then(|| Self::of(&metadata))
    }

    fn of(metadata: &fs::Metadata) -> Self {
        Self { size_bytes: size_of(metadata), finalized_at_ns: mtime_ns(metadata) }
    }
}

/// What stands in a folder of chunks.
#[derive(Default)]
struct ChunkFiles {
    /// The regular files with chunks' names.
    chunks: Vec<(ChunkName, ChunkFile)>,
    /// Other MCAP files: how many, and their size.
    strays: (u64, u64),
    /// When a file that is open in a recorder was written to last; zero without one.
    written_at_ns: UnixNs,
    /// The names of such files.
    open: Vec<Box<str>>,
}

/// Returns what stands in a folder of chunks; `None` where there is no such folder.
fn chunk_files(folder: &Path) -> io::Result<Option<ChunkFiles>> {
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(error) => return Err(error),
    };
    let mut files = ChunkFiles::default();
    for entry in entries.take(CHUNKS_PER_RECORDING_MAX) {
        let entry = entry?;
        let name = entry.file_name();
        // A name that is no text is a stray's.
        let name = &*name.to_string_lossy();
        let chunk = ChunkName::from_str(name).ok();
        let is_stray = chunk.is_none() && name.ends_with(".mcap") && !name.starts_with('.');
        if chunk.is_none() && !is_stray && !name.ends_with(".active") {
            continue;
        }
        match (entry.metadata(), chunk) {
            (Ok(metadata), None) if is_stray => {
                files.strays = (files.strays.0 + 1, files.strays.1 + size_of(&metadata));
            }
            (Ok(metadata), Some(chunk)) if metadata.is_file() => files.chunks.push((chunk, ChunkFile::of(&metadata))),
            (Ok(metadata), None) => {
                files.written_at_ns = files.written_at_ns.max(mtime_ns(&metadata));
                files.open.push(name.into());
            }
            // A link does not go up, and what it points to may be nowhere else.
            (Ok(_), Some(_)) => match fs::metadata(entry.path()) {
                Ok(metadata) if metadata.is_file() => {
                    files.strays = (files.strays.0 + 1, files.strays.1 + size_of(&metadata));
                }
                Err(error) if error.kind() == io::ErrorKind::NotFound => files.strays.0 += 1,
                Ok(_) | Err(_) => {}
            },
            (Err(error), _) if error.kind() == io::ErrorKind::NotFound => {}
            (Err(error), _) => return Err(error),
        }
    }
    Ok(Some(files))
}

/// A sparse file may claim more bytes than any object has: sums of sizes stay within their type.
fn size_of(metadata: &fs::Metadata) -> u64 {
    metadata.len().min(CHUNK_BYTES_MAX)
}

fn add_files(
    chunks: &mut Vec<ChunkEntry>,
    files: Vec<(ChunkName, ChunkFile)>,
    earlier: Option<&Recording>,
    reason: ReadReason,
) {
    let mut unlisted = Vec::new();
    for (name, file) in files {
        let before = earlier.and_then(|recording| recording.chunk(name));
        let listed = chunks.binary_search_by_key(&name, |entry| entry.name).ok();
        let mut found = ChunkEntry::of_file(name, file);
        let entry = listed.and_then(|place| chunks.get_mut(place)).unwrap_or(&mut found);
        if let (None, Some(before)) = (listed, before) {
            entry.digest = before.digest;
            (entry.log_time_first_ns, entry.log_time_last_ns) = (before.log_time_first_ns, before.log_time_last_ns);
            entry.facts.is_announced = before.facts.is_announced;
        }
        if let Some(before) =
            before.filter(|before| before.refused_digest.is_some() && before.refused_digest == entry.digest)
        {
            entry.contradict(before.digest);
        }
        (entry.size_bytes, entry.finalized_at_ns) = (file.size_bytes, file.finalized_at_ns);
        entry.facts.sightings =
            before.map_or(0, |before| before.facts.sightings).saturating_add(u8::from(reason == ReadReason::Scan));
        let is_same_file = |before: &&ChunkEntry| {
            before.digest == entry.digest
                && before.size_bytes == entry.size_bytes
                && before.finalized_at_ns == entry.finalized_at_ns
        };
        let is_still_damaged =
            before.filter(is_same_file).is_some_and(|before| before.facts.local == ChunkLocal::Damaged);
        entry.facts.local = if is_still_damaged { ChunkLocal::Damaged } else { ChunkLocal::Present };
        if listed.is_none() {
            unlisted.push(found);
        }
    }
    chunks.append(&mut unlisted);
    chunks.sort_unstable_by_key(|entry| entry.name);
    chunks.shrink_to_fit();
}

/// Tells the files that were removed to make room from those that are missing. A line that a full disk kept in memory is
/// known from before.
fn add_evicted(chunks: &mut [ChunkEntry], fold: &Fold, earlier: Option<&Recording>) {
    for entry in chunks.iter_mut().filter(|entry| entry.facts.local == ChunkLocal::Missing) {
        let before = earlier.and_then(|recording| recording.chunk(entry.name));
        let was_evicted = before.is_some_and(|before| before.facts.local == ChunkLocal::Evicted);
        if was_evicted || fold.evicted.contains(&entry.name) {
            entry.facts.local = ChunkLocal::Evicted;
        }
    }
}

fn add_marks(recording: &mut Recording, marks: BTreeMap<ChunkName, Mark>) {
    for (name, mark) in marks {
        let key = ObjectKey::chunk(&recording.machine_id, &recording.name, name);
        let Some(entry) = recording.chunk_mut(name) else { continue };
        if mark.key.as_deref().is_some_and(|marked| marked != key.as_str()) {
            continue;
        }
        let is_proven = mark.proof.is_proven();
        if is_proven && entry.digest.is_some_and(|digest| digest != mark.digest) && name.fits(&mark.digest) {
            entry.contradict(Some(mark.digest));
        }
        if entry.digest.is_none_or(|digest| digest == mark.digest) {
            entry.digest = Some(mark.digest);
            entry.facts.proof = Some(mark.proof);
            entry.marked_at_ns = is_proven.then_some(mark.at_ns);
            entry.etag = is_proven.then(|| mark.etag.into());
        }
    }
}

#[cfg(test)]
mod tests;
