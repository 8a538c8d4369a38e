//! What adopting needs of the library in memory, and what it tells it.

use std::{collections::BTreeSet, fs::DirEntry, io, path::PathBuf, sync::Arc};

use bubbaloop_storage_schemas::RecordingName;

use super::{Engine, intake::Entries};
use crate::{
    engine::adopt::{AdoptOptions, Library},
    library::{
        left_alone::LeftAlone,
        salvage,
        scan::{Folder, ReadReason},
        unmanaged::{AllUnmanaged, Covering, Gathering, SALVAGE},
    },
};

impl Engine {
    /// Returns the library as adopting needs it.
    pub fn library(&self) -> Library {
        let beside = |name: &str| self.deps.state.with_file_name(name);
        Library {
            recordings: self.deps.recordings.clone(),
            machine_id: self.deps.machine_id.clone(),
            lock: beside("adopt.lock"),
            salvage: beside("salvage"),
            clock: Arc::clone(&self.deps.clock),
        }
    }

    /// Tells whether `list` shows something under a name, and whether as laid out in another way; what came since the
    /// last scan too. `None` where there is nothing.
    pub fn is_unmanaged(&self, name: &str) -> Option<bool> {
        if !self.state().unmanaged.contains_key(name) && !self.knows(name) {
            self.look_again();
        }
        let state = self.state();
        match state.unmanaged.get(name) {
            Some(_) => Some(true),
            None => state.recordings.contains_key(name).then_some(false),
        }
    }

    /// Returns how something is adopted: what was adopted before goes on under the name that it got.
    pub fn adopt_options(&self, name: &str, options: &AdoptOptions) -> AdoptOptions {
        let adopted_as = || self.state().unmanaged.get(name).and_then(|found| found.adopted_as.clone());
        AdoptOptions { name: options.name.clone().or_else(adopted_as), ..options.clone() }
    }

    /// Returns what is laid out in another way and in no recording yet; what crashes left open only to recover it.
    pub fn not_adopted(&self, recover: bool) -> AllUnmanaged {
        let mut unmanaged = self.unmanaged();
        unmanaged.retain(|name, found| !found.is_adopted() && (recover || !name.starts_with(SALVAGE)));
        unmanaged
    }

    /// Takes in that recordings were adopted: what is pending of them is offered, and their sources are known by them.
    pub fn note_adopted(&self, names: &[RecordingName]) {
        for name in names {
            if let Err(error) = self.refresh(name, ReadReason::OnDemand) {
                tracing::warn!(recording = %name, %error, "a recording can't be read");
            }
        }
        let adopted: Vec<_> = names.iter().filter_map(|name| self.recording(name)?.adopted_from.clone()).collect();
        let files = adopted.iter().flat_map(|from| &from.files);
        if let Err(error) = LeftAlone::remove(&self.left_alone(), files) {
            tracing::warn!(%error, "that a recording is made of files again can't be written down");
        }
        self.look_again();
        self.changed.notify_one();
    }

    /// Returns where it is written which files are not adopted by themselves.
    pub(in crate::engine) fn left_alone(&self) -> PathBuf {
        self.deps.state.with_file_name("left_alone.json")
    }

    /// Looks anew at what is laid out in another way. Why the folder can't be read is told by the scans.
    fn look_again(&self) {
        let Ok(entries) = Entries::read(&self.deps.recordings) else { return };
        if let Ok(unmanaged) = self.gather_unmanaged(&entries.files, &entries.folders) {
            self.state().unmanaged = unmanaged;
        }
    }

    /// Looks at what is laid out in another way, by what is known of what recordings were made of.
    pub(super) fn gather_unmanaged(&self, files: &[DirEntry], folders: &BTreeSet<String>) -> io::Result<AllUnmanaged> {
        let (known, covering) = {
            let state = self.state();
            let known: BTreeSet<_> = state.recordings.keys().map(ToString::to_string).collect();
            (known, Covering::of(state.recordings.values().map(Arc::as_ref)))
        };
        let left = LeftAlone::load(&self.left_alone());
        let mut gathering = Gathering::new(&covering, &left, self.deps.clock.wall());
        for file in files {
            match gathering.add_file(file) {
                // It has another name since it was listed.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                added => added?,
            }
        }
        for name in folders.difference(&known) {
            let added = gathering.add_folder(&self.deps.recordings.join(name), name);
            self.note_unreadable(name, added.err().map(|error| error.to_string()));
        }
        if let Err(error) = gathering.add_salvage(&self.library().salvage, &self.deps.recordings) {
            tracing::warn!(%error, "what crashes left open can't be looked at");
        }
        Ok(gathering.finish())
    }

    /// Keeps what crashes left open in recorders before these sweep it.
    pub(super) fn salvage(&self, files: &[DirEntry]) {
        let recordings = &self.deps.recordings;
        let mut open = Vec::new();
        for recording in self.state().recordings.values().filter(|recording| recording.is_ours()) {
            let chunks = Folder::new(recordings, &recording.name).chunks();
            open.extend(recording.open_files.iter().map(|name| (recording.name.to_string(), chunks.join(&**name))));
        }
        for file in files {
            let name = file.file_name();
            if let Some(group) = name.to_str().and_then(salvage::group_of_flat) {
                open.push((group.to_owned(), file.path()));
            }
        }
        if let Err(error) = salvage::keep(&self.library().salvage, recordings, &open, self.deps.clock.wall()) {
            tracing::warn!(%error, "what a crash left open can't be kept");
        }
    }
}
