//! What `jobs`, `cancel`, `pause` and `resume` answer.

use bubbaloop_storage_schemas::{
    Verb,
    error::{ErrorCode, Refusal},
    params::Params,
    reply::{JobReply, JobsReply, PauseReply, Reply},
};
use ulid::Ulid;

use super::{base::Service, pending};
use crate::policy::listing;

impl Service {
    /// Tells the jobs, the newest first, page by page, or one of them.
    ///
    /// # Errors
    /// A parameter is wrong, or there is no such job.
    pub fn jobs(&self, params: &Params) -> Result<Reply, Refusal> {
        params.check_names(Verb::Jobs)?;
        let limit = params.limit()?;
        let (job, after) = (ulid(params, "job")?, ulid(params, "after")?);
        let found = match job {
            None => self.jobs.all(),
            Some(id) => vec![self.jobs.get(id).ok_or_else(|| no_such(id))?],
        };
        let rows = found
            .iter()
            .filter(|job| after.is_none_or(|after| job.id < after))
            .map(|job| pending::row(job, job.view(), &self.sync));
        let (jobs, has_more) = listing::page(rows, limit);
        let next_after = jobs.last().filter(|_| has_more).map(|row| row.job.clone());
        Ok(Reply::Jobs(JobsReply { head: self.head(Verb::Jobs), jobs, next_after }))
    }

    /// Stops a job and tells how far it came. One that has ended is told as it is.
    ///
    /// # Errors
    /// No job is named, or there is none of this id.
    pub fn cancel(&self, params: &Params) -> Result<Reply, Refusal> {
        params.check_names(Verb::Cancel)?;
        let Some(id) = ulid(params, "job")? else {
            let refusal = Refusal::new(ErrorCode::InvalidParams, "cancel needs a job");
            return Err(refusal.hint("ask cancel?job=ID; jobs tells the ids"));
        };
        let job = self.jobs.cancel(id).ok_or_else(|| no_such(id))?;
        let (machine_id, library_id) = (self.identity.machine_id.clone(), self.identity.library_id.clone());
        Ok(Reply::Job(JobReply { machine_id, library_id, row: pending::row(&job, job.view(), &self.sync) }))
    }

    /// Stops uploads until somebody resumes them, or for a time.
    ///
    /// # Errors
    /// A parameter is wrong, or it can't be written down: uploads are stopped all the same.
    pub fn pause(&self, params: &Params) -> Result<Reply, Refusal> {
        params.check_names(Verb::Pause)?;
        let paused = self.sync.pause(params.duration("for")?).map_err(|error| not_durable(&error))?;
        Ok(Reply::Pause(PauseReply { head: self.head(Verb::Pause), paused: Some(paused) }))
    }

    /// Lets uploads go on.
    ///
    /// # Errors
    /// A parameter is unknown, or it can't be written down: uploads go on all the same.
    pub fn resume(&self, params: &Params) -> Result<Reply, Refusal> {
        params.check_names(Verb::Resume)?;
        self.sync.resume().map_err(|error| not_durable(&error))?;
        Ok(Reply::Pause(PauseReply { head: self.head(Verb::Resume), paused: None }))
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

fn ulid(params: &Params, name: &str) -> Result<Option<Ulid>, Refusal> {
    let Some(text) = params.text(name)? else { return Ok(None) };
    text.parse().map(Some).map_err(|_| {
        Refusal::new(ErrorCode::InvalidParams, format!("{name}: not the id of a job")).hint("jobs tells the ids")
    })
}
