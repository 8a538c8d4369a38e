//! What `jobs`, `cancel`, `pause` and `resume` answer.

use bubbaloop_storage_schemas::{
    Verb,
    error::{ErrorCode, Refusal},
    reply::{JobReply, JobsReply, PauseReply},
    verbs::{cancel::CancelRequest, jobs::JobsRequest, pause::PauseRequest},
};
use ulid::Ulid;

use super::{base::Service, pending};
use crate::policy::listing;

impl Service {
    /// Returns a page of the jobs, the newest first, or one of them.
    ///
    /// # Errors
    /// There is no such job.
    pub fn jobs(&self, request: &JobsRequest) -> Result<JobsReply, Refusal> {
        let found = match request.job {
            None => self.jobs.all(),
            Some(id) => vec![self.jobs.get(id).ok_or_else(|| no_such(id))?],
        };
        let rows = found
            .iter()
            .filter(|job| request.after.is_none_or(|after| job.id < after))
            .map(|job| pending::row(job, job.view(), &self.sync));
        let (jobs, has_more) = listing::page(rows, request.limit.rows());
        let next_after = jobs.last().filter(|_| has_more).map(|row| row.job.clone());
        Ok(JobsReply { head: self.head(Verb::Jobs), jobs, next_after })
    }

    /// Stops a job and returns its state. A job that has ended stays as it is.
    ///
    /// # Errors
    /// There is no job of this id.
    pub fn cancel(&self, request: &CancelRequest) -> Result<JobReply, Refusal> {
        let id = *request.job;
        let job = self.jobs.cancel(id).ok_or_else(|| no_such(id))?;
        let (machine_id, library_id) = (self.identity.machine_id.clone(), self.identity.library_id.clone());
        Ok(JobReply { machine_id, library_id, row: pending::row(&job, job.view(), &self.sync) })
    }

    /// Stops uploads until somebody resumes them, or for a time.
    ///
    /// # Errors
    /// It can't be written to the disk. Uploads are stopped all the same.
    pub fn pause(&self, request: &PauseRequest) -> Result<PauseReply, Refusal> {
        let paused = self.sync.pause(request.duration).map_err(|error| not_durable(&error))?;
        Ok(PauseReply { head: self.head(Verb::Pause), paused: Some(paused) })
    }

    /// Continues uploads.
    ///
    /// # Errors
    /// It can't be written to the disk. Uploads continue all the same.
    pub fn resume(&self) -> Result<PauseReply, Refusal> {
        self.sync.resume().map_err(|error| not_durable(&error))?;
        Ok(PauseReply { head: self.head(Verb::Resume), paused: None })
    }
}

fn not_durable(error: &std::io::Error) -> Refusal {
    let refusal = Refusal::new(ErrorCode::Internal, format!("it is done, and a restart will not know of it: {error}"));
    refusal.hint("make room on the library's disk, or make the home writable")
}

fn no_such(id: Ulid) -> Refusal {
    let refusal = Refusal::new(ErrorCode::NotFound, format!("there is no job {id}"));
    refusal.hint("not of this run; ask the verb again, it is idempotent")
}
