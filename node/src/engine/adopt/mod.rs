//! Makes a recording of this machine of what is none: files of other tools, chunks that no manifest names, a recording
//! that another machine wrote.
//!
//! `import` takes files in, `in_place` takes over what is laid out as a recording already, `job` runs it. The manifest is written last,
//! so that nothing is a recording before it is whole; a source is never changed nor removed.

mod import;
mod in_place;
pub mod job;
mod run;

use std::{
    fmt,
    fs::File,
    io,
    path::{Path, PathBuf},
    time::Duration,
};

use bubbaloop_storage_schemas::{RecordingName, adopt::AdoptResult, reply::Progress};

use self::run::Run;
pub use self::run::{AdoptError, AdoptOptions, Library, Watch};
use crate::{
    durable,
    library::{
        source::{self, SourceFile},
        unmanaged::{self, SALVAGE},
    },
    policy::{adopt, recording::ManifestFacts},
};

/// What is to be adopted.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Source {
    /// What `list` shows under a name.
    Listed(String),
    /// Files and folders that a person named.
    Paths(Vec<PathBuf>),
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Listed(name) => f.write_str(name),
            Self::Paths(paths) => {
                let names = paths.iter().filter_map(|path| Some(path.file_name()?.to_string_lossy()));
                f.write_str(&names.collect::<Vec<_>>().join(", "))
            }
        }
    }
}

/// What is known of a source before its bytes are read.
#[derive(Debug)]
pub struct Found {
    /// The recording that it becomes.
    pub recording: RecordingName,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    /// Files that become chunks.
    Files(Vec<SourceFile>),
    /// A recording's folder.
    Recording,
}

/// Finds what is to be adopted, and refuses what may still be written. It reads no content.
///
/// `is_unmanaged` tells that `list` shows it as laid out in another way; otherwise it is a recording's folder.
///
/// # Errors
/// There is nothing of that name, it may still be written, or it can't have the wanted name.
pub fn find(
    library: &Library,
    source: &Source,
    options: &AdoptOptions,
    is_unmanaged: bool,
) -> Result<Found, AdoptError> {
    let unreadable = AdoptError::disk(&library.recordings);
    let files = match source {
        Source::Paths(paths) => named_files(library, paths)?,
        Source::Listed(name) if !is_unmanaged => return find_recording(library, name, options),
        Source::Listed(name) => listed_files(library, name).map_err(unreadable)?,
    };
    if files.is_empty() {
        return Err(AdoptError::NotFound(source.to_string()));
    }
    let now_ns = library.clock.wall();
    if let Some(file) = files.iter().find(|file| !adopt::is_still(file.stamp.mtime_ns, now_ns)) {
        return Err(AdoptError::Busy { what: file.label.clone() });
    }
    let recording = match &options.name {
        Some(name) => name.clone(),
        None => default_name(library, source, &files)?,
    };
    Ok(Found { recording, kind: Kind::Files(files) })
}

/// Returns the files of paths that a person named; those below the folder of recordings as `list` knows them.
fn named_files(library: &Library, paths: &[PathBuf]) -> Result<Vec<SourceFile>, AdoptError> {
    let mut files = source::paths(paths).map_err(AdoptError::Path)?;
    let root = library.recordings.canonicalize().unwrap_or_else(|_| library.recordings.clone());
    for file in &mut files {
        if let Some(label) = file.path.strip_prefix(&root).ok().and_then(Path::to_str) {
            (file.label, file.is_outside) = (label.to_owned(), false);
        }
    }
    Ok(files)
}

/// Returns the files of something that is listed as laid out in another way.
fn listed_files(library: &Library, name: &str) -> io::Result<Vec<SourceFile>> {
    if let Some(recording) = name.strip_prefix(SALVAGE) {
        return source::folder(&library.salvage.join(recording), name);
    }
    let mut files = source::flat(&library.recordings, name)?;
    let folder = library.recordings.join(name);
    // Beside flat files of a session there may be the recording that was made of them.
    if files.is_empty() && folder.is_dir() {
        files = source::folder(&folder, name)?;
    }
    Ok(files)
}

/// Returns the name of the recording that a source becomes: its own, unless that is the source's folder.
fn default_name(library: &Library, source: &Source, files: &[SourceFile]) -> Result<RecordingName, AdoptError> {
    let own = match source {
        Source::Listed(name) => name.strip_prefix(SALVAGE).unwrap_or(name).to_owned(),
        Source::Paths(paths) => {
            let first = paths.first().and_then(|path| path.canonicalize().ok()).unwrap_or_default();
            let name = first.file_name().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
            match source::stem(&name) {
                Some((stem, _)) => unmanaged::name_of(stem).to_owned(),
                None => name,
            }
        }
    };
    let illegal = || AdoptError::Conflict {
        message: format!("no recording can be named after {own:?}"),
        hint: "give the new recording a name=",
    };
    let name = adopt::legal_name(&own).ok_or_else(illegal)?;
    let folder = library.recordings.join(name.as_str());
    let is_of_a_crash = matches!(source, Source::Listed(listed) if listed.starts_with(SALVAGE));
    let is_own_folder = files.iter().any(|file| file.path.starts_with(&folder));
    if is_own_folder || is_of_a_crash { adopt::other_name(&name).ok_or_else(illegal) } else { Ok(name) }
}

fn find_recording(library: &Library, name: &str, options: &AdoptOptions) -> Result<Found, AdoptError> {
    let recording: RecordingName = name.parse().map_err(|_| AdoptError::NotFound(name.to_owned()))?;
    if options.name.as_ref().is_some_and(|wanted| *wanted != recording) {
        let message = format!("{recording} is a recording already and keeps its name");
        return Err(AdoptError::Conflict { message, hint: "leave out name" });
    }
    let view = in_place::view(library, &recording)?;
    let now_ns = library.clock.wall();
    // Of a whole one nothing is written: whoever says it again, moments after it was adopted, is told that it is.
    let is_whole = matches!(view.recording.manifest, ManifestFacts::Readable { is_ours: true, has_ended: true })
        && view.recording.unlisted_chunks() == 0;
    if !is_whole && !adopt::is_still(view.recording.touched_at_ns, now_ns) {
        return Err(AdoptError::Busy { what: recording.to_string() });
    }
    let may_go_on = matches!(view.recording.manifest, ManifestFacts::Readable { is_ours: true, has_ended: false })
        && !view.recording.has_ended(now_ns);
    if may_go_on {
        let message = format!("{recording} has no end: its recorder may go on with it, and writes its manifest");
        let hint = "its chunks go up all the same; ask again when it has ended, or has been still for a day";
        return Err(AdoptError::Conflict { message, hint });
    }
    Ok(Found { recording, kind: Kind::Recording })
}

/// The right to adopt into a library, which one process has at a time. It ends when it is dropped.
#[derive(Debug)]
pub struct Turn {
    _lock: File,
}

/// Between two tries to have the turn.
const TURN_LOOK: Duration = Duration::from_millis(100);

/// Waits for the turn.
///
/// # Errors
/// The home is not writable.
pub async fn turn(library: &Library) -> Result<Turn, AdoptError> {
    loop {
        match durable::lock(&library.lock) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => tokio::time::sleep(TURN_LOOK).await,
            result => return result.map(|lock| Turn { _lock: lock }).map_err(AdoptError::disk(&library.lock)),
        }
    }
}

/// Adopts what was found. Idempotent: what was adopted before is found again, and what was begun goes on.
///
/// It reads and writes the disk: call it where blocking is allowed.
///
/// # Errors
/// Why it was not adopted. What was done stays, and asking again goes on from there.
pub fn adopt(
    library: &Library,
    source: &Source,
    options: &AdoptOptions,
    is_unmanaged: bool,
    watch: &dyn Watch,
    _turn: &Turn,
) -> Result<AdoptResult, AdoptError> {
    // Looked for in turn: the one before may have adopted it.
    let Found { recording, kind } = find(library, source, options, is_unmanaged)?;
    let mut run = Run {
        library,
        options,
        watch,
        source: source.to_string(),
        name: recording,
        progress: Progress::default(),
        result: AdoptResult::default(),
    };
    match kind {
        Kind::Files(files) => run.import(files)?,
        Kind::Recording => run.take_over()?,
    }
    Ok(run.result)
}
