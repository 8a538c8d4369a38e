//! The journals of all recordings, written to from several threads.
//!
//! Each recording has a journal of its own, so those of different recordings are written side by side. Of one recording
//! one thread writes at a time, and takes along what the others want to write by then: one sync is for all of these lines.
//! Nobody goes on before the line that it gave is on the disk, or is known not to get there.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use bubbaloop_storage_schemas::{RecordingName, journal::JournalLine, limits::UNWRITTEN_LINES_MAX};

use super::{
    journal::{self, Line},
    scan::Folder,
};

/// The journals of one library. A line that a full disk does not take is kept in memory and written later.
#[derive(Debug)]
pub struct Journals {
    recordings: PathBuf,
    /// Those that somebody writes to, or of which lines are kept.
    used: Mutex<BTreeMap<RecordingName, Arc<Journal>>>,
    /// Lines that are kept, of all recordings.
    kept: AtomicUsize,
    is_durable: AtomicBool,
}

#[derive(Debug, Default)]
struct Journal {
    state: Mutex<State>,
    /// Wakes who waits for the end of a write.
    ended: Condvar,
}

#[derive(Debug, Default)]
struct State {
    /// What is to be written next, the kept lines first.
    waiting: Vec<Line>,
    /// How many of these were tried before.
    kept: usize,
    is_being_written: bool,
    /// Lines that were given, and those of them that were tried at least once.
    given: u64,
    tried: u64,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Journal {
    /// Waits until nobody writes.
    fn idle(&self) -> MutexGuard<'_, State> {
        let state = lock(&self.state);
        self.ended.wait_while(state, |state| state.is_being_written).unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journals {
    /// Makes those of the recordings in a folder.
    pub fn new(recordings: PathBuf) -> Self {
        Self { recordings, used: Mutex::default(), kept: AtomicUsize::new(0), is_durable: AtomicBool::new(true) }
    }

    /// Tells whether they are of the recordings in this folder.
    pub fn are_of(&self, recordings: &Path) -> bool {
        self.recordings == recordings
    }

    /// Tells whether all lines get to the disk.
    pub fn is_durable(&self) -> bool {
        self.is_durable.load(Ordering::Relaxed)
    }

    /// Appends lines, durably; where the disk does not take them, they are kept. One that is too long for any journal is
    /// told and left out. It blocks.
    pub fn append(&self, recording: &RecordingName, lines: impl IntoIterator<Item = JournalLine>) {
        let told = |error: &io::Error| tracing::error!(%recording, %error, "a fact is in memory only");
        let lines: Vec<_> = lines.into_iter().filter_map(|line| Line::of(&line).inspect_err(told).ok()).collect();
        let is_written = self.with(recording, |journal| {
            let mut state = lock(&journal.state);
            state.given += lines.len() as u64;
            state.waiting.extend(lines);
            let mine = state.given;
            while state.tried < mine {
                if state.is_being_written {
                    state = journal.ended.wait(state).unwrap_or_else(PoisonError::into_inner);
                } else {
                    state = self.write(recording, journal, state, None).0;
                }
            }
            state.kept == 0
        });
        // What takes this line may take those that others had to keep.
        if is_written && self.kept.load(Ordering::Relaxed) > 0 {
            self.write_kept();
        }
    }

    /// Appends a line that must be on the disk, behind all that is kept. It blocks.
    ///
    /// # Errors
    /// The disk does not take it, or what is kept, or it is too long, or the recording is gone: the line counts for nothing
    /// then.
    pub fn append_now(&self, recording: &RecordingName, line: JournalLine) -> io::Result<()> {
        let line = Line::of(&line)?;
        self.with(recording, |journal| self.write(recording, journal, journal.idle(), Some(line)).1)
    }

    /// Writes the lines that are kept, if the disk takes them now. It blocks.
    pub fn write_kept(&self) {
        if self.kept.load(Ordering::Relaxed) == 0 {
            return;
        }
        let names: Vec<_> = lock(&self.used).keys().cloned().collect();
        for name in names {
            self.with(&name, |journal| {
                let state = lock(&journal.state);
                // Who writes takes along what is kept, and may hang in a disk.
                if state.kept > 0 && !state.is_being_written {
                    drop(self.write(&name, journal, state, None));
                }
            });
        }
    }

    /// Forgets what was to be written to a journal that goes.
    pub fn forget(&self, recording: &RecordingName) {
        self.with(recording, |journal| {
            let mut state = journal.idle();
            self.kept.fetch_sub(state.kept, Ordering::Relaxed);
            state.kept = 0;
            state.tried = state.given;
            state.waiting.clear();
            journal.ended.notify_all();
        });
        self.note_durable();
    }

    /// Works with a recording's journal, and forgets it when nobody else does and nothing of it is kept.
    fn with<T>(&self, recording: &RecordingName, work: impl FnOnce(&Journal) -> T) -> T {
        let journal = Arc::clone(lock(&self.used).entry(recording.clone()).or_default());
        let worked = work(&journal);
        let mut used = lock(&self.used);
        // The map holds one, and this is the other.
        if Arc::strong_count(&journal) == 2 && lock(&journal.state).waiting.is_empty() {
            used.remove(recording);
        }
        worked
    }

    /// Writes all that waits, and `last` behind it, which is not kept where that fails.
    fn write<'a>(
        &self,
        recording: &RecordingName,
        journal: &'a Journal,
        mut state: MutexGuard<'a, State>,
        last: Option<Line>,
    ) -> (MutexGuard<'a, State>, io::Result<()>) {
        let mut lines = std::mem::take(&mut state.waiting);
        let (kept, taken, given) = (std::mem::take(&mut state.kept), lines.len(), state.given);
        lines.extend(last);
        if lines.is_empty() {
            return (state, Ok(()));
        }
        state.is_being_written = true;
        drop(state);
        let written = journal::append(&Folder::new(&self.recordings, recording).journal(), &lines);
        // Where there is no folder, the recording was removed, and its journal with it.
        let failure = written.as_ref().err().filter(|error| error.kind() != io::ErrorKind::NotFound);
        let mut state = lock(&journal.state);
        state.is_being_written = false;
        state.tried = given;
        self.kept.fetch_sub(kept, Ordering::Relaxed);
        if let Some(error) = failure {
            let room = UNWRITTEN_LINES_MAX.saturating_sub(self.kept.load(Ordering::Relaxed));
            lines.truncate(taken.min(room));
            self.kept.fetch_add(lines.len(), Ordering::Relaxed);
            state.kept = lines.len();
            state.waiting.splice(..0, lines);
            if self.is_durable.swap(false, Ordering::Relaxed) {
                tracing::error!(%recording, %error, "the journal can't be written: marks are in memory only");
            }
        } else {
            self.note_durable();
        }
        journal.ended.notify_all();
        (state, written)
    }

    fn note_durable(&self) {
        if self.kept.load(Ordering::Relaxed) == 0 && !self.is_durable.swap(true, Ordering::Relaxed) {
            tracing::info!("the journal is written again");
        }
    }
}

#[cfg(test)]
#[expect(clippy::disallowed_methods, reason = "tests make folders")]
mod tests {
    use std::{fs, path::Path, thread};

    use bubbaloop_storage_schemas::{ChunkName, Digest, journal::JournalEntry, limits::JOURNAL_LINE_BYTES_MAX};

    use super::*;

    fn line(number: u32) -> JournalLine {
        let chunk = ChunkName::new(number, &Digest::of(b"x"));
        JournalLine { at_ns: number.into(), store_id: "a".into(), entry: JournalEntry::Restored { chunk } }
    }

    fn name(number: u32) -> RecordingName {
        format!("drive_{number}").parse().unwrap()
    }

    /// Returns the times of the whole lines. Another thread may just be writing the last one.
    fn times(folder: &Path, recording: &RecordingName) -> Vec<u64> {
        let text = fs::read_to_string(Folder::new(folder, recording).journal()).unwrap_or_default();
        let lines = text.split_inclusive('\n').filter(|line| line.ends_with('\n'));
        lines.map(|line| serde_json::from_str::<JournalLine>(line).unwrap().at_ns).collect()
    }

    #[test]
    fn lines_of_many_threads_are_all_written_and_each_before_its_giver_goes_on() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..3 {
            fs::create_dir(folder.path().join(name(number).as_str())).unwrap();
        }
        let journals = Journals::new(folder.path().to_owned());
        thread::scope(|scope| {
            for thread in 0..8 {
                let (journals, folder) = (&journals, folder.path());
                scope.spawn(move || {
                    for number in 0..30 {
                        let (recording, number) = (name(number % 3), 100 * thread + number);
                        journals.append(&recording, [line(number)]);
                        assert!(times(folder, &recording).contains(&number.into()), "{number}");
                    }
                });
            }
        });
        for recording in 0..3 {
            let times = times(folder.path(), &name(recording));
            let of = |thread: u64| times.iter().copied().filter(move |time| time / 100 == thread);
            assert_eq!(times.len(), 80);
            assert!((0..8).all(|thread| of(thread).is_sorted()), "a thread's lines keep their order: {times:?}");
        }
        assert!(journals.is_durable() && lock(&journals.used).is_empty());
    }

    #[test]
    fn a_journal_that_fails_keeps_its_lines_and_holds_back_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let (bad, good) = (name(0), name(1));
        let in_the_way = Folder::new(folder.path(), &bad).journal();
        fs::create_dir_all(&in_the_way).unwrap();
        fs::create_dir(folder.path().join(good.as_str())).unwrap();
        let journals = Journals::new(folder.path().to_owned());
        for number in [1, 2] {
            journals.append(&bad, [line(number)]);
            journals.append(&good, [line(number)]);
        }
        journals.append_now(&bad, line(9)).unwrap_err();
        assert_eq!((times(folder.path(), &good), journals.is_durable()), (vec![1, 2], false));
        fs::remove_dir(&in_the_way).unwrap();
        journals.append(&good, [line(3)]);
        assert_eq!((times(folder.path(), &bad), journals.is_durable()), (vec![1, 2], true));
        journals.append_now(&bad, line(4)).unwrap();
        assert_eq!(times(folder.path(), &bad), [1, 2, 4]);
    }

    #[test]
    fn a_line_that_is_too_long_holds_back_no_other() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join(name(0).as_str())).unwrap();
        let journals = Journals::new(folder.path().to_owned());
        let long = JournalLine { store_id: "x".repeat(JOURNAL_LINE_BYTES_MAX), ..line(2) };
        journals.append(&name(0), [line(1), long.clone(), line(3)]);
        assert_eq!(journals.append_now(&name(0), long).unwrap_err().kind(), io::ErrorKind::InvalidData);
        journals.append(&name(0), [line(4)]);
        assert_eq!(times(folder.path(), &name(0)), [1, 3, 4]);
        assert!(journals.is_durable() && lock(&journals.used).is_empty());
    }

    #[test]
    fn lines_for_a_recording_that_is_gone_are_not_kept() {
        let folder = tempfile::tempdir().unwrap();
        let journals = Journals::new(folder.path().to_owned());
        journals.append(&name(0), [line(1)]);
        assert!(journals.is_durable() && lock(&journals.used).is_empty());
        let in_the_way = Folder::new(folder.path(), &name(1)).journal();
        fs::create_dir_all(in_the_way).unwrap();
        journals.append(&name(1), [line(1)]);
        journals.forget(&name(1));
        assert!(journals.is_durable() && lock(&journals.used).is_empty());
    }
}
