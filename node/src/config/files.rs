//! The files of settings in a home.

use std::{fs, io, os::unix::fs::PermissionsExt, path::Path};

use zeroize::Zeroizing;

/// A file of settings.
#[derive(Debug, Clone, Default)]
pub enum File {
    /// It does not exist.
    #[default]
    Absent,
    /// Its text.
    Text(Zeroizing<String>),
    /// It can't be used, for this reason.
    Unusable(String),
    /// It holds secrets and others can read it; its mode.
    Exposed(u32),
}

/// The files of a home.
#[derive(Debug, Clone, Default)]
pub struct Files {
    /// `config.toml`.
    pub config: File,
    /// `secrets.toml`.
    pub secrets: File,
}

impl File {
    /// Reads a file.
    pub(super) fn read(path: &Path) -> Self {
        match fs::read_to_string(path) {
            Ok(text) => Self::Text(text.into()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Self::Absent,
            Err(error) => Self::Unusable(error.to_string()),
        }
    }

    /// Reads a file of secrets. One that others can read is not used.
    pub(super) fn read_secrets(path: &Path) -> Self {
        match fs::metadata(path).map(|metadata| metadata.permissions().mode()) {
            Ok(mode) if mode & 0o077 != 0 => Self::Exposed(mode & 0o777),
            _ => Self::read(path),
        }
    }

    pub(super) fn text(&self) -> Option<&str> {
        match self {
            Self::Text(text) => Some(text),
            Self::Absent | Self::Unusable(_) | Self::Exposed(_) => None,
        }
    }

    /// Returns why it is not used; `None` if it is, or does not exist.
    pub(super) fn fault(&self) -> Option<String> {
        match self {
            Self::Absent | Self::Text(_) => None,
            Self::Unusable(reason) => Some(reason.clone()),
            Self::Exposed(mode) => Some(format!("group or others can read it (mode {mode:o}): run chmod 600 on it")),
        }
    }
}
