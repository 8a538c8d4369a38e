//! What a person reads of the store with their own access to it; no node is asked.

use std::{collections::BTreeSet, path::Path, pin::pin, sync::Arc};

use bubbaloop_storage_schemas::{MachineId, RecordingName, Timestamp, UnixNs};
use bytesize::ByteSize;
use serde_json::json;

use super::{
    args::{Asked, Download, Global},
    output::{Exit, failed, note, result},
    progress::Bar,
    screen::{Screen, plain},
    table,
};
use crate::{
    config::{Config, StoreChoice},
    engine::{
        download::{self, ChunkError, DownloadError, Downloaded, Fate, Order, Told},
        fetch::FetchError,
        holdings::{self, Holding},
    },
    policy::{fetch::Selection, listing},
    serve,
    store::{ObjectStore, StoreError, StoreErrorKind},
};

/// Names that an error tells.
const NAMES_TOLD_MAX: usize = 10;

/// Who reads a store from a home that is no machine's.
const READER: &str = "reader";

/// A store, and whose recordings are meant; `None` for everybody's.
struct Reader {
    store: Arc<dyn ObjectStore>,
    machine: Option<MachineId>,
}

impl Reader {
    async fn open(home: &Path, global: &Global) -> Result<Self, Exit> {
        let config = Config::load(home, &global.set);
        let own = serve::store::own_machine(home, &config);
        let machine = match &global.machine {
            Some(Asked::All) => None,
            Some(Asked::One(machine)) => Some(machine.clone()),
            None => Some(own.clone().ok_or_else(|| {
                let message = format!("no node was ever started in {}, so that it is no machine's", home.display());
                failed(&message, Some("say whose recordings are meant with --machine NAME, or --machine '*'"));
                Exit::Usage
            })?),
        };
        // Only a node writes under the name.
        let reader = own.or_else(|| machine.clone()).or_else(|| READER.parse().ok());
        let Some(reader) = reader else { return Err(Exit::Failed) };
        let store = serve::store::read(&config, &reader)
            .await
            .map_err(|block| failed(&format!("there is no store to read ({})", block.reason), Some(&block.hint)))?;
        Ok(Self { store, machine })
    }

    /// Returns what the store holds of the machines that are meant.
    async fn holdings(&self) -> Result<Vec<Holding>, StoreError> {
        let machines: BTreeSet<_> = match &self.machine {
            Some(machine) => machine.spellings().into_iter().collect(),
            None => holdings::machines(&*self.store).await?.into_iter().collect(),
        };
        let mut found = Vec::new();
        for machine in machines {
            found.extend(holdings::of_machine(&*self.store, &machine).await?);
        }
        Ok(found)
    }

    /// Tells that there is nothing, and of which machines there is something.
    async fn no_such(&self, message: &str) -> Exit {
        let hint = match self.machines_told().await {
            None => "it holds nothing of any machine: are bucket and prefix right?".to_owned(),
            Some(machines) => format!("it holds recordings of {machines}"),
        };
        failed(message, Some(&hint));
        Exit::NotFound
    }

    /// Returns the machines of which there is something, the first ones; `None` where there is none, or no answer.
    async fn machines_told(&self) -> Option<String> {
        let machines = holdings::machines(&*self.store).await.unwrap_or_default();
        let machines: Vec<_> = machines.iter().map(ToString::to_string).collect();
        (!machines.is_empty()).then(|| told(&machines))
    }
}

/// Returns the machines of which the store of a home holds something; none where its settings name no store.
///
/// # Errors
/// Why the store is not read.
pub(super) async fn machines(home: &Path, set: &[(String, String)]) -> Result<Vec<MachineId>, String> {
    let config = Config::load(home, set);
    if matches!(config.settings.store, StoreChoice::Unset) {
        return Ok(Vec::new());
    }
    let own = serve::store::own_machine(home, &config).or_else(|| READER.parse().ok());
    let Some(reader) = own else { return Ok(Vec::new()) };
    let store = serve::store::read(&config, &reader).await.map_err(|block| block.reason.to_string())?;
    holdings::machines(&*store).await.map_err(|error| error.to_string())
}

/// Tells an error of the store, and exits as it says: no answer is not a refusal.
fn store_failed(error: &StoreError) -> Exit {
    let hint = match &error.kind {
        StoreErrorKind::Blocked(block) => Some(&*block.hint),
        StoreErrorKind::Retry { .. } => Some("is the store reachable from here? say it again when it is"),
        _ => None,
    };
    failed(&error.to_string(), hint);
    exit_of(error)
}

const fn exit_of(error: &StoreError) -> Exit {
    if matches!(error.kind, StoreErrorKind::Retry { .. }) { Exit::NoAnswer } else { Exit::Failed }
}

/// Shows what the store holds.
pub(super) async fn list(home: &Path, global: &Global, name: Option<&str>, stop: impl Future<Output = ()>) -> Exit {
    let read = async {
        let reader = Reader::open(home, global).await?;
        let held = reader.holdings().await.map_err(|error| store_failed(&error))?;
        match reader.machine.as_ref().filter(|_| held.is_empty() && global.machine.is_some()) {
            Some(machine) => Err(reader.no_such(&format!("the store holds nothing of machine {machine}")).await),
            None => Ok(held),
        }
    };
    let mut held = tokio::select! {
        held = read => match held {
            Ok(held) => held,
            Err(exit) => return exit,
        },
        () = stop => return Exit::Failed,
    };
    held.retain(|held| name.is_none_or(|glob| listing::matches(glob, held.recording.as_str())));
    // A glob is a question; a name without a match is a misspelt one.
    if let Some(name) = name.filter(|name| held.is_empty() && !name.contains(['*', '?'])) {
        failed(&format!("the store holds no recording {}", plain(name)), Some("list --remote tells what it holds"));
        return Exit::NotFound;
    }
    if global.json {
        result(format_args!("{:#}", json!({ "recordings": held })));
    } else {
        result(format_args!("{}", table::holdings(Screen::of_stdout(), &held)));
    }
    Exit::Done
}

/// Copies a recording to a folder.
pub(super) async fn download(home: &Path, global: &Global, asked: &Download, stop: impl Future<Output = ()>) -> Exit {
    let mut stop = pin!(stop);
    tokio::select! {
        exit = copy(home, global, asked) => exit,
        () = &mut stop => {
            note(format_args!("stopped; say it again to go on where it ended"));
            Exit::Failed
        }
    }
}

async fn copy(home: &Path, global: &Global, asked: &Download) -> Exit {
    if global.machine == Some(Asked::All) {
        failed(
            "a download is of one machine",
            Some("say which with --machine NAME; `list --remote --machine '*'` tells"),
        );
        return Exit::Usage;
    }
    let reader = match Reader::open(home, global).await {
        Ok(reader) => reader,
        Err(exit) => return exit,
    };
    let Some(machine) = reader.machine.clone() else { return Exit::Usage };
    let ns = |time: Option<Timestamp>| time.map(|Timestamp(ns)| ns);
    let order = Order {
        store: Arc::clone(&reader.store),
        machine,
        recording: asked.recording.clone(),
        started_at_ns: ns(asked.started_at),
        selection: Selection {
            indices: asked.chunks.clone().unwrap_or(Selection::ALL.indices),
            since_ns: ns(asked.since),
            until_ns: ns(asked.until),
        },
        // A bare name has no folder above it to sync.
        folder: std::path::absolute(&asked.to).unwrap_or_else(|_| asked.to.clone()),
    };
    let mut progress = Progress::begin(order.recording.to_string(), global.json);
    let downloaded = download::download(&order, &mut |told| progress.tell(&told)).await;
    // Its bar goes before anything else is told.
    drop(progress);
    match downloaded {
        Ok(done) => show(global, &order, &done),
        Err(error) => refused(&reader, &order.recording, error).await,
    }
}

/// How far a download is, for a person: a bar on a terminal, a line for each chunk elsewhere.
struct Progress {
    bar: Option<Bar>,
    is_quiet: bool,
    recording: String,
    chunks_done: usize,
    chunks: usize,
    bytes_done: u64,
    size_bytes: u64,
}

impl Progress {
    /// Begins to tell; `is_quiet` where a program reads.
    fn begin(recording: String, is_quiet: bool) -> Self {
        Self { bar: Bar::begin(), is_quiet, recording, chunks_done: 0, chunks: 0, bytes_done: 0, size_bytes: 0 }
    }

    fn tell(&mut self, told: &Told<'_>) {
        let (line, is_bad) = match told {
            Told::Planned { chunks, size_bytes } => {
                (self.chunks, self.size_bytes) = (*chunks, *size_bytes);
                (format!("{}, {}", table::chunks(*chunks as u64), ByteSize::b(*size_bytes)), false)
            }
            Told::Chunk { name, size_bytes, fate } => {
                self.chunks_done += 1;
                self.bytes_done += *size_bytes;
                let how = match fate {
                    Fate::Fetched => "fetched".to_owned(),
                    Fate::There => "is there already".to_owned(),
                    Fate::Failed(error) => format!("failed: {error}"),
                };
                let size = ByteSize::b(*size_bytes);
                let line = format!("{}/{} {name} ({size}) {how}", self.chunks_done, self.chunks);
                (line, matches!(fate, Fate::Failed(_)))
            }
        };
        match &self.bar {
            Some(bar) => {
                bar.show(&self.recording, self.bytes_done, self.size_bytes);
                if is_bad {
                    bar.note(&plain(&line));
                }
            }
            None if !self.is_quiet || is_bad => note(format_args!("{line}")),
            None => {}
        }
    }
}

fn show(global: &Global, order: &Order, done: &Downloaded) -> Exit {
    let failed_rows: Vec<_> =
        done.failed.iter().map(|(chunk, error)| json!({"chunk": chunk, "message": error.to_string()})).collect();
    let Order { machine, recording, folder, .. } = order;
    if global.json {
        let told = json!({
            "machine_id": machine, "recording": recording, "to": folder,
            "fetched_chunks": done.fetched_chunks, "fetched_bytes": done.fetched_bytes,
            "there_chunks": done.there_chunks, "failed": failed_rows, "other_captures_ns": done.other_captures,
        });
        result(format_args!("{told:#}"));
    } else {
        let line = format!(
            "{recording} of {machine}: {} fetched ({}), {} there already, {} failed, in {}",
            table::chunks(done.fetched_chunks),
            ByteSize::b(done.fetched_bytes),
            done.there_chunks,
            done.failed.len(),
            folder.display()
        );
        result(format_args!("{}", Screen::of_stdout().lines(&line)));
        if !done.other_captures.is_empty() {
            note(format_args!("other captures had this name: {}", chosen_by(&done.other_captures)));
        }
    }
    if done.failed.is_empty() {
        return Exit::Done;
    }
    let message = format!("not all of it is there: {} failed", table::chunks(done.failed.len() as u64));
    failed(&message, Some("mend what the reasons name and say it again: what is there is kept"));
    let no_answer = |error: &ChunkError| match error {
        ChunkError::Fetch(FetchError::Store(error)) => exit_of(error) == Exit::NoAnswer,
        ChunkError::NotTried(_) => true,
        ChunkError::Fetch(_) | ChunkError::Taken(_) | ChunkError::File { .. } => false,
    };
    let is_silent = done.failed.iter().any(|(_, error)| !matches!(error, ChunkError::NotTried(_)))
        && done.failed.iter().all(|(_, error)| no_answer(error));
    if is_silent { Exit::NoAnswer } else { Exit::Failed }
}

async fn refused(reader: &Reader, recording: &RecordingName, error: DownloadError) -> Exit {
    match &error {
        DownloadError::Store(error) => store_failed(error),
        DownloadError::NotFound { .. } => {
            failed(&error.to_string(), Some(&what_there_is(reader, recording).await));
            Exit::NotFound
        }
        DownloadError::NothingMeant { .. } => {
            failed(&error.to_string(), Some("without a range all chunks are meant"));
            Exit::NotFound
        }
        DownloadError::NoSuchCapture { captures, .. } => {
            failed(&error.to_string(), Some(&format!("choose one with {}", chosen_by(captures))));
            Exit::NotFound
        }
        DownloadError::Refused { reasons, .. } => {
            failed(&error.to_string(), None);
            for reason in reasons {
                note(format_args!("  {}", plain(reason)));
            }
            note(format_args!("hint: bring back an earlier version of the object; nothing was written"));
            Exit::Failed
        }
        DownloadError::NoManifest { .. } => {
            failed(&error.to_string(), Some("reconcile the recording on the machine that recorded it"))
        }
        DownloadError::OtherManifest(_) => failed(&error.to_string(), Some("choose another folder with --to")),
        DownloadError::NoRoom { .. } => {
            failed(&error.to_string(), Some("make room, choose another disk with --to, or fewer chunks with --chunks"))
        }
        DownloadError::Folder { .. } => failed(&error.to_string(), Some("choose another folder with --to")),
    }
}

/// Tells how captures of one name are chosen.
fn chosen_by(captures: &[UnixNs]) -> String {
    let chosen = |started_at_ns: &UnixNs| format!("--started-at {}", Timestamp(*started_at_ns).to_rfc3339());
    told(&captures.iter().map(chosen).collect::<Vec<_>>())
}

/// Tells names, the first ones.
fn told(names: &[String]) -> String {
    let more = names.len().saturating_sub(NAMES_TOLD_MAX);
    let shown = names.iter().take(NAMES_TOLD_MAX).cloned().collect::<Vec<_>>().join(", ");
    if more > 0 { format!("{shown} and {more} more") } else { shown }
}

/// Tells what could be meant instead.
async fn what_there_is(reader: &Reader, wanted: &RecordingName) -> String {
    let held = reader.holdings().await.unwrap_or_default();
    let names: Vec<_> = held.iter().map(|held| held.recording.to_string()).collect();
    let near = bubbaloop_storage_schemas::error::nearest(wanted.as_str(), names.iter().map(String::as_str));
    if let Some(near) = near {
        return format!("did you mean {near}?");
    }
    if !names.is_empty() {
        return format!("it holds {}", told(&names));
    }
    match reader.machines_told().await {
        None => "the store holds nothing of this machine; `list --remote --machine '*'` tells what it holds".into(),
        Some(machines) => format!("it holds recordings of {machines}: choose with --machine"),
    }
}
