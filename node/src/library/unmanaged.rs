//! What stands under the folder of recordings and is laid out in another way: it is told, and not touched.
//!
//! Bubbaloop's shipped recorder writes flat `{session}_chunk_{NNN}.mcap`; rosbag2 writes a folder with `metadata.yaml`
//! and its `.mcap` files. What was adopted stays where it is and is known by the adopting recording's manifest.

use std::{
    collections::{BTreeMap, HashMap},
    fs::{self, DirEntry},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use bubbaloop_storage_schemas::{
    RecordingName, UnixNs,
    limits::{CHUNK_BYTES_MAX, CHUNKS_PER_RECORDING_MAX},
};

use super::{left_alone::LeftAlone, mtime_ns, salvage, scan::Recording, source};
use crate::policy::adopt;

/// Files of one recorder's session, or a folder of another tool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unmanaged {
    /// How it is laid out, for people.
    pub layout: &'static str,
    /// Its MCAP files.
    pub files: u64,
    /// Their size.
    pub size_bytes: u64,
    /// When the oldest of them changed last.
    pub oldest_at_ns: UnixNs,
    /// When the newest of them changed last.
    pub newest_at_ns: UnixNs,
    /// How many of them are chunks of a recording now.
    pub adopted_files: u64,
    /// Their size.
    pub adopted_bytes: u64,
    /// The size of those that are second names of the chunks, and take no room of their own.
    pub linked_bytes: u64,
    /// A recording that they are chunks of.
    pub adopted_as: Option<RecordingName>,
    /// How many of the others were chunks of a recording that a person removed.
    pub left_files: u64,
}

impl Unmanaged {
    /// Tells whether any of its files is in no recording.
    pub const fn is_any_unadopted(&self) -> bool {
        self.files > self.adopted_files
    }

    /// One without a file.
    pub const fn empty(layout: &'static str) -> Self {
        Self {
            layout,
            files: 0,
            size_bytes: 0,
            oldest_at_ns: UnixNs::MAX,
            newest_at_ns: 0,
            adopted_files: 0,
            adopted_bytes: 0,
            linked_bytes: 0,
            adopted_as: None,
            left_files: 0,
        }
    }

    /// Tells whether all of it is in recordings: these, and no longer its files, tell what is at risk.
    pub const fn is_adopted(&self) -> bool {
        self.files > 0 && self.files == self.adopted_files
    }

    /// Tells whether a person removed what was made of it, and nothing has come since.
    pub const fn is_left_alone(&self) -> bool {
        self.left_files > 0 && self.files == self.adopted_files + self.left_files
    }
}

/// All of one folder, by the name under which it is told.
pub type AllUnmanaged = BTreeMap<String, Unmanaged>;

/// The files that recordings were made of, by their path under the folder of recordings.
#[derive(Debug, Default)]
pub struct Covering(HashMap<String, (u64, UnixNs, RecordingName)>);

impl Covering {
    /// Gathers what recordings of this machine were made of. That of a recording that another one wrote says nothing
    /// of the files here.
    pub fn of<'a>(recordings: impl Iterator<Item = &'a Recording>) -> Self {
        let mut files = HashMap::new();
        for recording in recordings.filter(|recording| recording.is_ours()) {
            for file in recording.adopted_from.iter().flat_map(|from| &from.files).filter(|file| !file.outside) {
                files.insert(file.file.clone(), (file.size_bytes, file.mtime_ns, recording.name.clone()));
            }
        }
        Self(files)
    }

    /// Returns the recording that was made of a file as it is now.
    fn recording(&self, path: &str, metadata: &fs::Metadata) -> Option<&RecordingName> {
        let (size_bytes, at_ns, recording) = self.0.get(path)?;
        (*size_bytes == metadata.size() && *at_ns == mtime_ns(metadata)).then_some(recording)
    }
}

/// What is told of unmanaged files, as it is gathered.
#[derive(Debug)]
pub struct Gathering<'a> {
    found: AllUnmanaged,
    covering: &'a Covering,
    left: &'a LeftAlone,
    now_ns: UnixNs,
}

/// What the names begin with under which files are told that crashes left open.
pub const SALVAGE: &str = "salvage/";

/// How those are told.
pub const LEFT_OPEN: &str = "what a recorder left open";

/// Returns the name under which a flat file is told, by its stem.
pub fn name_of(stem: &str) -> &str {
    adopt::session(stem).map_or(stem, |(session, _)| session)
}

impl<'a> Gathering<'a> {
    /// Begins to gather. `now_ns` is wall time.
    pub const fn new(covering: &'a Covering, left: &'a LeftAlone, now_ns: UnixNs) -> Self {
        Self { found: AllUnmanaged::new(), covering, left, now_ns }
    }

    /// Returns all that was gathered.
    pub fn finish(self) -> AllUnmanaged {
        self.found
    }

    fn add(&mut self, name: &str, path: &str, layout: &'static str, metadata: &fs::Metadata) {
        let (at_ns, size_bytes) = (mtime_ns(metadata), metadata.size().min(CHUNK_BYTES_MAX));
        let entry = self.found.entry(name.to_owned()).or_insert(Unmanaged::empty(layout));
        entry.files += 1;
        entry.size_bytes += size_bytes;
        entry.oldest_at_ns = entry.oldest_at_ns.min(at_ns);
        entry.newest_at_ns = entry.newest_at_ns.max(at_ns);
        if let Some(recording) = self.covering.recording(path, metadata) {
            entry.adopted_files += 1;
            entry.adopted_bytes += size_bytes;
            entry.linked_bytes += if metadata.nlink() > 1 { size_bytes } else { 0 };
            entry.adopted_as.get_or_insert_with(|| recording.clone());
        } else if self.left.holds(path, metadata) {
            entry.left_files += 1;
        }
    }

    /// Takes in an MCAP file that stands beside the recordings. Files that are open in a recorder are passed over; one
    /// that has been still for a minute is not open any more.
    ///
    /// # Errors
    /// It can't be looked at.
    pub fn add_file(&mut self, entry: &DirEntry) -> io::Result<()> {
        let name = entry.file_name();
        let Some((name, (stem, is_open))) = name.to_str().and_then(|name| Some((name, source::stem(name)?))) else {
            return Ok(());
        };
        let metadata = entry.metadata()?;
        if !metadata.is_file() || is_open && !adopt::is_still(mtime_ns(&metadata), self.now_ns) {
            return Ok(());
        }
        let layout = if adopt::session(stem).is_some() { "flat chunk files" } else { "a flat file" };
        self.add(name_of(stem), name, layout, &metadata);
        Ok(())
    }

    /// Takes in what is kept of files that crashes left open.
    ///
    /// # Errors
    /// It can't be read.
    pub fn add_salvage(&mut self, salvage: &Path, recordings: &Path) -> io::Result<()> {
        for kept in salvage::kept(salvage, recordings)?.iter().filter(|kept| kept.is_told()) {
            let name = format!("{SALVAGE}{}", kept.group);
            self.add(&name, &format!("{name}/{}", kept.name), LEFT_OPEN, &kept.metadata);
        }
        Ok(())
    }

    /// Takes in a folder that is no recording of ours and has MCAP files.
    ///
    /// # Errors
    /// It can't be read.
    pub fn add_folder(&mut self, folder: &Path, name: &str) -> io::Result<()> {
        let layout = if folder.join("metadata.yaml").is_file() { "a rosbag2 folder" } else { "a folder of MCAP files" };
        for (inner, prefix) in [(folder.to_owned(), ""), (folder.join("chunks"), "chunks/")] {
            let entries = match fs::read_dir(&inner) {
                Ok(entries) => entries,
                Err(error)
                    if !prefix.is_empty()
                        && matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) =>
                {
                    continue;
                }
                Err(error) => return Err(error),
            };
            for entry in entries.take(CHUNKS_PER_RECORDING_MAX) {
                let entry = entry?;
                let Ok(file) = entry.file_name().into_string() else { continue };
                let metadata = entry.metadata()?;
                if matches!(source::stem(&file), Some((_, false))) && metadata.is_file() {
                    self.add(name, &format!("{name}/{prefix}{file}"), layout, &metadata);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make the files that other tools leave")]
mod tests {
    use super::*;

    #[test]
    fn sessions_of_flat_files_and_folders_of_others_are_told_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for name in ["s_chunk_000.mcap", "s_chunk_001.mcap", "lone.mcap", "s_chunk_002.mcap.active", ".x.mcap", "n.txt"]
        {
            fs::write(folder.path().join(name), "12345").unwrap();
        }
        let bag = folder.path().join("bag");
        fs::create_dir(&bag).unwrap();
        fs::write(bag.join("metadata.yaml"), "").unwrap();
        fs::write(bag.join("bag_0.mcap"), "123").unwrap();
        let gather = |now_ns| {
            let (covering, left) = (Covering::default(), LeftAlone::default());
            let mut gathering = Gathering::new(&covering, &left, now_ns);
            for entry in fs::read_dir(folder.path()).unwrap() {
                gathering.add_file(&entry.unwrap()).unwrap();
            }
            gathering.add_folder(&bag, "bag").unwrap();
            gathering.finish()
        };
        let written = mtime_ns(&fs::metadata(&bag).unwrap());
        let found = gather(written);
        let told: Vec<_> = found.iter().map(|(name, it)| (name.as_str(), it.files, it.size_bytes)).collect();
        assert_eq!(told, [("bag", 1, 3), ("lone", 1, 5), ("s", 2, 10)]);
        assert_eq!(found["bag"].layout, "a rosbag2 folder");
        assert_eq!(
            gather(written + 3_600_000_000_000)["s"].files,
            3,
            "what has been still for so long is not open any more"
        );
    }
}
