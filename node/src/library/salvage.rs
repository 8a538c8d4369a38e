//! What recorders left open in a crash has a second name here before they sweep it, so that it can be recovered.
//!
//! `storage/salvage/<recording>/chunk-000003.<inode>.mcap.active`; a flat file under its session and its own name.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use bubbaloop_storage_schemas::{UnixNs, limits::SALVAGED_FILES_MAX};

use super::{mtime_ns, source, unmanaged};
use crate::{durable, policy::adopt};

/// The ending of an open MCAP file.
const ENDING: &str = ".mcap.active";

/// How the file behind a kept name stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OpenChunkState {
    /// It is still where its recorder had it.
    Waits,
    /// It is nowhere else: its recorder swept it.
    Swept,
    /// It has a third name: it was finalized after all, or adopted.
    Done,
}

/// A name that is kept.
#[derive(Debug)]
pub struct Kept {
    /// The recording or the session.
    pub group: String,
    /// The name.
    pub name: String,
    /// What stands there.
    pub metadata: fs::Metadata,
    standing: OpenChunkState,
}

impl Kept {
    /// Tells whether nothing else tells of the file: a flat one that is still there is listed as it is.
    pub fn is_told(&self) -> bool {
        match self.standing {
            OpenChunkState::Swept => true,
            OpenChunkState::Waits => self.name.starts_with("chunk-"),
            OpenChunkState::Done => false,
        }
    }
}

fn absent<T: Default>(error: io::Error) -> io::Result<T> {
    if error.kind() == io::ErrorKind::NotFound { Ok(T::default()) } else { Err(error) }
}

/// Returns where a file was that goes by a kept name; `None` where the name is none of ours.
fn original(recordings: &Path, group: &str, name: &str) -> Option<PathBuf> {
    let (stem, _inode) = name.strip_suffix(ENDING)?.rsplit_once('.')?;
    Some(match stem.starts_with("chunk-") {
        true => recordings.join(group).join("chunks").join(format!(".{stem}{ENDING}")),
        false => recordings.join(format!("{stem}{ENDING}")),
    })
}

/// Returns the names that are kept.
///
/// # Errors
/// The folder can't be read.
pub fn kept(salvage: &Path, recordings: &Path) -> io::Result<Vec<Kept>> {
    let mut found = Vec::new();
    let groups = fs::read_dir(salvage).map(|groups| groups.collect::<Vec<_>>()).or_else(absent)?;
    for folder in groups {
        let folder = folder?;
        let Ok(group) = folder.file_name().into_string() else { continue };
        if !folder.file_type()?.is_dir() {
            continue;
        }
        for entry in fs::read_dir(folder.path())? {
            let entry = entry?;
            let metadata = entry.metadata()?;
            let Some(name) = entry.file_name().into_string().ok().filter(|_| metadata.is_file()) else { continue };
            let Some(original) = original(recordings, &group, &name) else { continue };
            let is_there = fs::symlink_metadata(original)
                .is_ok_and(|there| (there.dev(), there.ino()) == (metadata.dev(), metadata.ino()));
            let standing = match (is_there, metadata.nlink()) {
                (true, _) => OpenChunkState::Waits,
                (false, 1) => OpenChunkState::Swept,
                (false, _) => OpenChunkState::Done,
            };
            found.push(Kept { group: group.clone(), name, metadata, standing });
        }
    }
    Ok(found)
}

/// Gives files that recorders left open a second name, and lets go of those that have found their own. `open` are paths
/// with the group that each is kept under; those that were written to lately are passed over.
///
/// # Errors
/// The folder can't be read or written.
pub fn keep(salvage: &Path, recordings: &Path, open: &[(String, PathBuf)], now_ns: UnixNs) -> io::Result<()> {
    let known = kept(salvage, recordings)?;
    for done in known.iter().filter(|kept| kept.standing == OpenChunkState::Done) {
        durable::remove(&salvage.join(&done.group).join(&done.name))?;
    }
    let mut room = SALVAGED_FILES_MAX.saturating_sub(known.len());
    for (group, path) in open {
        let Ok(metadata) = fs::symlink_metadata(path) else { continue };
        let name = path.file_name().and_then(|name| name.to_str()?.strip_suffix(ENDING));
        let (Some(stem), true) = (name, metadata.is_file()) else { continue };
        if metadata.len() == 0 || !adopt::is_still(mtime_ns(&metadata), now_ns) || room == 0 {
            continue;
        }
        let folder = salvage.join(group);
        let name = format!("{}.{}{ENDING}", stem.trim_start_matches('.'), metadata.ino());
        if !fs::exists(folder.join(&name))? {
            durable::create_folder(&folder)?;
            match durable::link(path, &folder.join(&name)) {
                // It was finalized or swept meanwhile.
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                linked => linked?,
            }
            room -= 1;
        }
    }
    Ok(())
}

/// Returns the group under which a flat file is kept.
pub fn group_of_flat(name: &str) -> Option<&str> {
    let (stem, is_open) = source::stem(name)?;
    is_open.then(|| unmanaged::name_of(stem))
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests write and sweep as recorders do")]
mod tests {
    use super::*;

    const HOUR_NS: u64 = 3_600_000_000_000;

    #[test]
    fn what_a_recorder_sweeps_is_kept_and_what_it_finalizes_is_let_go() {
        let folder = tempfile::tempdir().unwrap();
        let (salvage, recordings) = (folder.path().join("salvage"), folder.path().join("recordings"));
        let chunks = recordings.join("drive/chunks");
        fs::create_dir_all(&chunks).unwrap();
        let names = [".chunk-000001.mcap.active", ".chunk-000002.mcap.active"].map(|name| chunks.join(name));
        let flat = recordings.join("s_chunk_000.mcap.active");
        for path in names.iter().chain([&flat]) {
            fs::write(path, path.display().to_string()).unwrap();
        }
        let open = [
            ("drive".to_owned(), names[0].clone()),
            ("drive".to_owned(), names[1].clone()),
            ("s".to_owned(), flat.clone()),
        ];
        let now_ns = mtime_ns(&fs::metadata(&flat).unwrap());
        let told = || {
            let kept = kept(&salvage, &recordings).unwrap();
            let mut told: Vec<_> = kept
                .iter()
                .filter(|kept| kept.is_told())
                .map(|kept| fs::read_to_string(salvage.join(&kept.group).join(&kept.name)).unwrap())
                .collect();
            told.sort();
            told
        };
        let text = |path: &PathBuf| path.display().to_string();
        keep(&salvage, &recordings, &open, now_ns + 1).unwrap();
        assert_eq!(told(), Vec::<String>::new(), "what may still be written is left alone");
        for _ in 0..2 {
            keep(&salvage, &recordings, &open, now_ns + HOUR_NS).unwrap();
            assert_eq!(told(), [text(&names[0]), text(&names[1])], "a flat one that is still there is listed as such");
        }
        fs::remove_file(&names[0]).unwrap();
        fs::rename(&names[1], chunks.join("chunk-000002-12345678.mcap")).unwrap();
        fs::remove_file(&flat).unwrap();
        keep(&salvage, &recordings, &[], now_ns + HOUR_NS).unwrap();
        assert_eq!(told(), [text(&names[0]), text(&flat)]);
        assert_eq!(kept(&salvage, &recordings).unwrap().len(), 2, "the finalized one is let go");
    }
}
