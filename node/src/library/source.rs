//! The files of what is to be adopted, in the order in which they were recorded.

use std::{
    fs, io,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
};

use bubbaloop_storage_schemas::{UnixNs, limits::ADOPTED_FILES_MAX};
use serde::Deserialize;

use super::{mtime_ns, unmanaged};
use crate::{content, policy::adopt};

/// A file of a source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SourceFile {
    /// Where it is.
    pub path: PathBuf,
    /// How it is told: its path under the folder of recordings; outside of it, its name.
    pub label: String,
    /// What it looked like.
    pub stamp: Stamp,
    /// It lies outside the folder of recordings.
    pub is_outside: bool,
    /// Its name says that a recorder has it open, or had when it crashed.
    pub is_open: bool,
}

/// What tells one content of a file from another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stamp {
    /// Its file system and its place there.
    pub inode: (u64, u64),
    /// Its size.
    pub size_bytes: u64,
    /// When it was written last.
    pub mtime_ns: UnixNs,
}

impl Stamp {
    /// Looks at a file, not through a link.
    ///
    /// # Errors
    /// It is not there, can't be looked at, or is no regular file.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        if !metadata.is_file() {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "not a regular file"));
        }
        Ok(Self { inode: (metadata.dev(), metadata.ino()), size_bytes: metadata.size(), mtime_ns: mtime_ns(&metadata) })
    }
}

/// The ending of a file that a recorder has open.
pub const OPEN_ENDING: &str = ".active";

/// Returns the stem of an MCAP file's name, and whether the name says that it is open. Hidden ones are none.
pub fn stem(name: &str) -> Option<(&str, bool)> {
    let (rest, is_open) = match name.strip_suffix(OPEN_ENDING) {
        Some(rest) => (rest, true),
        None => (name, false),
    };
    let stem = rest.strip_suffix(".mcap")?;
    (!stem.is_empty() && !stem.starts_with('.')).then_some((stem, is_open))
}

/// Largest `metadata.yaml` that is read.
const METADATA_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The part of a rosbag2 folder's `metadata.yaml` that tells the order of its files.
#[derive(Debug, Deserialize)]
struct BagMetadata {
    rosbag2_bagfile_information: BagInformation,
}

#[derive(Debug, Deserialize)]
struct BagInformation {
    #[serde(default)]
    relative_file_paths: Vec<String>,
}

/// Returns the file paths that a bag's metadata lists; none where it can't be read.
fn listed(folder: &Path) -> Vec<String> {
    let text = content::read(&folder.join("metadata.yaml"), METADATA_BYTES_MAX).unwrap_or_default();
    let metadata = serde_yaml_ng::from_slice::<BagMetadata>(&text).ok();
    metadata.map(|metadata| metadata.rosbag2_bagfile_information.relative_file_paths).unwrap_or_default()
}

/// Returns the regular MCAP files of a folder, by name.
fn names_in(folder: &Path) -> io::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        if stem(&name).is_some() && entry.metadata()?.is_file() {
            names.push(name);
        }
        if names.len() > ADOPTED_FILES_MAX {
            let message = format!("more than {ADOPTED_FILES_MAX} MCAP files");
            return Err(io::Error::new(io::ErrorKind::FileTooLarge, message));
        }
    }
    Ok(names)
}

fn file(path: PathBuf, label: String) -> io::Result<SourceFile> {
    let is_open = label.ends_with(OPEN_ENDING);
    Ok(SourceFile { stamp: Stamp::of(&path)?, path, label, is_outside: false, is_open })
}

/// Returns the files of one flat session, or of the one flat file of that name, in their order.
///
/// # Errors
/// The folder can't be read.
pub fn flat(recordings: &Path, name: &str) -> io::Result<Vec<SourceFile>> {
    let mut names = names_in(recordings)?;
    names.retain(|file| stem(file).is_some_and(|(stem, _)| unmanaged::name_of(stem) == name));
    names.sort_by_cached_key(|name| adopt::order_key(name));
    names.into_iter().map(|name| file(recordings.join(&name), name)).collect()
}

/// Returns the MCAP files of a folder of another tool, those of its `chunks` folder last.
///
/// # Errors
/// The folder can't be read.
pub fn folder(folder: &Path, label: &str) -> io::Result<Vec<SourceFile>> {
    let mut names = names_in(folder)?;
    adopt::order_bag(&mut names, &listed(folder));
    let own = names.into_iter().map(|name| (folder.join(&name), name));
    let chunks = folder.join("chunks");
    let mut more = match names_in(&chunks) {
        Ok(names) => names,
        Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::NotADirectory) => Vec::new(),
        Err(error) => return Err(error),
    };
    more.sort_by_cached_key(|name| adopt::order_key(name));
    let more = more.into_iter().map(|name| (chunks.join(&name), format!("chunks/{name}")));
    own.chain(more).map(|(path, name)| file(path, format!("{label}/{name}"))).collect()
}

/// Returns the files of paths that a person named: files, and folders with MCAP files in them.
///
/// # Errors
/// One of them can't be read, or has another name than MCAP files have.
pub fn paths(paths: &[PathBuf]) -> io::Result<Vec<SourceFile>> {
    let mut files = Vec::new();
    for path in paths {
        let told = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        // A link that a person names means what is behind it.
        let path = path.canonicalize().map_err(told)?;
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
        if path.is_dir() {
            files.extend(folder(&path, &name).map_err(told)?);
        } else {
            files.push(file(path.clone(), name).map_err(told)?);
        }
    }
    files.iter_mut().for_each(|file| file.is_outside = true);
    Ok(files)
}
