//! What people asked for and takes long: each request runs once, and asking again while it runs joins it.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    panic::AssertUnwindSafe,
    pin::pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bubbaloop_storage_schemas::{
    RecordingName, Verb,
    error::{ErrorCode, Refusal},
    event::Fact,
    limits::{JOBS_KEPT_MAX, JOBS_RUNNING_MAX},
    reconcile::FindingKind,
    reply::{
        AdoptFinding, AdoptFindingKind, AdoptResult, JobResult, JobState, Progress, ReconcileResult, UploadResult,
    },
};
use futures_util::FutureExt;
use tokio::{
    sync::{broadcast::error::RecvError, watch},
    task::{AbortHandle, spawn_blocking},
};
use ulid::Ulid;

use super::{
    adopt::{self, AdoptError, job::Shared},
    driver::{Engine, RequestedChunk, UploadOutcome},
    events::Events,
    reconcile::{ReconcileError, ReconcileOptions, Reconciled, has_room, names_in_store, reconcile},
    removal::remove,
};
use crate::{
    clock::Clock,
    policy::{Tick, queue::ChunkId, removal},
};

/// How often a job looks at its chunks although nothing was told of them: a file may vanish in silence.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Failed chunks that an error names one by one.
const FAILED_TOLD_MAX: usize = 3;

/// Between two facts of one job that goes on.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// How far a job is.
#[derive(Debug, Clone, PartialEq)]
pub struct JobView {
    /// Where it stands.
    pub state: JobState,
    /// How far it is.
    pub progress: Progress,
    /// What came of it.
    pub result: Option<JobResult>,
    /// Why it failed.
    pub error: Option<Refusal>,
}

impl JobView {
    fn new(state: JobState) -> Self {
        Self { state, progress: Progress::default(), result: None, error: None }
    }

    /// Tells whether it has not ended.
    pub const fn goes_on(&self) -> bool {
        matches!(self.state, JobState::Queued | JobState::Running)
    }
}

/// What a job is to do. The same work is one job.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Work {
    /// Send now what is known of a recording; of all without one.
    Upload(Option<RecordingName>),
    /// Look at both sides and heal.
    Reconcile {
        /// Which recordings.
        scope: Scope,
        /// How.
        options: ReconcileOptions,
    },
    /// Remove a recording.
    Remove {
        /// Which.
        recording: RecordingName,
        /// How.
        options: removal::RemovalOptions,
    },
    /// Make a recording of what is none of this machine's.
    Adopt {
        /// What `list` shows; everything that is laid out in another way without one.
        source: Option<String>,
        /// The recording that it becomes.
        target: Option<RecordingName>,
        /// How.
        options: adopt::AdoptOptions,
    },
}

/// Which recordings a reconcile is about.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Scope {
    /// One of them.
    One(RecordingName),
    /// Those whose names match a glob.
    Matching(String),
    /// All of this machine.
    All,
}

impl Work {
    /// Returns the verb that asks for it.
    pub const fn verb(&self) -> Verb {
        match self {
            Self::Upload(_) => Verb::Upload,
            Self::Reconcile { .. } => Verb::Reconcile,
            Self::Adopt { .. } => Verb::Adopt,
            Self::Remove { .. } => Verb::Rm,
        }
    }

    /// Returns the recording that it is about; all of them without one.
    pub const fn recording(&self) -> Option<&RecordingName> {
        match self {
            Self::Upload(recording) => recording.as_ref(),
            Self::Reconcile { scope: Scope::One(recording), .. } | Self::Remove { recording, .. } => Some(recording),
            Self::Adopt { target, .. } => target.as_ref(),
            Self::Reconcile { scope: Scope::Matching(_) | Scope::All, .. } => None,
        }
    }
}

/// Something that somebody asked for and that takes long.
#[derive(Debug)]
pub struct Job {
    /// Its id.
    pub id: Ulid,
    /// What it does.
    pub work: Work,
    view: watch::Sender<JobView>,
}

impl Job {
    /// Returns how far it is.
    pub fn view(&self) -> JobView {
        self.view.borrow().clone()
    }

    /// Returns its state at its end, or after `wait` the state then.
    pub async fn wait(&self, wait: Duration) -> JobView {
        let mut view = self.view.subscribe();
        let ended = view.wait_for(|view| !view.goes_on());
        // Without an end in time the state now is the answer.
        tokio::time::timeout(wait, ended).await.ok();
        self.view()
    }
}

/// The jobs that run, and those that ended lately.
#[derive(Debug)]
pub struct Jobs {
    engine: Arc<Engine>,
    facts: Arc<Events>,
    clock: Arc<dyn Clock>,
    registry: Arc<Mutex<Registry>>,
}

#[derive(Debug, Default)]
struct Registry {
    running: HashMap<Work, (Arc<Job>, AbortHandle)>,
    /// The newest last.
    ended: VecDeque<Arc<Job>>,
}

impl Registry {
    fn end(&mut self, job: &Job) {
        // One that was asked for since it ended is another.
        let is_it = |(running, _): &(Arc<Job>, AbortHandle)| running.id == job.id;
        if self.running.get(&job.work).is_some_and(is_it)
            && let Some((job, _)) = self.running.remove(&job.work)
        {
            self.ended.push_back(job);
            if self.ended.len() > JOBS_KEPT_MAX {
                self.ended.pop_front();
            }
        }
    }
}

impl Jobs {
    /// Makes the jobs of one sync.
    pub fn new(engine: Arc<Engine>, facts: Arc<Events>, clock: Arc<dyn Clock>) -> Self {
        Self { engine, facts, clock, registry: Arc::default() }
    }

    fn registry(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a job, or joins the one that does the same already.
    ///
    /// # Errors
    /// `Limit`: too many run.
    pub fn start(&self, work: Work) -> Result<Arc<Job>, Refusal> {
        let mut registry = self.registry();
        if let Some(job) = registry.running.get(&work).map(|(job, _)| Arc::clone(job)) {
            if job.view().goes_on() {
                return Ok(job);
            }
            registry.end(&job);
        }
        if registry.running.len() >= JOBS_RUNNING_MAX {
            let refusal = Refusal::new(ErrorCode::Limit, format!("{JOBS_RUNNING_MAX} jobs run already"));
            return Err(refusal.hint("ask again when one of them has ended"));
        }
        let id = Ulid::from_parts(self.clock.wall() / 1_000_000, fastrand::u128(..));
        let (view, _) = watch::channel(JobView::new(JobState::Queued));
        let job = Arc::new(Job { id, work: work.clone(), view });
        let runner = Runner {
            job: Arc::clone(&job),
            engine: Arc::clone(&self.engine),
            facts: Arc::clone(&self.facts),
            clock: Arc::clone(&self.clock),
            told_at: None,
        };
        let shared = Arc::clone(&self.registry);
        let (running, facts) = (Arc::clone(&job), Arc::clone(&self.facts));
        let task = tokio::spawn(async move {
            // Whoever waits for it is told even where it ends by a fault of ours.
            if AssertUnwindSafe(runner.run()).catch_unwind().await.is_err() {
                let message = format!("{} ended abnormally: the node's log tells where", running.work.verb());
                let refusal = Refusal::new(ErrorCode::Internal, message).hint("ask again, and report the log");
                running.view.send_modify(|view| {
                    (view.state, view.error) = (JobState::Failed, Some(refusal));
                });
                facts.emit(fact(&running));
            }
            shared.lock().unwrap_or_else(PoisonError::into_inner).end(&running);
        });
        // The task can't remove itself before this: the registry is locked.
        registry.running.insert(work, (Arc::clone(&job), task.abort_handle()));
        Ok(job)
    }

    /// Returns the job that does this already.
    pub fn running(&self, work: &Work) -> Option<Arc<Job>> {
        self.registry().running.get(work).map(|(job, _)| Arc::clone(job)).filter(|job| job.view().goes_on())
    }

    /// Returns the jobs, the newest first.
    pub fn all(&self) -> Vec<Arc<Job>> {
        let registry = self.registry();
        let running = registry.running.values().map(|(job, _)| job);
        let mut all: Vec<_> = running.chain(&registry.ended).cloned().collect();
        all.sort_by_key(|job| std::cmp::Reverse(job.id));
        all
    }

    /// Returns one job.
    pub fn get(&self, id: Ulid) -> Option<Arc<Job>> {
        self.all().into_iter().find(|job| job.id == id)
    }

    /// Stops a job between two idempotent steps. One that has ended stays as it is. Returns it; `None` where there is none.
    pub fn cancel(&self, id: Ulid) -> Option<Arc<Job>> {
        let job = self.get(id)?;
        let mut registry = self.registry();
        if let Some((_, task)) = registry.running.get(&job.work).filter(|(running, _)| running.id == id) {
            task.abort();
            job.view.send_modify(|view| view.state = JobState::Cancelled);
            registry.end(&job);
            drop(registry);
            self.engine.forget_asked(job.work.recording());
            self.facts.emit(fact(&job));
        }
        Some(job)
    }

    /// Ends all jobs. What they asked for goes up all the same; whoever waits for one is told its state when it gives up.
    pub fn stop(&self) {
        for (_, (_, task)) in self.registry().running.drain() {
            task.abort();
        }
    }
}

fn fact(job: &Job) -> Fact {
    let JobView { state, progress, .. } = job.view();
    let (verb, recording) = (job.work.verb(), job.work.recording().cloned());
    Fact::Job { job: job.id.to_string(), verb, recording, state, progress }
}

/// Carries out one job.
struct Runner {
    job: Arc<Job>,
    engine: Arc<Engine>,
    facts: Arc<Events>,
    clock: Arc<dyn Clock>,
    told_at: Option<Tick>,
}

impl Runner {
    async fn run(mut self) {
        match self.job.work.clone() {
            Work::Upload(recording) => self.upload(recording).await,
            Work::Reconcile { scope, options } => self.reconcile(scope, options).await,
            Work::Adopt { source, options, .. } => self.adopt(source, &options).await,
            Work::Remove { recording, options } => self.remove(&recording, options).await,
        }
    }

    /// Shows how far the job is, and tells it: at its end, and at most once a second before.
    fn show(&mut self, view: JobView) {
        self.told_at = self.show_running(view);
    }

    /// As [`Runner::show`]; returns when the job was told last.
    fn show_running(&self, view: JobView) -> Option<Tick> {
        let now = self.clock.tick();
        let is_due = self.told_at.is_none_or(|at| now.since(at) >= TELL_EVERY);
        let has_ended = !view.goes_on();
        self.job.view.send_replace(view);
        if !has_ended && !is_due {
            return self.told_at;
        }
        if let Some(error) = self.job.view().error {
            tracing::warn!(verb = %self.job.work.verb(), recording = ?self.job.work.recording(), %error, "a job failed");
        }
        self.facts.emit(fact(&self.job));
        Some(now)
    }

    /// Returns the recordings that are meant, those too that no scan saw yet.
    async fn names(&self, glob: Option<String>) -> Vec<RecordingName> {
        let engine = Arc::clone(&self.engine);
        let found = spawn_blocking(move || {
            engine.discover();
            engine.names(glob.as_deref())
        });
        found.await.unwrap_or_default()
    }

    /// Reconciles one recording after the other. One that can't be looked at does not stop the others.
    async fn reconcile(&mut self, scope: Scope, options: ReconcileOptions) {
        let (mut names, is_one) = match &scope {
            Scope::One(name) => (vec![name.clone()], true),
            Scope::Matching(glob) => (self.names(Some(glob.clone())).await, false),
            Scope::All => (self.names(None).await, false),
        };
        if let (Scope::Matching(glob), true) = (&scope, options.restore)
            && let Err(error) = self.ready_to_restore(glob, &mut names, options).await
        {
            return self.show(JobView { error: Some(error), ..JobView::new(JobState::Failed) });
        }
        let (shared, mut done) = (Mutex::new(Progress::default()), Progress::default());
        let (mut result, mut failed, mut silent) = (ReconcileResult::default(), Vec::new(), Vec::new());
        let mut bare = Vec::new();
        let nothing = match &scope {
            Scope::Matching(glob) if names.is_empty() => Some(no_match(glob)),
            Scope::Matching(_) | Scope::One(_) | Scope::All => None,
        };
        for name in names {
            let _lease = self.engine.lease(&name).await;
            let hear = |progress| *shared.lock().unwrap_or_else(PoisonError::into_inner) = progress;
            let reconciled = {
                let mut running = pin!(reconcile(&self.engine, &name, options, &hear));
                loop {
                    tokio::select! {
                        reconciled = &mut running => break reconciled,
                        () = tokio::time::sleep(LOOK_EVERY) => {
                            let now = *shared.lock().unwrap_or_else(PoisonError::into_inner);
                            let state = JobState::Running;
                            let progress = sum(done, now);
                            self.told_at = self.show_running(JobView { progress, ..JobView::new(state) });
                        }
                    }
                }
            };
            done = sum(done, *shared.lock().unwrap_or_else(PoisonError::into_inner));
            match reconciled {
                Ok(Reconciled { result: found, silent: reason, not_restorable }) => {
                    result.join(found);
                    bare.extend(not_restorable.map(|reason| (name.clone(), reason)));
                    silent.extend(reason.map(|reason| (name, reason)));
                }
                Err(error) => failed.push((name, error)),
            }
        }
        let unrestored = || unrestored(&result).filter(|_| options.restore);
        let error = nothing.or_else(|| refusal(&failed, is_one)).or_else(unrestored);
        let error = error.or_else(|| without_manifest(&bare)).or_else(|| silence(&silent));
        let state = if error.is_none() { JobState::Done } else { JobState::Failed };
        self.show(JobView { state, progress: done, result: Some(JobResult::Reconcile(Box::new(result))), error });
    }

    /// Adds the recordings that only the store has, and looks whether there is room for all of them.
    async fn ready_to_restore(
        &self,
        glob: &str,
        names: &mut Vec<RecordingName>,
        options: ReconcileOptions,
    ) -> Result<(), Refusal> {
        let known: BTreeSet<_> = names.iter().cloned().collect();
        let found = names_in_store(&self.engine, glob).await.map_err(|error| {
            let message = format!("which recordings the store holds is not known: {error}");
            Refusal::new(ErrorCode::Unavailable, message)
                .hint("name one recording, or ask again when the reason has ended")
        })?;
        names.extend(found.into_iter().filter(|name| !known.contains(name)));
        names.sort_unstable();
        if options.dry_run {
            return Ok(());
        }
        // What only a look at every byte finds is not counted; each recording is looked at once more.
        let look = ReconcileOptions { dry_run: true, deep: false, ..options };
        let mut needed_bytes = 0_u64;
        for name in names.iter() {
            if let Ok(found) = reconcile(&self.engine, name, look, &|_| {}).await {
                needed_bytes = needed_bytes.saturating_add(found.result.counts.restored_bytes);
            }
        }
        has_room(&self.engine, needed_bytes).await.map_err(|error| refused(&error, error.to_string()))
    }

    /// Adopts one source after the other. One that is refused does not stop the others.
    async fn adopt(&mut self, source: Option<String>, options: &adopt::AdoptOptions) {
        let is_one = source.is_some();
        let sources = source
            .map_or_else(|| self.engine.not_adopted(options.recover).into_keys().collect(), |source| vec![source]);
        let (mut result, mut failed, mut done) = (AdoptResult::default(), Vec::new(), Progress::default());
        for source in sources {
            let shared = Arc::new(Shared::default());
            let adopted = {
                let mut running = pin!(adopt::job::adopt_listed(&self.engine, &source, options, &shared));
                loop {
                    tokio::select! {
                        adopted = &mut running => break adopted,
                        () = tokio::time::sleep(LOOK_EVERY) => {
                            let progress = sum(done, shared.progress());
                            let view = JobView { progress, ..JobView::new(JobState::Running) };
                            self.told_at = self.show_running(view);
                        }
                    }
                }
            };
            done = sum(done, shared.progress());
            match adopted {
                Ok(found) => result.join(found),
                Err(error) => {
                    let (kind, file, message) = (AdoptFindingKind::Refused, None, error.to_string());
                    result.find(AdoptFinding { kind, source: source.clone(), file, message });
                    failed.push((source, error));
                }
            }
        }
        let state = if failed.is_empty() { JobState::Done } else { JobState::Failed };
        let error = not_adopted(&failed, is_one);
        self.show(JobView { state, progress: done, result: Some(JobResult::Adopt(Box::new(result))), error });
    }

    async fn remove(&mut self, name: &RecordingName, options: removal::RemovalOptions) {
        let shared = Mutex::new(Progress::default());
        let now = || *shared.lock().unwrap_or_else(PoisonError::into_inner);
        let hear = |progress| *shared.lock().unwrap_or_else(PoisonError::into_inner) = progress;
        let (result, error) = {
            let mut running = pin!(remove(&self.engine, name, options, &hear));
            loop {
                tokio::select! {
                    removed = &mut running => break removed,
                    () = tokio::time::sleep(LOOK_EVERY) => {
                        let view = JobView { progress: now(), ..JobView::new(JobState::Running) };
                        self.told_at = self.show_running(view);
                    }
                }
            }
        };
        let state = if error.is_none() { JobState::Done } else { JobState::Failed };
        let (progress, result) = (now(), Some(JobResult::Removal(Box::new(result))));
        self.show(JobView { state, progress, result, error });
    }

    async fn upload(&mut self, recording: Option<RecordingName>) {
        // Heard from before the asking, so that no chunk is settled unheard.
        let mut facts = self.facts.listen();
        let asked = Arc::clone(&self.engine);
        let errands = spawn_blocking(move || asked.ask(recording.as_ref())).await.unwrap_or_default();
        let mut upload = Upload::new(errands);
        upload.look(&self.engine);
        let mut looked_at = self.clock.tick();
        while !upload.waiting.is_empty() {
            self.show(upload.view());
            match tokio::time::timeout(LOOK_EVERY, facts.recv()).await {
                Ok(Ok(event)) => upload.hear(&self.engine, &event.fact),
                Ok(Err(RecvError::Lagged(_))) | Err(_) => upload.look(&self.engine),
                Ok(Err(RecvError::Closed)) => return,
            }
            // Events of others may come so fast that the wait never ends.
            if self.clock.tick().since(looked_at) >= LOOK_EVERY {
                upload.look(&self.engine);
                looked_at = self.clock.tick();
            }
        }
        self.show(upload.view());
    }
}

fn sum(a: Progress, b: Progress) -> Progress {
    Progress {
        chunks_done: a.chunks_done + b.chunks_done,
        chunks_total: a.chunks_total + b.chunks_total,
        bytes_done: a.bytes_done + b.bytes_done,
        bytes_total: a.bytes_total + b.bytes_total,
    }
}

/// Why a reconcile failed, for the recordings that could not be looked at.
fn refusal(failed: &[(RecordingName, ReconcileError)], is_one: bool) -> Option<Refusal> {
    let (name, error) = failed.first()?;
    let message = match is_one {
        true => format!("{name}: {error}"),
        false => format!("{} recordings could not be looked at; {name}: {error}", failed.len()),
    };
    let hint = match is_one {
        true => "list tells the names of the recordings; ask again when the reason has ended",
        false => "the other recordings were reconciled; ask again when the reason has ended",
    };
    Some(refused(error, message).hint(hint))
}

fn refused(error: &ReconcileError, message: String) -> Refusal {
    let code = match error {
        ReconcileError::NotFound => ErrorCode::NotFound,
        ReconcileError::Unavailable(_) | ReconcileError::NoRoom(_) => ErrorCode::Unavailable,
        ReconcileError::Library(_) => ErrorCode::Internal,
    };
    Refusal::new(code, message)
}

/// Tells that something is not here although it was to be fetched.
fn unrestored(result: &ReconcileResult) -> Option<Refusal> {
    let is_found = |kind| result.counts.findings.iter().any(|row| row.kind == kind);
    let is_refused = is_found(FindingKind::ManifestRefused);
    let message = match (result.counts.unrestored_chunks, is_refused) {
        (0, false) => return None,
        (0, true) => "a remote manifest is refused, so that it is not known what belongs here".to_owned(),
        (1, _) => "1 chunk could not be restored".to_owned(),
        (chunks, _) => format!("{chunks} chunks could not be restored"),
    };
    // What is neither wrong nor gone may come the next time.
    let is_lost = is_refused || is_found(FindingKind::Lost);
    let code = if is_lost { ErrorCode::Corrupt } else { ErrorCode::Unavailable };
    Some(Refusal::new(code, message).hint("the findings tell why; all that could be fetched is here"))
}

/// Tells that a manifest was not brought back.
fn without_manifest(bare: &[(RecordingName, String)]) -> Option<Refusal> {
    let (name, reason) = bare.first()?;
    let message = format!("no manifest of {name} is brought back: {reason}");
    Some(Refusal::new(ErrorCode::Conflict, message).hint("the findings tell of each recording; its chunks are here"))
}

/// Why an adoption failed, for the sources that were refused.
fn not_adopted(failed: &[(String, AdoptError)], is_one: bool) -> Option<Refusal> {
    let (source, error) = failed.first()?;
    let refusal = error.refusal();
    if is_one {
        return Some(refusal);
    }
    let message = format!("{} were not adopted; {source}: {}", failed.len(), refusal.message);
    Some(Refusal { message, ..refusal })
}

fn no_match(glob: &str) -> Refusal {
    let refusal = Refusal::new(ErrorCode::NotFound, format!("no recording's name matches {glob}"));
    refusal.hint("list tells the names of the recordings; * stands for any text, ? for one letter")
}

/// Why a reconcile does not know what the store holds.
fn silence(silent: &[(RecordingName, String)]) -> Option<Refusal> {
    let (name, reason) = silent.first()?;
    let more = match silent.len() - 1 {
        0 => String::new(),
        more => format!(" and {more} more recordings"),
    };
    let message = format!("what the store holds of {name}{more} could not be found out: {reason}");
    let refusal = Refusal::new(ErrorCode::Unavailable, message);
    Some(refusal.hint("nothing was taken for absent; ask again when the store answers"))
}

/// A chunk that waits or is on its way.
#[derive(Debug, Clone, Copy)]
struct Waiting {
    size_bytes: u64,
    /// What the store took of it in parts; it never shrinks, though parts may have to be sent again.
    sent_bytes: u64,
}

impl Waiting {
    fn hear(&mut self, sent_bytes: u64) {
        self.sent_bytes = self.sent_bytes.max(sent_bytes).min(self.size_bytes);
    }
}

/// An upload's chunks: each waits, is proven, or failed.
#[derive(Debug, Default)]
struct Upload {
    waiting: BTreeMap<ChunkId, Waiting>,
    failed: BTreeMap<ChunkId, (String, bool)>,
    progress: Progress,
    proven: u64,
}

impl Upload {
    fn new(errands: Vec<RequestedChunk>) -> Self {
        let waiting = |errand: RequestedChunk| (errand.id, Waiting { size_bytes: errand.size_bytes, sent_bytes: 0 });
        let waiting: BTreeMap<_, _> = errands.into_iter().map(waiting).collect();
        let bytes_total = waiting.values().map(|chunk| chunk.size_bytes).sum();
        let chunks_total = waiting.len() as u64;
        Self { waiting, progress: Progress { chunks_total, bytes_total, ..Progress::default() }, ..Self::default() }
    }

    fn hear(&mut self, engine: &Engine, fact: &Fact) {
        if let Fact::ChunkUploaded { recording, chunk, .. }
        | Fact::DeadLettered { recording, chunk, .. }
        | Fact::UploadFailed { recording, chunk, .. } = fact
        {
            self.look_at(engine, &ChunkId { recording: recording.clone(), chunk: *chunk });
        }
    }

    fn look(&mut self, engine: &Engine) {
        let ids: Vec<_> = self.waiting.keys().cloned().collect();
        for id in ids {
            self.look_at(engine, &id);
        }
    }

    fn look_at(&mut self, engine: &Engine, id: &ChunkId) {
        let Some(chunk) = self.waiting.get_mut(id) else { return };
        let size_bytes = chunk.size_bytes;
        match engine.standing(id) {
            UploadOutcome::Waiting => return chunk.hear(engine.sent_bytes(id)),
            UploadOutcome::Proven => self.proven += 1,
            UploadOutcome::Failed { reason, is_corrupt } => {
                self.failed.insert(id.clone(), (reason, is_corrupt));
            }
        }
        self.waiting.remove(id);
        self.progress.chunks_done += 1;
        self.progress.bytes_done += size_bytes;
    }

    fn view(&self) -> JobView {
        if !self.waiting.is_empty() {
            let sent_bytes = self.waiting.values().map(|chunk| chunk.sent_bytes).sum::<u64>();
            let progress = Progress { bytes_done: self.progress.bytes_done + sent_bytes, ..self.progress };
            return JobView { progress, ..JobView::new(JobState::Running) };
        }
        let failed_chunks = self.failed.len() as u64;
        let result = Some(JobResult::Upload(UploadResult { uploaded_chunks: self.proven, failed_chunks }));
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
