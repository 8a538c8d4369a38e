//! The disk that the library is on.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// Returns the file system that a path is on.
///
/// # Errors
/// There is nothing there, or it can't be looked at.
pub fn device(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|metadata| metadata.dev())
}

/// Returns which folder stands at a path: its file system and its number there. It holds as long as the file system is
/// mounted.
///
/// # Errors
/// There is nothing there, or it can't be looked at.
pub fn place(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Returns how many bytes the node may still write to the disk of a path.
///
/// # Errors
/// There is nothing there, or the file system does not tell.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    space(path).map(|space| space.free_bytes)
}

/// How much room a disk has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Space {
    /// What the node may still write.
    pub free_bytes: u64,
    /// All of it.
    pub disk_bytes: u64,
}

/// Returns how much room the disk of a path has.
///
/// # Errors
/// There is nothing there, or the file system does not tell.
pub fn space(path: &Path) -> io::Result<Space> {
    let stat = rustix::fs::statvfs(path)?;
    let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
    Ok(Space { free_bytes: bytes(stat.f_bavail), disk_bytes: bytes(stat.f_blocks) })
}
