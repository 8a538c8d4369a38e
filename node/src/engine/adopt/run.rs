//! One run of an adoption: its library, its options, why it fails, and what is done.

use std::{
    io,
    path::{Path, PathBuf},
    sync::Arc,
};

use bubbaloop_storage_schemas::{
    Digest, MachineId, RecordingName, UnixNs,
    adopt::{AdoptAction, AdoptActionKind, AdoptFinding, AdoptFindingKind, AdoptResult},
    error::{ErrorCode, Refusal},
    reply::Progress,
};

use crate::{
    clock::Clock,
    content::{ContentError, VerifiedBlocks},
    library::{mcap_file::McapFault, scan, source::Stamp},
    policy::fetch::NoRoom,
};

/// Which library takes it in.
#[derive(Debug, Clone)]
pub struct Library {
    /// The folder of recordings.
    pub recordings: PathBuf,
    /// This machine.
    pub machine_id: MachineId,
    /// Held while something is adopted, by this process or another one.
    pub lock: PathBuf,
    /// What crashes left of recorders' open files.
    pub salvage: PathBuf,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

/// How it is adopted.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct AdoptOptions {
    /// The new recording's name; the source's without one.
    pub name: Option<RecordingName>,
    /// What is whole is taken out of files that were cut off or damaged.
    pub recover: bool,
    /// Files are copied rather than given a second name.
    pub copy: bool,
}

/// Why something was not adopted.
#[derive(Debug, thiserror::Error)]
pub enum AdoptError {
    /// There is no such thing.
    #[error("there is nothing to adopt under the name {0}")]
    NotFound(String),
    /// It is still being written.
    #[error("{what} was written to less than a minute ago: it may still be recorded")]
    Busy {
        /// What is.
        what: String,
    },
    /// It may not be adopted as it is.
    #[error("{message}")]
    Conflict {
        /// Why.
        message: String,
        /// What to do.
        hint: &'static str,
    },
    /// A file is none that can be taken as it is.
    #[error("{file}: {fault}")]
    Unfit {
        /// The file.
        file: String,
        /// What is wrong with it.
        fault: McapFault,
        /// Recovering was asked for already.
        is_recovering: bool,
    },
    /// A file changed while it was read.
    #[error("{0} changed while it was read")]
    Changed(String),
    /// The library can't be read or written.
    #[error("{what}: {source}")]
    Disk {
        /// What was tried.
        what: String,
        /// What the system says.
        source: io::Error,
    },
    /// A path that a person named can't be had; the reason begins with it.
    #[error("{0}")]
    Path(io::Error),
    /// The files would have to be copied, and there is no room for that.
    #[error("{0}")]
    NoRoom(NoRoom),
    /// A person stopped it.
    #[error("it was cancelled")]
    Cancelled,
}

impl AdoptError {
    /// A file can't be had, whatever is in it.
    pub(super) fn file(label: &str, fault: ContentError) -> Self {
        match fault {
            ContentError::Unreadable { source, .. } => Self::Disk { what: label.to_owned(), source },
            fault => Self::Disk { what: label.to_owned(), source: io::Error::other(fault) },
        }
    }

    /// A file is none that can be taken as it is.
    pub(super) fn unfit(label: &str, fault: McapFault, is_recovering: bool) -> Self {
        match fault {
            McapFault::Stopped => Self::Cancelled,
            McapFault::File(fault) => Self::file(label, fault),
            McapFault::Write(source) => Self::Disk { what: format!("what is whole in {label}"), source },
            fault => Self::Unfit { file: label.to_owned(), fault, is_recovering },
        }
    }

    /// Returns what makes an error of the system one of this path.
    pub(super) fn disk(what: &Path) -> impl Fn(io::Error) -> Self {
        let what = what.display().to_string();
        move |source| Self::Disk { what: what.clone(), source }
    }

    /// Tells it to the asker.
    pub fn refusal(&self) -> Refusal {
        let message = self.to_string();
        match self {
            Self::NotFound(_) => Refusal::new(ErrorCode::NotFound, message).hint("list tells what there is"),
            Self::Busy { .. } | Self::Changed(_) => {
                let refusal =
                    Refusal::new(ErrorCode::Conflict, message).hint("ask again when it has been still for a minute");
                Refusal { retryable: true, ..refusal }
            }
            Self::Conflict { hint, .. } => Refusal::new(ErrorCode::Conflict, message).hint(*hint),
            Self::Unfit { fault, is_recovering: false, .. } if fault.is_recoverable() => {
                Refusal::new(ErrorCode::Corrupt, message).hint("recover=true (--recover) takes what is whole in it")
            }
            Self::Unfit { .. } => Refusal::new(ErrorCode::Corrupt, message).hint("move it away to adopt the rest"),
            Self::Disk { .. } => {
                let hint = "make room, or make it readable and writable for the node, and ask again";
                Refusal::new(ErrorCode::Unavailable, message).hint(hint)
            }
            Self::Path(error) => {
                let is_absent = error.kind() == io::ErrorKind::NotFound;
                let code = if is_absent { ErrorCode::NotFound } else { ErrorCode::Unavailable };
                Refusal::new(code, message).hint("name MCAP files, or a folder with MCAP files in it")
            }
            Self::NoRoom(_) => {
                let hint = "make room on the library's disk, or put the files on it: a second name takes none";
                Refusal::new(ErrorCode::Unavailable, message).hint(hint)
            }
            Self::Cancelled => {
                Refusal::new(ErrorCode::Conflict, message).hint("ask again: it goes on where it stopped")
            }
        }
    }
}

/// Hears how far it is, and tells whether to go on.
pub trait Watch {
    /// Hears how far it is.
    fn hear(&self, progress: Progress);

    /// Tells whether a person stopped it.
    fn is_cancelled(&self) -> bool;
}

/// One adoption.
pub(super) struct Run<'a> {
    pub(super) library: &'a Library,
    pub(super) options: &'a AdoptOptions,
    pub(super) watch: &'a dyn Watch,
    /// What is adopted, for people.
    pub(super) source: String,
    /// The recording that it becomes.
    pub(super) name: RecordingName,
    pub(super) progress: Progress,
    pub(super) result: AdoptResult,
}

impl Run<'_> {
    pub(super) fn folder(&self) -> scan::Folder {
        scan::Folder::new(&self.library.recordings, &self.name)
    }

    pub(super) fn now_ns(&self) -> UnixNs {
        self.library.clock.wall()
    }

    pub(super) fn find(&mut self, kind: AdoptFindingKind, file: Option<&str>, message: String) {
        let (source, file) = (self.source.clone(), file.map(str::to_owned));
        self.result.find(AdoptFinding { kind, source, file, message });
    }

    pub(super) fn act(&mut self, kind: AdoptActionKind, file: Option<&str>, message: String) {
        let (recording, file) = (self.name.clone(), file.map(str::to_owned));
        self.result.act(AdoptAction { kind, recording, file, message });
    }

    pub(super) fn begin(&mut self, sizes: impl Iterator<Item = u64>) {
        for size_bytes in sizes {
            self.progress.chunks_total += 1;
            self.progress.bytes_total += size_bytes;
        }
        self.watch.hear(self.progress);
    }

    /// Hashes a file that must not change meanwhile, with its progress.
    pub(super) fn hash(&mut self, path: &Path, label: &str, stamp: Stamp) -> Result<Digest, AdoptError> {
        let fault = |fault| AdoptError::file(label, fault);
        let mut blocks = VerifiedBlocks::open(path, None).map_err(fault)?;
        while let Some(block) = blocks.next_block().map_err(fault)? {
            if self.watch.is_cancelled() {
                return Err(AdoptError::Cancelled);
            }
            self.progress.bytes_done += block.len() as u64;
            self.watch.hear(self.progress);
        }
        let is_same = Stamp::of(path).is_ok_and(|now| now == stamp);
        match blocks.finished() {
            Some((digest, size_bytes)) if is_same && size_bytes == stamp.size_bytes => {
                self.progress.chunks_done += 1;
                self.watch.hear(self.progress);
                Ok(digest)
            }
            Some(_) | None => Err(AdoptError::Changed(label.to_owned())),
        }
    }
}
