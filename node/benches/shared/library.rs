//! Makes libraries: recordings with real names and correct digests.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::Command,
};

use bubbaloop_storage::content;
use bubbaloop_storage_schemas::{ChunkName, Digest};
use fastrand::Rng;
use serde_json::{Value, json};
use tempfile::TempDir;

/// Size of a block of random bytes.
const BLOCK_BYTES: usize = 4 * 1024 * 1024;

const STARTED_AT_NS: u64 = 1_700_000_000_000_000_000;

/// Number of recordings, chunks per recording, and size of a chunk.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Shape {
    pub recordings: usize,
    pub chunks: usize,
    pub chunk_bytes: usize,
}

/// A chunk's file and its row in the manifest.
#[derive(Debug, Clone)]
pub(crate) struct Made {
    pub path: PathBuf,
    pub row: Value,
}

impl Made {
    pub(crate) fn digest(&self) -> Digest {
        serde_json::from_value(self.row["sha256"].clone()).unwrap()
    }
}

/// A folder of recordings.
pub(crate) struct Library {
    pub folder: TempDir,
    machine: String,
    pub recordings: Vec<(String, Vec<Made>)>,
}

/// Writes a chunk of random bytes as a recorder does: it is on the disk before it gets its name.
pub(crate) fn write_chunk(folder: &Path, index: usize, bytes: usize, rng: &mut Rng) -> Made {
    let temporary = folder.join(format!(".chunk-{index:06}.mcap.active"));
    let mut file = fs::File::create(&temporary).unwrap();
    let mut block = vec![0; bytes.min(BLOCK_BYTES)];
    let mut left = bytes;
    while left > 0 {
        let now = left.min(block.len());
        rng.fill(&mut block[..now]);
        file.write_all(&block[..now]).unwrap();
        left -= now;
    }
    let digest = if bytes <= BLOCK_BYTES { Digest::of(&block) } else { content::hash(&temporary).unwrap().0 };
    let index = u32::try_from(index).unwrap();
    let name = ChunkName::new(index, &digest).to_string();
    let path = folder.join(&name);
    fs::rename(&temporary, &path).unwrap();
    Made { path, row: json!({"name": name, "index": index, "size_bytes": bytes, "sha256": digest}) }
}

/// Writes a recording's manifest.
pub(crate) fn write_manifest(folder: &Path, machine: &str, chunks: &[Made], more: &Value) {
    let rows: Vec<_> = chunks.iter().map(|made| &made.row).collect();
    let mut manifest = json!({
        "schema_version": 1, "name": folder.file_name().unwrap().to_str(), "machine_id": machine,
        "started_at_ns": STARTED_AT_NS, "mode": "streaming", "tags": ["bench"], "chunks": rows,
    });
    manifest.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let temporary = folder.join(".manifest.json.recorder");
    fs::write(&temporary, manifest.to_string()).unwrap();
    fs::rename(temporary, folder.join("manifest.json")).unwrap();
}

impl Library {
    /// Makes a library for a machine, on the disk of the build.
    pub(crate) fn make(machine: &str, shape: Shape) -> Self {
        let folder = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let mut rng = Rng::with_seed(7);
        let mut recordings = Vec::new();
        for number in 0..shape.recordings {
            let name = format!("drive_{number:05}");
            let chunks = folder.path().join(&name).join("chunks");
            fs::create_dir_all(&chunks).unwrap();
            let make = |index| write_chunk(&chunks, index, shape.chunk_bytes, &mut rng);
            recordings.push((name, (0..shape.chunks).map(make).collect()));
        }
        let library = Self { folder, machine: machine.to_owned(), recordings };
        library.reset();
        // Pending writes to the disk are not measured.
        Command::new("sync").status().unwrap();
        library
    }

    /// Removes what nodes wrote to it.
    pub(crate) fn reset(&self) {
        for (name, chunks) in &self.recordings {
            let folder = self.folder.path().join(name);
            fs::remove_file(folder.join("uploads.jsonl")).ok();
            write_manifest(&folder, &self.machine, chunks, &json!({"ended_at_ns": STARTED_AT_NS + 1}));
        }
    }

    pub(crate) fn chunks(&self) -> impl Iterator<Item = &Made> {
        self.recordings.iter().flat_map(|(_, chunks)| chunks)
    }

    /// Returns the folder of the first recording's chunks.
    pub(crate) fn chunk_folder(&self) -> PathBuf {
        self.folder.path().join(&self.recordings[0].0).join("chunks")
    }

    /// Returns the setting that selects it.
    pub(crate) fn setting(&self) -> String {
        format!("recordings_dir = {:?}\n", self.folder.path())
    }
}
