//! The recorders of the simulated machine. They write to a real folder at the times of the simulated clock.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use bubbaloop_storage_schemas::{ChunkName, Digest, UnixNs};
use fastrand::Rng;
use serde_json::{Value, json};

pub(crate) const MACHINE: &str = "robot_1";

/// State of a chunk's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum OnDisk {
    Intact,
    Damaged,
    Missing,
}

/// A recorded chunk.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub name: ChunkName,
    pub digest: Digest,
    pub size_bytes: usize,
    pub file: OnDisk,
    /// Seed of its bytes.
    seed: u64,
}

impl Made {
    fn bytes(&self) -> Vec<u8> {
        bytes(self.seed, self.size_bytes)
    }

    fn row(&self) -> Value {
        json!({
            "name": self.name, "index": self.name.index(), "size_bytes": self.size_bytes, "sha256": self.digest,
            "log_time_first_ns": null, "log_time_last_ns": null
        })
    }
}

/// Returns the unique bytes of a chunk. All but the first few repeat.
fn bytes(seed: u64, size: usize) -> Vec<u8> {
    let mut bytes = vec![u8::try_from(seed % 251).unwrap(); size];
    let head = seed.to_le_bytes();
    let length = head.len().min(size);
    bytes[..length].copy_from_slice(&head[..length]);
    bytes
}

/// A recording and its recorder, which writes the manifest from its own memory.
#[derive(Debug)]
pub(crate) struct Capture {
    pub name: String,
    folder: PathBuf,
    /// The machine's name in this recorder's spelling.
    machine: String,
    pub started_at_ns: UnixNs,
    pub chunks: Vec<Made>,
    pub has_ended: bool,
}

fn touch(path: &Path, wall: UnixNs) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_nanos(wall);
    File::open(path).unwrap().set_modified(time).unwrap();
}

impl Capture {
    pub(crate) fn begin(recordings: &Path, name: &str, machine: &str, wall: UnixNs) -> Self {
        let folder = recordings.join(name);
        fs::create_dir_all(folder.join("chunks")).unwrap();
        let (name, machine) = (name.to_owned(), machine.to_owned());
        let capture = Self { name, folder, machine, started_at_ns: wall, chunks: Vec::new(), has_ended: false };
        capture.touch_folders(wall);
        capture
    }

    fn touch_folders(&self, wall: UnixNs) {
        touch(&self.folder.join("chunks"), wall);
        touch(&self.folder, wall);
    }

    pub(crate) fn chunk_path(&self, chunk: &Made) -> PathBuf {
        self.folder.join("chunks").join(chunk.name.to_string())
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.join("uploads.jsonl")
    }

    /// Writes a chunk's file with its final name.
    pub(crate) fn finalize(&mut self, random: &mut Rng, size_bytes: usize, wall: UnixNs) {
        let index = u32::try_from(self.chunks.len()).unwrap();
        let seed = random.u64(..);
        let digest = Digest::of(&bytes(seed, size_bytes));
        let chunk = Made { name: ChunkName::new(index, &digest), digest, size_bytes, file: OnDisk::Intact, seed };
        self.write(&chunk, &chunk.bytes(), wall);
        self.chunks.push(chunk);
    }

    fn write(&self, chunk: &Made, bytes: &[u8], wall: UnixNs) {
        let path = self.chunk_path(chunk);
        let active = path.with_extension("active");
        fs::write(&active, bytes).unwrap();
        touch(&active, wall);
        fs::rename(active, &path).unwrap();
        self.touch_folders(wall);
    }

    /// Rewrites the manifest from memory.
    pub(crate) fn save(&self, wall: UnixNs) {
        let rows: Vec<_> = self.chunks.iter().map(Made::row).collect();
        let ended = self.has_ended.then_some(wall);
        let manifest = json!({
            "schema_version": 1, "name": self.name, "machine_id": self.machine, "started_at_ns": self.started_at_ns,
            "ended_at_ns": ended, "mode": "streaming", "tags": [], "chunks": rows
        });
        let temporary = self.folder.join(".manifest.new");
        fs::write(&temporary, manifest.to_string()).unwrap();
        touch(&temporary, wall);
        fs::rename(temporary, self.folder.join("manifest.json")).unwrap();
        self.touch_folders(wall);
    }

    /// Leaves an unreadable manifest, as a full disk may.
    pub(crate) fn tear_manifest(&self, wall: UnixNs) {
        fs::write(self.folder.join("manifest.json"), "{\"schema_version\": 1, \"na").unwrap();
        touch(&self.folder.join("manifest.json"), wall);
        self.touch_folders(wall);
    }

    /// Damages, repairs or removes a chunk's file.
    pub(crate) fn change_file(&mut self, place: usize, file: OnDisk, wall: UnixNs) {
        let chunk = self.chunks[place].clone();
        match file {
            OnDisk::Intact => self.write(&chunk, &chunk.bytes(), wall),
            OnDisk::Damaged => {
                let mut bytes = chunk.bytes();
                bytes.truncate(bytes.len() / 2);
                bytes.push(7);
                self.write(&chunk, &bytes, wall);
            }
            OnDisk::Missing => {
                fs::remove_file(self.chunk_path(&chunk)).ok();
                self.touch_folders(wall);
            }
        }
        self.chunks[place].file = file;
    }

    /// Returns the body of a chunk's finalize event.
    pub(crate) fn event(&self, chunk: &Made) -> Value {
        json!({"recording": self.name, "machine_id": self.machine, "chunk": chunk.row()})
    }

    pub(crate) fn remote_folder(&self) -> String {
        format!("{}/{}", self.machine, self.name)
    }

    /// Returns the key of a chunk's object in the recorder's spelling of the machine.
    pub(crate) fn key(&self, chunk: &Made) -> String {
        format!("{}/chunks/{}", self.remote_folder(), chunk.name)
    }

    /// Makes the journal unwritable, or writable again.
    pub(crate) fn block_journal(&self, is_blocked: bool) {
        block(&self.journal(), &self.folder.join(".journal.aside"), is_blocked);
    }

    /// Leaves half a line at the end of the journal, as a crash during an append does.
    pub(crate) fn tear_journal(&self) {
        if let Ok(mut text) = fs::read(self.journal()) {
            text.extend_from_slice(b"{\"at_ns\":17,\"store_id\":\"s\",\"ki");
            fs::write(self.journal(), text).unwrap();
        }
    }
}

/// Replaces a file by a folder, so that it can't be written, or restores the file.
pub(crate) fn block(file: &Path, aside: &Path, is_blocked: bool) {
    if is_blocked && file.is_file() {
        fs::rename(file, aside).unwrap();
        fs::create_dir(file).unwrap();
    } else if is_blocked && !file.exists() {
        fs::create_dir(file).unwrap();
    } else if !is_blocked && file.is_dir() {
        fs::remove_dir(file).unwrap();
        if aside.exists() {
            fs::rename(aside, file).unwrap();
        }
    }
}
