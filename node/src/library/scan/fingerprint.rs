//! Whether a recording's folder must be read again.

use std::{fs, os::unix::fs::MetadataExt as _, path::Path};

use bubbaloop_storage_schemas::{RecordingName, UnixNs};

use super::Folder;
use crate::library::mtime_ns;

/// What a recording's folder looks like from outside: as long as it is the same, nothing needs to be read again.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Fingerprint {
    /// Of the folder, its chunks, its manifest and its journal.
    traces: [Option<Trace>; 4],
    /// When it was looked at; zero where that is not known.
    read_at_ns: UnixNs,
    /// The journal is as this node wrote it last.
    is_own_journal: bool,
    /// Lines of this node's of which was told.
    own_lines: u64,
    /// Some of them came while the folder was read, and what was read may be older: it must be read again.
    is_overtaken: bool,
}

/// Inode, mtime and size.
type Trace = (u64, UnixNs, u64);

fn trace(path: &Path) -> Option<Trace> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.ino(), mtime_ns(&metadata), metadata.len()))
}

/// What a line that this node wrote to a journal changed of a recording's folder.
#[derive(Debug, Clone, Copy)]
pub struct OwnLine {
    folder: Option<Trace>,
    journal: Option<Trace>,
}

impl OwnLine {
    /// Looks at the folder after the line was written.
    pub fn look(recordings: &Path, name: &RecordingName) -> Self {
        let folder = Folder::new(recordings, name);
        Self { folder: trace(folder.root()), journal: trace(&folder.journal()) }
    }
}

impl Fingerprint {
    /// Looks at a recording's folder.
    pub(super) fn of(folder: &Folder) -> Self {
        let paths = [folder.root().to_owned(), folder.chunks(), folder.manifest(), folder.journal()];
        Self { traces: paths.map(|path| trace(&path)), ..Self::default() }
    }

    /// Tells whether a recording's folder looks like this now.
    pub fn is_of(&self, recordings: &Path, name: &RecordingName) -> bool {
        Self::of(&Folder::new(recordings, name)).traces == self.traces
    }

    /// Takes in when the reading began, in wall time.
    pub const fn note_reading(&mut self, read_at_ns: UnixNs) {
        self.read_at_ns = read_at_ns;
    }

    /// Takes in a line that this node wrote to the journal itself, which is known without reading it again. The journal's
    /// creation changes the folder too; what a recorder does there shows in chunks and manifest.
    pub const fn note_own_line(&mut self, seen: OwnLine) {
        self.own_lines += 1;
        (self.traces[0], self.traces[3]) = (seen.folder, seen.journal);
        self.is_own_journal = seen.journal.is_some();
    }

    /// Takes in what was told while the folder was read: `earlier` is the fingerprint from when that began, `known` the one
    /// that this takes the place of.
    pub(super) fn keep_from(&mut self, earlier: Option<&Self>, known: &Self) {
        self.own_lines = known.own_lines;
        self.is_overtaken = earlier.is_none_or(|earlier| earlier.own_lines != known.own_lines);
    }

    /// Tells whether lines were told of while the folder was read, which must be read again.
    pub(super) const fn is_overtaken(&self) -> bool {
        self.is_overtaken
    }

    /// When chunks or manifest changed last. The journal is our own, and its first line changes the folder.
    pub(super) fn touched_at_ns(&self) -> UnixNs {
        self.traces[1..3].iter().flatten().map(|(_, mtime_ns, _)| *mtime_ns).max().unwrap_or(0)
    }

    /// Tells whether no change can hide behind it: one that comes within a file system clock's grain of another may show the
    /// same mtime, so what was read that soon after a change must be read again. Of a journal that this node alone wrote to its size tells, and what is made in the folder itself shows
    /// below it.
    pub(super) fn is_settled(&self) -> bool {
        let [folder, chunks, manifest, journal] = &self.traces;
        let others = [chunks, manifest, if self.is_own_journal { &None } else { journal }];
        !self.is_overtaken
            && folder.is_some()
            && others.into_iter().flatten().all(|(_, mtime_ns, _)| mtime_ns.saturating_add(GRAIN_NS) < self.read_at_ns)
    }
}

/// The coarsest file system clock that is met: FAT's two seconds.
pub(super) const GRAIN_NS: u64 = 2_000_000_000;
