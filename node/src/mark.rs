//! A mark in a folder: a random id that tells it from any other that stands under its path.

use std::{io, path::Path};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{
    content::{self, ContentError},
    durable,
};

/// Largest mark that is read.
const FILE_BYTES_MAX: u64 = 4096;

/// What the file of a mark holds.
#[derive(Debug, Serialize, Deserialize)]
struct Mark {
    id: String,
}

/// Makes the text of a new mark, and its id.
///
/// # Errors
/// None in practice.
pub fn new() -> io::Result<(String, Vec<u8>)> {
    let id = Uuid::new_v4().simple().to_string();
    Ok((id.clone(), serde_json::to_vec(&Mark { id })?))
}

/// Reads a mark; `None` of a file that is empty.
///
/// # Errors
/// `NotFound` where there is none. Otherwise it can't be read or is broken.
pub fn read(path: &Path) -> io::Result<Option<String>> {
    let text = content::read(path, FILE_BYTES_MAX).map_err(|error| match error {
        ContentError::Gone(_) => io::Error::from(io::ErrorKind::NotFound),
        error => io::Error::other(error.to_string()),
    })?;
    if text.is_empty() {
        return Ok(None);
    }
    let Mark { id } = serde_json::from_slice(&text)?;
    Ok(Some(id))
}

/// Writes a new mark and returns its id.
///
/// # Errors
/// The folder is not there or not writable.
pub fn make(path: &Path) -> io::Result<String> {
    let (id, text) = new()?;
    durable::replace(path, &text)?;
    Ok(id)
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make broken files")]
mod tests {
    use super::*;

    #[test]
    fn a_mark_is_read_back_an_empty_one_is_none_and_a_broken_one_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mark.json");
        assert_eq!(read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        let id = make(&path).unwrap();
        assert_eq!(read(&path).unwrap(), Some(id.clone()));
        assert_ne!(make(&path).unwrap(), id, "no two are alike");
        std::fs::write(&path, "").unwrap();
        assert_eq!(read(&path).unwrap(), None);
        std::fs::write(&path, "{").unwrap();
        assert_ne!(read(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert_eq!(make(&folder.path().join("absent/mark.json")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
