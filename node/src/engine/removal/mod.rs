//! Removes a recording: looks at both sides just then, and removes only what is known to be elsewhere, unless a person
//! forces it.
//!
//! `gather` looks; here the plan is carried out. A crash at any step leaves what the same request ends.

mod gather;
mod run;

use std::{io, sync::Arc, time::Duration};

use bubbaloop_storage_schemas::{
    RecordingName,
    error::{ErrorCode, Refusal},
    removal::{RemovalActionKind, RemovalFinding, RemovalFindingKind, RemovalResult, RemoveFrom},
    reply::Progress,
};
use futures_util::future::join_all;
use tokio::task::spawn_blocking;

pub use self::run::OnProgress;
use self::run::{Removal, ended};
use super::driver::Engine;
use crate::{
    durable,
    library::left_alone::LeftAlone,
    policy::{
        queue::ChunkId,
        removal::{self, Chunk, Object, RemovalOptions, Step, Upload},
    },
    store::StoreError,
};

/// Objects that are removed at once.
const REMOVED_AT_ONCE: usize = 8;

/// How long the remote manifest of what was just sent is waited for.
const MANIFEST_PATIENCE: Duration = Duration::from_secs(10);

/// Chunks and objects that a refusal names one by one.
const TOLD_MAX: usize = 3;

/// Removes a recording from where the options say, and tells what was done and why it ended early, if it did. Idempotent.
///
/// # Cancellation
/// It ends between two idempotent steps; the same request ends it.
pub async fn remove(
    engine: &Arc<Engine>,
    name: &RecordingName,
    options: RemovalOptions,
    progress: OnProgress<'_>,
) -> (RemovalResult, Option<Refusal>) {
    let mut run = Removal {
        engine,
        name,
        options,
        told: progress,
        progress: Progress::default(),
        result: RemovalResult::new(options.from, options.dry_run),
    };
    let ended = run.run().await;
    (run.result, ended.err())
}

impl Removal<'_> {
    async fn run(&mut self) -> Result<(), Refusal> {
        let needs_manifest = self.options.from == RemoveFrom::Local && !self.options.force;
        self.engine.manifest_settled(self.name, needs_manifest, MANIFEST_PATIENCE).await;
        let (engine, name, force) = (Arc::clone(self.engine), self.name.clone(), self.options.force);
        let held = spawn_blocking(move || engine.hold(&name, force)).await.map_err(|error| ended(&error))?;
        let _held = held?;
        let evidence = self.gather().await?;
        let plan = removal::plan(&evidence, self.options);
        for finding in plan.findings {
            self.result.find(finding);
        }
        if plan.is_refused {
            return Err(self.refusal());
        }
        self.begin(&plan.steps);
        if self.options.dry_run {
            plan.steps.iter().for_each(|step| self.note(step));
            return Ok(());
        }
        let done = self.carry_out(plan.steps).await;
        if self.options.from.is_local() {
            let (engine, name) = (Arc::clone(self.engine), self.name.clone());
            spawn_blocking(move || engine.note_removed(&name)).await.map_err(|error| ended(&error))?;
        }
        done
    }

    /// Tells why nothing is removed.
    fn refusal(&self) -> Refusal {
        let name = self.name;
        let doubts: Vec<_> = self.result.findings.iter().filter(|it| it.kind != RemovalFindingKind::Stays).collect();
        if doubts.is_empty() {
            let message = format!("of recording {name} nothing would be left");
            return Refusal::new(ErrorCode::Conflict, message).hint("use force if that is meant");
        }
        let counted = self.result.counts.findings.iter().filter(|row| row.kind != RemovalFindingKind::Stays);
        let count: u64 = counted.map(|row| row.count).sum();
        let told = doubts.iter().take(TOLD_MAX).map(|finding| {
            let what = finding.chunk.map(|chunk| chunk.to_string()).or_else(|| finding.path.clone());
            format!("{}: {}", what.unwrap_or_default(), finding.message)
        });
        let mut told: Vec<_> = told.collect();
        if count > TOLD_MAX as u64 {
            told.push(format!("and {} more", count - TOLD_MAX as u64));
        }
        let message =
            format!("recording {name} is not removed, for it is not known to be elsewhere: {}", told.join("; "));
        let hint = match self.options.from.is_remote() {
            false => "upload or reconcile it first; force removes it all the same",
            true => "get it back with reconcile and restore first; force removes it all the same",
        };
        Refusal::new(ErrorCode::Conflict, message).hint(hint)
    }

    fn begin(&mut self, steps: &[Step]) {
        for step in steps {
            if let Step::Chunk(Chunk { size_bytes, .. }) | Step::Object(Object { size_bytes, chunk: Some(_), .. }) =
                step
            {
                self.progress.chunks_total += 1;
                self.progress.bytes_total += size_bytes;
            }
        }
        (self.told)(self.progress);
    }

    /// Counts a step that is done, or with `dry_run` would be.
    fn note(&mut self, step: &Step) {
        let counts = &mut self.result.counts;
        let mut settle = |size_bytes: u64| {
            self.progress.chunks_done += 1;
            self.progress.bytes_done += size_bytes;
        };
        let (kind, path) = match step {
            Step::Withdraw => (RemovalActionKind::Withdraw, self.name.to_string()),
            Step::Abort(upload) => (RemovalActionKind::AbortUpload, upload.key.clone()),
            Step::Object(object) => {
                if object.chunk.is_some() {
                    counts.removed_objects += 1;
                    counts.removed_object_bytes += object.size_bytes;
                    settle(object.size_bytes);
                }
                (RemovalActionKind::RemoveObject, object.key.to_string())
            }
            Step::Chunk(chunk) => {
                counts.removed_files += 1;
                counts.removed_file_bytes += chunk.size_bytes;
                settle(chunk.size_bytes);
                (RemovalActionKind::RemoveFile, format!("chunks/{}", chunk.name))
            }
            Step::File(path) => (RemovalActionKind::RemoveFile, path.clone()),
            Step::LeaveSources(files) => {
                files.iter().for_each(|file| self.result.act(RemovalActionKind::LeaveSource, file.file.clone()));
                return;
            }
            Step::Folder(path) => {
                (RemovalActionKind::RemoveFolder, if path.is_empty() { ".".into() } else { path.clone() })
            }
        };
        self.result.act(kind, path);
        (self.told)(self.progress);
    }

    async fn carry_out(&mut self, steps: Vec<Step>) -> Result<(), Refusal> {
        let is_local = |step: &Step| match step {
            Step::LeaveSources(_) | Step::Chunk(_) | Step::File(_) | Step::Folder(_) => true,
            Step::Withdraw | Step::Abort(_) | Step::Object(_) => false,
        };
        let (local, remote): (Vec<_>, Vec<_>) = steps.into_iter().partition(is_local);
        self.remove_remote(remote).await?;
        self.remove_local(local).await
    }

    async fn remove_remote(&mut self, steps: Vec<Step>) -> Result<(), Refusal> {
        if steps.contains(&Step::Withdraw) {
            let (engine, name) = (Arc::clone(self.engine), self.name.clone());
            let written = spawn_blocking(move || engine.withdraw(&name)).await.map_err(|error| ended(&error))?;
            written.map_err(|error| {
                let message = format!("nothing is removed: that {} goes can't be written down: {error}", self.name);
                Refusal::new(ErrorCode::Internal, message).hint("make room on the library's disk, or make it writable")
            })?;
            self.note(&Step::Withdraw);
        }
        for step in &steps {
            if let Step::Abort(upload) = step {
                self.abort(upload).await?;
            }
        }
        let (manifests, chunks): (Vec<_>, Vec<_>) = steps
            .into_iter()
            .filter_map(|step| if let Step::Object(object) = step { Some(object) } else { None })
            .partition(|object| object.chunk.is_none());
        for object in manifests {
            self.remove_objects(std::slice::from_ref(&object)).await?;
        }
        for objects in chunks.chunks(REMOVED_AT_ONCE) {
            self.remove_objects(objects).await?;
        }
        Ok(())
    }

    /// Gives up an upload in parts. Where only files go, a store that does not answer keeps nobody from making room.
    async fn abort(&mut self, upload: &Upload) -> Result<(), Refusal> {
        let id = ChunkId { recording: self.name.clone(), chunk: upload.chunk };
        let Err(error) = self.engine.give_up(id, &upload.key, &upload.upload_id).await else {
            self.note(&Step::Abort(upload.clone()));
            return Ok(());
        };
        let message = format!(
            "parts that were sent of it stay in the store, as upload {}, until somebody aborts it or the bucket's \
             lifecycle rule does: {error}",
            upload.upload_id
        );
        let (kind, path) = (RemovalFindingKind::Failed, Some(upload.key.clone()));
        self.result.find(RemovalFinding { kind, chunk: Some(upload.chunk), path, message });
        if self.options.from.is_remote() { Err(self.unfinished(&error)) } else { Ok(()) }
    }

    async fn remove_objects(&mut self, objects: &[Object]) -> Result<(), Refusal> {
        let store = Arc::clone(&self.engine.parts().store);
        let removed = join_all(objects.iter().map(|object| store.delete(&object.key))).await;
        let mut failed = None;
        for (object, removed) in objects.iter().zip(removed) {
            match removed {
                Ok(()) => self.note(&Step::Object(object.clone())),
                Err(error) => {
                    let (kind, path) = (RemovalFindingKind::Failed, Some(object.key.to_string()));
                    self.result.find(RemovalFinding { kind, chunk: object.chunk, path, message: error.to_string() });
                    failed = Some(self.unfinished(&error));
                }
            }
        }
        failed.map_or(Ok(()), Err)
    }

    fn unfinished(&self, error: &StoreError) -> Refusal {
        let message = format!("{} is not removed from the store whole: {error}", self.name);
        if error.is_denied() {
            let hint = "let the node's key remove objects below its machine's name, then say it again";
            return Refusal::new(ErrorCode::Denied, message).hint(hint);
        }
        Refusal::new(ErrorCode::Unavailable, message).hint("say it again when the reason has ended: it goes on")
    }

    async fn remove_local(&mut self, steps: Vec<Step>) -> Result<(), Refusal> {
        if steps.iter().any(|step| matches!(step, Step::Chunk(_))) {
            let (engine, name) = (Arc::clone(self.engine), self.name.clone());
            spawn_blocking(move || engine.note_removal(&name)).await.map_err(|error| ended(&error))?;
        }
        for step in steps {
            let (engine, name, of) = (Arc::clone(self.engine), self.name.clone(), step.clone());
            let removed =
                spawn_blocking(move || remove_here(&engine, &name, &of)).await.map_err(|error| ended(&error))?;
            if let Err(error) = removed {
                let (chunk, path) = match &step {
                    Step::Chunk(chunk) => (Some(chunk.name), format!("chunks/{}", chunk.name)),
                    Step::File(path) | Step::Folder(path) => (None, path.clone()),
                    Step::LeaveSources(_) => (None, "that its sources are left alone can't be written down".into()),
                    Step::Withdraw | Step::Abort(_) | Step::Object(_) => continue,
                };
                let (kind, message) = (RemovalFindingKind::Failed, error.to_string());
                self.result.find(RemovalFinding { kind, chunk, path: Some(path.clone()), message });
                let message = format!("{} is not removed from the disk whole: {path}: {error}", self.name);
                return Err(
                    Refusal::new(ErrorCode::Internal, message).hint("mend the reason and say it again: it goes on")
                );
            }
            self.note(&step);
        }
        Ok(())
    }
}

/// Removes a file or a folder of a recording. It blocks.
fn remove_here(engine: &Engine, name: &RecordingName, step: &Step) -> io::Result<()> {
    let folder = engine.parts().recordings.join(name.as_str());
    match step {
        Step::Chunk(chunk) => {
            engine.remove_chunk(&ChunkId { recording: name.clone(), chunk: chunk.name }, chunk.size_bytes)
        }
        Step::File(path) => {
            engine.forget_lines(name);
            durable::remove(&folder.join(path))
        }
        Step::Folder(path) if path.is_empty() => durable::remove_folder(&folder),
        Step::Folder(path) => durable::remove_folder(&folder.join(path)),
        Step::LeaveSources(files) => LeftAlone::add(&engine.left_alone(), &engine.parts().recordings, files),
        Step::Withdraw | Step::Abort(_) | Step::Object(_) => Ok(()),
    }
}
