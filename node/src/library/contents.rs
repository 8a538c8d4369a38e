//! What stands in a recording's folder, file by file: what is its own, and what is somebody else's.

use std::{fs, io, path::Path, str::FromStr};

use bubbaloop_storage_schemas::{ChunkName, RecordingName};

use super::scan::Folder;
use crate::policy::removal::OtherFile;

/// What this node and the recorder write beside the chunks, what was last known of the recording last.
const OWN: [&str; 5] =
    [".manifest.json.tmp", ".manifest.json.restore", ".uploads.jsonl.tmp", "manifest.json", "uploads.jsonl"];

/// What stands in a recording's folder.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Contents {
    /// The chunks' files with their sizes, by index.
    pub chunks: Vec<(ChunkName, u64)>,
    /// All else: what was last known of the recording last.
    pub files: Vec<OtherFile>,
    /// The folders, the inner ones first, as paths from the recording's on.
    pub folders: Vec<String>,
}

impl Contents {
    /// Looks into a recording's folder; `None` where there is none.
    ///
    /// # Errors
    /// It can't be read.
    pub fn read(recordings: &Path, name: &RecordingName) -> io::Result<Option<Self>> {
        let root = recordings.join(name.as_str());
        let mut found = Self::default();
        let mut own = Vec::new();
        let entries = match fs::read_dir(&root) {
            Ok(entries) => entries,
            Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => {
                return Ok(None);
            }
            Err(error) => return Err(error),
        };
        for entry in entries {
            let entry = entry?;
            let file = entry.file_name();
            let place = OWN.iter().position(|own| file == **own);
            match place {
                Some(place) if entry.file_type()?.is_file() => own.push(place),
                None if file == "chunks" && fs::metadata(entry.path())?.is_dir() => {
                    found.read_chunks(&Folder::new(recordings, name).chunks())?;
                }
                Some(_) | None => found.stays(file.to_string_lossy().into_owned()),
            }
        }
        own.sort_unstable();
        // What it leads to is not ours, and the link is the recording's.
        if fs::symlink_metadata(root.join("chunks")).is_ok_and(|it| it.is_symlink()) {
            found.files.push(OtherFile { path: "chunks".into(), is_ours: true });
        }
        found.files.extend(own.into_iter().map(|place| OtherFile { path: OWN[place].into(), is_ours: true }));
        found.chunks.sort_unstable();
        found.chunks.dedup();
        // A link to a folder on another disk is not ours to remove.
        if fs::symlink_metadata(&root)?.is_dir() {
            found.folders.push(String::new());
        }
        Ok(Some(found))
    }

    /// Tells whether it is what a removal leaves that was cut off: nothing that anybody wants.
    pub fn is_leftover(&self) -> bool {
        let is_left = |file: &OtherFile| file.is_ours && file.path != "manifest.json";
        self.chunks.is_empty() && self.files.iter().all(is_left)
    }

    fn stays(&mut self, path: String) {
        self.files.push(OtherFile { path, is_ours: false });
    }

    fn read_chunks(&mut self, folder: &Path) -> io::Result<()> {
        for entry in fs::read_dir(folder)? {
            let entry = entry?;
            let is_file = entry.file_type()?.is_file();
            let name = entry.file_name().to_string_lossy().into_owned();
            let path = format!("chunks/{name}");
            match ChunkName::from_str(&name) {
                Ok(chunk) if is_file => self.chunks.push((chunk, entry.metadata()?.len())),
                Err(_) if is_file && Folder::chunk_of_part(&name).is_some() => {
                    self.files.push(OtherFile { path, is_ours: true });
                }
                Ok(_) | Err(_) => self.stays(path),
            }
        }
        if fs::symlink_metadata(folder)?.is_dir() {
            self.folders.push("chunks".into());
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make files")]
mod tests {
    use bubbaloop_storage_schemas::Digest;

    use super::*;

    #[test]
    fn what_is_the_recordings_own_is_told_from_what_is_not() {
        let recordings = tempfile::tempdir().unwrap();
        let name: RecordingName = "drive".parse().unwrap();
        assert_eq!(Contents::read(recordings.path(), &name).unwrap(), None);
        let chunk = ChunkName::new(3, &Digest::of(b"x"));
        let chunks = recordings.path().join("drive/chunks");
        fs::create_dir_all(&chunks).unwrap();
        fs::write(chunks.join("../uploads.jsonl"), "").unwrap();
        assert!(Contents::read(recordings.path(), &name).unwrap().unwrap().is_leftover());
        fs::write(chunks.join(chunk.to_string()), "x").unwrap();
        let others = ["../manifest.json", "../notes.txt", "x.mcap", ".chunk-000004.mcap.active"];
        for file in others.iter().chain([&&*format!(".{chunk}.part")]) {
            fs::write(chunks.join(file), "x").unwrap();
        }
        let found = Contents::read(recordings.path(), &name).unwrap().unwrap();
        assert_eq!((&*found.chunks, &*found.folders), (&[(chunk, 1)][..], &["chunks".to_owned(), String::new()][..]));
        let (ours, mut stays): (Vec<_>, Vec<_>) = found.files.iter().partition(|file| file.is_ours);
        let ours: Vec<_> = ours.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(ours, [&*format!("chunks/.{chunk}.part"), "manifest.json", "uploads.jsonl"]);
        stays.sort_by_key(|file| &file.path);
        let stays: Vec<_> = stays.iter().map(|file| file.path.as_str()).collect();
        assert_eq!(stays, ["chunks/.chunk-000004.mcap.active", "chunks/x.mcap", "notes.txt"]);
        assert!(!found.is_leftover());
    }
}
