//! What `upload` starts and answers.

use std::{sync::Arc, time::Duration};

use bubbaloop_storage_schemas::{
    Verb,
    error::{ErrorCode, Refusal},
    limits::{WAIT_DEFAULT, WAIT_MAX},
    params::Params,
    reply::{Blocked, JobReply, JobRow, ReplyHead},
};

use super::Service;
use crate::engine::{
    jobs::{Job, JobView, Work},
    sync::Sync,
};

/// A job's answer, which is waited for.
#[derive(Debug)]
pub struct Pending {
    head: ReplyHead,
    job: Arc<Job>,
    sync: Arc<Sync>,
    wait: Duration,
}

impl Pending {
    /// Returns the job's state at its end, or when the asker waits no longer.
    pub async fn reply(self) -> JobReply {
        let view = self.job.wait(self.wait).await;
        self.reply_of(view)
    }

    /// Returns the job's state now.
    pub fn reply_now(self) -> JobReply {
        let view = self.job.view();
        self.reply_of(view)
    }

    fn reply_of(self, view: JobView) -> JobReply {
        let ReplyHead { machine_id, library_id, .. } = self.head;
        JobReply { machine_id, library_id, row: row(&self.job, view, &self.sync) }
    }
}

/// Tells a job; one that goes on with what holds it back.
pub(super) fn row(job: &Job, view: JobView, sync: &Sync) -> JobRow {
    let block = sync.going().block.filter(|_| view.goes_on());
    JobRow {
        job: job.id.to_string(),
        verb: job.work.verb(),
        recording: job.work.recording().cloned(),
        state: view.state,
        progress: view.progress,
        blocked: block.map(|(block, since_ns)| Blocked { reason: block.reason, since_ns, hint: block.hint }),
        result: view.result,
        error: view.error,
    }
}

impl Service {
    /// Starts to send now what is known of a recording, or of all; joins the job that does so already.
    ///
    /// # Errors
    /// A parameter is wrong, there is no such recording or no store, or too many jobs run. Nothing was started.
    pub fn upload(&self, params: &Params) -> Result<Pending, Refusal> {
        params.check_names(Verb::Upload)?;
        let (recording, all) = (params.recording("recording")?, params.flag("all")?);
        let wait = params.duration("wait")?.unwrap_or(WAIT_DEFAULT).min(WAIT_MAX);
        match (&recording, all) {
            (Some(_), true) => {
                let refusal = Refusal::new(ErrorCode::InvalidParams, "both a recording and all are named");
                return Err(refusal.hint("name one of them"));
            }
            (None, false) => {
                let refusal = Refusal::new(ErrorCode::InvalidParams, "upload needs a recording");
                return Err(refusal.hint("ask upload?recording=NAME, or upload?all=true for every recording"));
            }
            (Some(_), false) | (None, true) => {}
        }
        if self.setup.backend.is_none() {
            let refusal = Refusal::new(ErrorCode::Unavailable, "no object store is configured");
            return Err(refusal.hint("set backend and local_path in [storage] of config.toml"));
        }
        self.not_paused()?;
        match &recording {
            None => self.scanned()?,
            Some(name) => {
                let found = self.look_up(name);
                let is_foreign = found.as_ref().is_some_and(|found| !found.is_ours());
                if is_foreign {
                    let message = format!("recording {name} is another machine's");
                    return Err(Refusal::new(ErrorCode::Conflict, message).hint("upload it from that machine"));
                }
                if found.is_none() {
                    return Err(self.no_such(name.as_str()));
                }
            }
        }
        let job = self.jobs.start(Work::Upload(recording))?;
        Ok(Pending { head: self.head(Verb::Upload), job, sync: Arc::clone(&self.sync), wait })
    }
}
