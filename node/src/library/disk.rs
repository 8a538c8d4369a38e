//! The disk that the library is on.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// Returns the file system that a path is on.
///
/// # Errors
/// There is nothing there, or it can't be looked at.
pub fn device(path: &Path) -> io::Result<u64> {
    fs::metadata(path).map(|metadata| metadata.dev())
}

/// Returns how many bytes the node may still write to the disk of a path.
///
/// # Errors
/// There is nothing there, or the file system does not tell.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = rustix::fs::statvfs(path)?;
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize))
}
