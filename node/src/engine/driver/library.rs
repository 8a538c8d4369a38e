//! Whether the folder of recordings is the library that it was.
//!
//! A mount point without its disk looks like a library from which all was removed. So the folder has a mark, a random id
//! in `.library.json`, and the node remembers it. Where another folder stands in its place nothing that is not proven is
//! forgotten: what is there goes up, and what is not there stays at risk.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use bubbaloop_storage_schemas::{RecordingName, UnixNs, reply::Failing};

use super::{Deps, Engine, State};
use crate::{
    library::{self, disk, state::NodeState},
    mark,
    policy::queue::ChunkId,
};

/// Why the folder of recordings is not the library.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LibraryUnavailable {
    /// It can't be read, for this reason.
    Unreadable(String),
    /// It is another folder than the one that was the library: most likely its disk is not mounted.
    Changed,
}

/// Returns the mark that the library's folder had in an earlier run.
pub(super) fn known_mark(parts: &Deps) -> Option<String> {
    NodeState::load(&parts.state).libraries.remove(&parts.recordings)
}

fn mark_of(recordings: &Path) -> PathBuf {
    recordings.join(library::MARK_FILE)
}

impl Engine {
    /// Tells why the folder of recordings is not the library, where it is not. An empty mark is a person's word that this
    /// folder takes its place.
    pub(super) fn look_for_library(&self) -> Option<LibraryUnavailable> {
        let (known, place) = {
            let state = self.state();
            (state.mark.clone(), state.place_without_mark)
        };
        let found = mark::read(&mark_of(&self.deps.recordings));
        let Some(known) = known else {
            let is_other = place.is_some() && place != disk::place(&self.deps.recordings).ok();
            return (is_other && !matches!(found, Ok(None))).then_some(LibraryUnavailable::Changed);
        };
        match found {
            Ok(Some(found)) => (found != known).then_some(LibraryUnavailable::Changed),
            Ok(None) => None,
            Err(error) => match error.kind() {
                io::ErrorKind::NotFound | io::ErrorKind::InvalidData | io::ErrorKind::UnexpectedEof => {
                    Some(LibraryUnavailable::Changed)
                }
                _ => Some(LibraryUnavailable::Unreadable(error.to_string())),
            },
        }
    }

    /// Tells why a recording of which nothing is found is not gone for good, where that is so: a person who removes one
    /// removes its folder.
    pub(super) fn is_only_away(&self, name: &RecordingName) -> Option<String> {
        let folder = self.deps.recordings.join(name.as_str());
        let is_at_risk = || {
            let state = self.state();
            state.recordings.contains_key(name) && !state.is_proven(name)
        };
        match fs::metadata(&folder) {
            _ if self.look_for_library().is_some() => {
                is_at_risk().then(|| "the folder of recordings is not the one that it was in".into())
            }
            Ok(_) => (is_at_risk() && !self.is_being_removed(name)).then(|| {
                format!(
                    "{} is empty, and held what is not proven: mount its disk, or remove the folder",
                    folder.display()
                )
            }),
            Err(error) if error.kind() == io::ErrorKind::NotFound && !folder.is_symlink() => None,
            Err(error) => Some(format!("{}: {error}", folder.display())),
        }
    }

    /// Tells whether a person removes a recording, of which another tool's files may stay in its folder.
    fn is_being_removed(&self, name: &RecordingName) -> bool {
        self.recording(name).is_some_and(|recording| recording.removal_begun_at_ns.is_some())
    }

    /// Tells whether a recording that is known is not there as a whole.
    pub(super) fn is_unseen(&self, name: &RecordingName) -> bool {
        let is_there = self.deps.recordings.join(name.as_str()).is_dir();
        self.look_for_library().is_some() || !is_there && self.is_only_away(name).is_some()
    }

    /// Gives the folder of recordings its mark, where it has none, and remembers it. One that can't be written to has
    /// none: it is told from another by its place as long as the node runs.
    pub(super) fn mark_library(&self) {
        let path = mark_of(&self.deps.recordings);
        let found = match mark::read(&path) {
            Ok(Some(found)) => Ok(found),
            Ok(None) => mark::make(&path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => mark::make(&path),
            Err(error) => Err(error),
        };
        let Ok(found) = found else {
            self.note_place();
            return;
        };
        if self.state().mark.as_ref() == Some(&found) {
            return;
        }
        let place = self.deps.recordings.clone();
        let remembered = found.clone();
        if let Err(error) = NodeState::update(&self.deps.state, |state| drop(state.libraries.insert(place, remembered)))
        {
            // It is tried again by the next scan.
            tracing::debug!(%error, "the library's mark can't be remembered");
            self.note_place();
            return;
        }
        self.state().mark = Some(found);
    }

    fn note_place(&self) {
        self.state().place_without_mark = disk::place(&self.deps.recordings).ok();
    }

    /// Remembers why the folder of recordings is not the library, and tells when that changes.
    pub(super) fn note_away(&self, now: Option<LibraryUnavailable>) {
        let mut state = self.state();
        if state.away.as_ref().map(|(away, _)| away) == now.as_ref() {
            return;
        }
        match &now {
            Some(LibraryUnavailable::Unreadable(error)) => {
                tracing::warn!(error, "the folder of recordings can't be read");
            }
            Some(LibraryUnavailable::Changed) => tracing::warn!("another folder stands in the place of the recordings"),
            None => tracing::info!("the folder of recordings is there again"),
        }
        state.away = now.map(|away| (away, self.deps.clock.wall()));
    }
}

impl State {
    /// Forgets a recording that is not there any more, with all that was to be done for it.
    pub(super) fn forget(&mut self, name: &RecordingName) {
        self.let_rest(name);
        self.recordings.remove(name);
        self.publisher.forget(name);
        self.asked.remove(name);
    }

    /// Tells whether a recording is known and holds nothing that is not proven in the store.
    pub(super) fn is_proven(&self, name: &RecordingName) -> bool {
        self.recordings.get(name).is_some_and(|found| found.is_proven_whole() && found.strays.0 == 0)
    }

    /// Takes the chunks of a recording out of the queue, without a word on what is known of them.
    pub(super) fn let_rest(&mut self, name: &RecordingName) {
        let chunks = self.recordings.get(name).into_iter().flat_map(|found| &found.chunks).map(|chunk| chunk.name);
        let listed = chunks.map(|chunk| ChunkId { recording: name.clone(), chunk });
        let dead = self.letters.keys().filter(|id| id.recording == *name).cloned();
        let ids: Vec<_> = listed.chain(dead).collect();
        for id in ids {
            self.queue.forget(&id);
            self.are_letters_changed |= self.letters.remove(&id).is_some();
        }
        self.note_done();
    }

    /// Remembers why the last try failed, and since when none succeeded.
    pub(super) fn note_failing(&mut self, message: &str, now_ns: UnixNs) {
        let since_ns = self.failing.as_ref().map_or(now_ns, |failing| failing.since_ns);
        self.failing = Some(Failing { message: message.to_owned(), since_ns });
    }

    /// What failed last is no matter any more when nothing is left to do.
    pub(super) fn note_done(&mut self) {
        if self.queue.is_done() && self.publisher.is_idle() {
            self.failing = None;
        }
    }
}
