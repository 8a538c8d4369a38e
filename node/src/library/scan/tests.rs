#![expect(clippy::disallowed_methods, reason = "tests make the folders that recorders make")]

use bubbaloop_storage_schemas::journal::{JournalEntry, JournalLine};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::{fingerprint::GRAIN_NS, *};

/// A library with one recording that tests write as a recorder would.
struct Disk(TempDir);

impl Disk {
    fn new() -> Self {
        let disk = Self(tempfile::tempdir().unwrap());
        fs::create_dir_all(disk.folder().chunks()).unwrap();
        disk
    }

    fn folder(&self) -> Folder {
        Folder::new(self.0.path(), &"drive".parse().unwrap())
    }

    fn chunk(&self, index: u32) -> Value {
        let content = format!("content {index}");
        let digest = Digest::of(content.as_bytes());
        let name = ChunkName::new(index, &digest);
        fs::write(self.folder().chunk(name), &content).unwrap();
        json!({"name": name, "index": index, "size_bytes": content.len(), "sha256": digest})
    }

    fn manifest(&self, machine: &str, chunks: &[Value]) {
        let manifest = json!({
            "schema_version": 1, "name": "drive", "machine_id": machine, "started_at_ns": 5, "chunks": chunks
        });
        fs::write(self.folder().manifest(), manifest.to_string()).unwrap();
    }

    fn load(&self, earlier: Option<&Recording>) -> Recording {
        load(self.0.path(), &"drive".parse().unwrap(), &"robot_1".parse().unwrap(), "s", earlier, ReadReason::Scan)
            .unwrap()
            .unwrap()
            .recording
    }
}

fn pending(recording: &Recording) -> Vec<u32> {
    recording.pending().map(|chunk| chunk.name.index()).collect()
}

#[test]
fn what_the_manifest_names_and_the_disk_has_goes_up() {
    let disk = Disk::new();
    let chunks = [disk.chunk(0), disk.chunk(1)];
    disk.manifest("robot-1", &chunks);
    fs::remove_file(disk.folder().chunks().join(chunks[1]["name"].as_str().unwrap())).unwrap();
    let recording = disk.load(None);
    assert_eq!(pending(&recording), [0]);
    assert_eq!(recording.chunks[1].facts.local, ChunkLocal::Missing);
    assert_eq!(recording.machine_id.as_str(), "robot-1", "objects are named as the manifest spells the machine");
}

#[test]
fn a_refused_manifest_never_stops_its_chunks() {
    for text in
        ["{", r#"{"schema_version":9}"#, r#"{"schema_version":1,"name":"../x","machine_id":"m","started_at_ns":1}"#]
    {
        let disk = Disk::new();
        disk.chunk(0);
        fs::write(disk.folder().manifest(), text).unwrap();
        let first = disk.load(None);
        assert!(matches!(first.manifest, ManifestFacts::Refused(_)), "{text}");
        assert_eq!(pending(&first), [0; 0], "a recorder may be about to name it");
        assert_eq!(pending(&disk.load(Some(&first))), [0], "{text}");
    }
}

#[test]
fn a_crash_between_rename_and_manifest_hides_no_chunk() {
    let disk = Disk::new();
    let listed = disk.chunk(0);
    disk.chunk(1);
    disk.manifest("robot_1", &[listed]);
    let first = disk.load(None);
    assert_eq!((pending(&first), first.unlisted_chunks()), (vec![0], 0));
    let second = disk.load(Some(&first));
    assert_eq!((pending(&second), second.unlisted_chunks()), (vec![0, 1], 1));
}

#[test]
fn another_machines_recording_is_left_alone() {
    let disk = Disk::new();
    let chunks = [disk.chunk(0)];
    disk.manifest("robot_2", &chunks);
    assert_eq!(pending(&disk.load(None)), [0; 0]);
}

#[test]
fn a_recorder_that_rewrites_its_manifest_loses_no_mark() {
    let disk = Disk::new();
    let chunks = [disk.chunk(0), disk.chunk(1)];
    disk.manifest("robot_1", &chunks[..1]);
    let before = disk.load(None);
    let chunk = &before.chunks[0];
    let sha256 = chunk.digest.unwrap();
    let entry = JournalEntry::Uploaded {
        chunk: chunk.name,
        sha256,
        size_bytes: chunk.size_bytes,
        proof: Proof::Enforced,
        etag: "e".into(),
        key: None,
    };
    let line = journal::Line::of(&JournalLine { at_ns: 7, store_id: "s".into(), entry }).unwrap();
    journal::append(&disk.folder().journal(), &[line]).unwrap();
    disk.manifest("robot_1", &chunks);
    let after = disk.load(Some(&before));
    assert_eq!(pending(&after), [1]);
    assert_eq!(after.chunks[0].marked_at_ns, Some(7));
}

#[test]
fn a_mark_that_was_taken_back_while_the_journal_was_read_does_not_come_back() {
    let disk = Disk::new();
    disk.manifest("robot_1", &[disk.chunk(0)]);
    let first = disk.load(None);
    let (chunk, sha256) = (first.chunks[0].name, first.chunks[0].digest.unwrap());
    let write = |entry| {
        let line = journal::Line::of(&JournalLine { at_ns: 7, store_id: "s".into(), entry }).unwrap();
        journal::append(&disk.folder().journal(), &[line]).unwrap();
        OwnLine::look(disk.0.path(), &first.name)
    };
    let (proof, etag) = (Proof::Enforced, "e".to_owned());
    write(JournalEntry::Uploaded { chunk, sha256, size_bytes: 9, proof, etag, key: None });
    let mut known = disk.load(Some(&first));
    let earlier = known.clone();
    let mut read = disk.load(Some(&earlier));
    assert_eq!(pending(&read), [0; 0]);
    known.fingerprint.note_own_line(write(JournalEntry::Gone { chunk }));
    (known.chunks[0].facts.proof, known.chunks[0].marked_at_ns, known.chunks[0].etag) = (None, None, None);
    read.keep_from(&known, Some(&earlier.fingerprint));
    assert_eq!(pending(&read), [0], "what was read is older than the line");
    let mut again = disk.load(Some(&read));
    again.keep_from(&read, Some(&read.fingerprint));
    assert_eq!(pending(&again), [0]);
    // The other way round: a mark whose line came meanwhile is not lost.
    let mut marked = disk.load(Some(&again));
    marked.fingerprint.note_own_line(OwnLine::look(disk.0.path(), &first.name));
    (marked.chunks[0].facts.proof, marked.chunks[0].marked_at_ns) = (Some(proof), Some(9));
    again.keep_from(&marked, Some(&earlier.fingerprint));
    assert_eq!((pending(&again), again.chunks[0].marked_at_ns), (vec![], Some(9)));
}

#[test]
fn a_manifest_that_says_uploaded_without_a_journal_is_a_claim() {
    let disk = Disk::new();
    let mut chunk = disk.chunk(0);
    chunk["uploaded_at_ns"] = json!(9);
    disk.manifest("robot_1", &[chunk]);
    let recording = disk.load(None);
    assert_eq!(recording.chunks[0].facts.proof, Some(Proof::Claimed));
    assert_eq!(pending(&recording), [0]);
    assert_eq!(recording.chunks[0].marked_at_ns, None);
}

#[test]
fn only_regular_files_with_a_chunks_name_are_chunks() {
    let disk = Disk::new();
    let chunks = disk.folder().chunks();
    for name in [".chunk-000001.mcap.active", "notes.txt", "chunk-1-2d711642.mcap"] {
        fs::write(chunks.join(name), "x").unwrap();
    }
    fs::create_dir(chunks.join("chunk-000000-2d711642.mcap")).unwrap();
    std::os::unix::fs::symlink("/etc/passwd", chunks.join("chunk-000001-2d711642.mcap")).unwrap();
    assert_eq!(disk.load(None).chunks, []);
}

#[test]
fn a_folder_that_is_no_recording_is_none() {
    let disk = Disk::new();
    let other: RecordingName = "other".parse().unwrap();
    let none = load(disk.0.path(), &other, &"robot_1".parse().unwrap(), "s", None, ReadReason::Scan).unwrap();
    assert!(none.is_none());
}

/// Reads a folder as long after its last change as no change can hide behind.
fn load_later(disk: &Disk, earlier: Option<&Recording>) -> Recording {
    let mut read = disk.load(earlier);
    read.fingerprint.note_reading(read.touched_at_ns + 10 * GRAIN_NS);
    read
}

#[test]
fn a_folder_that_is_as_it_was_is_not_read_again() {
    let disk = Disk::new();
    let chunks = [disk.chunk(0)];
    disk.manifest("robot_1", &chunks);
    let read = load_later(&disk, None);
    let is_unchanged =
        |read: &Recording| read.settled().is_some_and(|settled| settled.is_of(disk.0.path(), &read.name));
    assert!(is_unchanged(&read));
    disk.chunk(1);
    assert!(!is_unchanged(&read));
    let read = load_later(&disk, Some(&read));
    assert!(!is_unchanged(&read), "a chunk that no manifest names waits for a second look");
    let read = load_later(&disk, Some(&read));
    assert!(is_unchanged(&read));
    fs::write(disk.folder().journal(), "\n").unwrap();
    assert!(!is_unchanged(&read));
    let mut read = read;
    read.fingerprint.note_own_line(OwnLine::look(disk.0.path(), &read.name));
    assert!(is_unchanged(&read), "what the node wrote itself it need not read");
    disk.manifest("robot_1", &[]);
    assert!(!is_unchanged(&read));
}

#[test]
fn what_was_read_within_a_clocks_grain_of_a_change_is_read_again_however_much_later() {
    let disk = Disk::new();
    disk.manifest("robot_1", &[disk.chunk(0)]);
    let mut read = disk.load(None);
    for (after_ns, is_settled) in [(0, false), (GRAIN_NS, false), (GRAIN_NS + 1, true)] {
        read.fingerprint.note_reading(read.touched_at_ns + after_ns);
        assert_eq!(read.settled().is_some(), is_settled, "{after_ns}: a chunk that came then may not show");
    }
}

#[test]
fn a_folder_is_read_again_when_the_node_wrote_to_its_journal_while_it_was_read() {
    let disk = Disk::new();
    disk.manifest("robot_1", &[disk.chunk(0)]);
    let mut known = disk.load(None);
    let own_line = |recording: &mut Recording| {
        fs::write(disk.folder().journal(), "\n").unwrap();
        recording.fingerprint.note_own_line(OwnLine::look(disk.0.path(), &recording.name));
    };
    own_line(&mut known);
    let earlier = known.clone();
    for lines in [0, 1] {
        let mut read = load_later(&disk, Some(&earlier));
        (0..lines).for_each(|_| own_line(&mut known));
        read.keep_from(&known, Some(&earlier.fingerprint));
        own_line(&mut read);
        assert_eq!(read.settled().is_some(), lines == 0, "what came meanwhile was not read");
    }
}
