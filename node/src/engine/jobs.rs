//! What people asked for and takes long: each request runs once, and asking again while it runs joins it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use bubbaloop_storage_schemas::{
    RecordingName,
    error::{ErrorCode, Refusal},
    event::{Fact, StorageEvent},
    limits::JOBS_RUNNING_MAX,
    reply::{JobState, Progress, UploadResult},
};
use tokio::{
    sync::{
        broadcast::{self, error::RecvError},
        watch,
    },
    task::{AbortHandle, spawn_blocking},
};
use ulid::Ulid;

use super::{
    facts::Facts,
    sync::{Errand, Standing, Sync},
};
use crate::{clock::Clock, policy::queue::ChunkId};

/// How often a job looks at its chunks although nothing was told of them: a file may vanish in silence.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Failed chunks that an error names one by one.
const FAILED_TOLD_MAX: usize = 3;

/// How far a job is.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// Where it stands.
    pub state: JobState,
    /// How far it is.
    pub progress: Progress,
    /// What came of it.
    pub result: Option<UploadResult>,
    /// Why it failed.
    pub error: Option<Refusal>,
}

/// One upload that somebody asked for.
#[derive(Debug)]
pub struct Job {
    /// Its id.
    pub id: Ulid,
    /// The recording that it is about; all of them without one.
    pub recording: Option<RecordingName>,
    view: watch::Receiver<JobView>,
}

impl Job {
    /// Returns how far it is.
    pub fn view(&self) -> JobView {
        self.view.borrow().clone()
    }

    /// Returns its state at its end, or after `wait` the state then.
    pub async fn wait(&self, wait: Duration) -> JobView {
        let mut view = self.view.clone();
        let ended = view.wait_for(|view| !matches!(view.state, JobState::Queued | JobState::Running));
        // Without an end in time, and where the node is being stopped, the state now is the answer.
        tokio::time::timeout(wait, ended).await.ok();
        self.view()
    }
}

/// The jobs that run.
#[derive(Debug)]
pub struct Jobs {
    sync: Arc<Sync>,
    facts: Arc<Facts>,
    clock: Arc<dyn Clock>,
    running: Running,
}

/// The jobs by what they are about, each with what ends it.
type Running = Arc<Mutex<HashMap<Option<RecordingName>, (Arc<Job>, AbortHandle)>>>;

impl Jobs {
    /// Makes the jobs of one sync.
    pub fn new(sync: Arc<Sync>, facts: Arc<Facts>, clock: Arc<dyn Clock>) -> Self {
        Self { sync, facts, clock, running: Arc::default() }
    }

    /// Sends now what is known of a recording (of all, without one); joins the job that does so already.
    ///
    /// # Errors
    /// `Limit`: too many run.
    pub fn upload(&self, recording: Option<RecordingName>) -> Result<Arc<Job>, Refusal> {
        let mut running = self.running.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((job, _)) = running.get(&recording) {
            return Ok(Arc::clone(job));
        }
        if running.len() >= JOBS_RUNNING_MAX {
            let refusal = Refusal::new(ErrorCode::Limit, format!("{JOBS_RUNNING_MAX} jobs run already"));
            return Err(refusal.hint("ask again when one of them has ended"));
        }
        let view = JobView { state: JobState::Queued, progress: Progress::default(), result: None, error: None };
        let (told, view) = watch::channel(view);
        let id = Ulid::from_parts(self.clock.wall() / 1_000_000, fastrand::u128(..));
        let job = Arc::new(Job { id, recording: recording.clone(), view });
        // Heard from before the asking, so that no chunk is settled unheard.
        let facts = self.facts.listen();
        let (sync, registry) = (Arc::clone(&self.sync), Arc::clone(&self.running));
        let about = recording.clone();
        let task = tokio::spawn(async move {
            run(&sync, recording.clone(), facts, &told).await;
            registry.lock().unwrap_or_else(PoisonError::into_inner).remove(&recording);
        });
        // The task can't remove itself before this: the registry is locked.
        running.insert(about, (Arc::clone(&job), task.abort_handle()));
        Ok(job)
    }

    /// Ends all jobs. What they asked for goes up all the same; whoever waits for one is told its state.
    pub fn stop(&self) {
        for (_, (_, task)) in self.running.lock().unwrap_or_else(PoisonError::into_inner).drain() {
            task.abort();
        }
    }
}

async fn run(
    sync: &Arc<Sync>,
    recording: Option<RecordingName>,
    mut facts: broadcast::Receiver<StorageEvent>,
    told: &watch::Sender<JobView>,
) {
    let asked = Arc::clone(sync);
    let errands = spawn_blocking(move || asked.ask(recording.as_ref())).await.unwrap_or_default();
    let mut upload = Upload::new(errands);
    upload.look(sync);
    while !upload.waiting.is_empty() {
        told.send_replace(upload.view());
        match tokio::time::timeout(LOOK_EVERY, facts.recv()).await {
            Ok(Ok(event)) => upload.hear(sync, &event.fact),
            Ok(Err(RecvError::Lagged(_))) | Err(_) => upload.look(sync),
            Ok(Err(RecvError::Closed)) => return,
        }
    }
    told.send_replace(upload.view());
}

/// An upload's chunks: each waits, is proven, or failed.
#[derive(Debug, Default)]
struct Upload {
    waiting: BTreeMap<ChunkId, u64>,
    failed: BTreeMap<ChunkId, (String, bool)>,
    progress: Progress,
    proven: u64,
}

impl Upload {
    fn new(errands: Vec<Errand>) -> Self {
        let waiting: BTreeMap<_, _> = errands.into_iter().map(|errand| (errand.id, errand.size_bytes)).collect();
        let (chunks_total, bytes_total) = (waiting.len() as u64, waiting.values().sum());
        Self { waiting, progress: Progress { chunks_total, bytes_total, ..Progress::default() }, ..Self::default() }
    }

    fn hear(&mut self, sync: &Sync, fact: &Fact) {
        if let Fact::ChunkUploaded { recording, chunk, .. } | Fact::DeadLettered { recording, chunk, .. } = fact {
            self.look_at(sync, &ChunkId { recording: recording.clone(), chunk: *chunk });
        }
    }

    fn look(&mut self, sync: &Sync) {
        let ids: Vec<_> = self.waiting.keys().cloned().collect();
        for id in ids {
            self.look_at(sync, &id);
        }
    }

    fn look_at(&mut self, sync: &Sync, id: &ChunkId) {
        let Some(&size_bytes) = self.waiting.get(id) else { return };
        match sync.standing(id) {
            Standing::Waiting => return,
            Standing::Proven => self.proven += 1,
            Standing::Failed { reason, is_corrupt } => {
                self.failed.insert(id.clone(), (reason, is_corrupt));
            }
        }
        self.waiting.remove(id);
        self.progress.chunks_done += 1;
        self.progress.bytes_done += size_bytes;
    }

    fn view(&self) -> JobView {
        if !self.waiting.is_empty() {
            return JobView { state: JobState::Running, progress: self.progress, result: None, error: None };
        }
        let failed_chunks = self.failed.len() as u64;
        let result = Some(UploadResult { uploaded_chunks: self.proven, failed_chunks });
        let state = if failed_chunks == 0 { JobState::Done } else { JobState::Failed };
        JobView { state, progress: self.progress, result, error: self.error() }
    }

    fn error(&self) -> Option<Refusal> {
        if self.failed.is_empty() {
            return None;
        }
        let told = |(id, (reason, _)): (&ChunkId, &(String, bool))| format!("{}/{}: {reason}", id.recording, id.chunk);
        let mut reasons: Vec<_> = self.failed.iter().take(FAILED_TOLD_MAX).map(told).collect();
        if self.failed.len() > FAILED_TOLD_MAX {
            reasons.push(format!("and {} more", self.failed.len() - FAILED_TOLD_MAX));
        }
        let is_corrupt = self.failed.values().any(|(_, is_corrupt)| *is_corrupt);
        let code = if is_corrupt { ErrorCode::Corrupt } else { ErrorCode::Conflict };
        let message = format!(
            "{} of {} chunks could not be sent: {}",
            self.failed.len(),
            self.progress.chunks_total,
            reasons.join("; ")
        );
        Some(Refusal::new(code, message).hint("mend what the reasons name and ask again; all other chunks are safe"))
    }
}
