//! What stands under the folder of recordings and is laid out in another way: it is told, and not touched.
//!
//! Bubbaloop's shipped recorder writes flat `{session}_chunk_{NNN}.mcap`; rosbag2 writes a folder with `metadata.yaml`
//! and its `.mcap` files.

use std::{
    collections::BTreeMap,
    fs::{self, DirEntry},
    io,
    os::unix::fs::MetadataExt,
    path::Path,
};

use bubbaloop_storage_schemas::{UnixNs, limits::CHUNKS_PER_RECORDING_MAX};

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
}

/// All of one folder, by the name under which it is told.
pub type AllUnmanaged = BTreeMap<String, Unmanaged>;

fn add(found: &mut AllUnmanaged, name: &str, layout: &'static str, metadata: &fs::Metadata) {
    let at_ns = super::mtime_ns(metadata);
    let entry =
        found.entry(name.to_owned()).or_insert(Unmanaged { layout, files: 0, size_bytes: 0, oldest_at_ns: at_ns });
    entry.files += 1;
    entry.size_bytes += metadata.size();
    entry.oldest_at_ns = entry.oldest_at_ns.min(at_ns);
}

/// Takes in an MCAP file that stands beside the recordings. Files that are open in a recorder are passed over.
///
/// # Errors
/// It can't be looked at.
pub fn add_file(found: &mut AllUnmanaged, entry: &DirEntry) -> io::Result<()> {
    let name = entry.file_name();
    let Some(stem) = name.to_str().and_then(|name| name.strip_suffix(".mcap")) else { return Ok(()) };
    let metadata = entry.metadata()?;
    if !metadata.is_file() || stem.starts_with('.') {
        return Ok(());
    }
    let session = stem.rsplit_once("_chunk_").filter(|(_, number)| number.bytes().all(|byte| byte.is_ascii_digit()));
    match session {
        Some((session, _)) if !session.is_empty() => add(found, session, "flat chunk files", &metadata),
        Some(_) | None => add(found, stem, "a flat file", &metadata),
    }
    Ok(())
}

/// Takes in a folder that is no recording of ours and has MCAP files.
///
/// # Errors
/// It can't be read.
pub fn add_folder(found: &mut AllUnmanaged, folder: &Path, name: &str) -> io::Result<()> {
    let layout = if folder.join("metadata.yaml").is_file() { "a rosbag2 folder" } else { "a folder of MCAP files" };
    let chunks = match fs::read_dir(folder.join("chunks")) {
        Ok(chunks) => Some(chunks),
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => None,
        Err(error) => return Err(error),
    };
    for entry in fs::read_dir(folder)?.chain(chunks.into_iter().flatten()).take(CHUNKS_PER_RECORDING_MAX) {
        let entry = entry?;
        let is_mcap = entry.file_name().to_str().is_some_and(|name| name.ends_with(".mcap") && !name.starts_with('.'));
        let metadata = entry.metadata()?;
        if is_mcap && metadata.is_file() {
            add(found, name, layout, &metadata);
        }
    }
    Ok(())
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
        let mut found = AllUnmanaged::new();
        for entry in fs::read_dir(folder.path()).unwrap() {
            add_file(&mut found, &entry.unwrap()).unwrap();
        }
        add_folder(&mut found, &bag, "bag").unwrap();
        let told: Vec<_> = found.iter().map(|(name, it)| (name.as_str(), it.files, it.size_bytes)).collect();
        assert_eq!(told, [("bag", 1, 3), ("lone", 1, 5), ("s", 2, 10)]);
        assert_eq!(found["bag"].layout, "a rosbag2 folder");
    }
}
