//! The answer of a verb that starts a job.

use std::{sync::Arc, time::Duration};

use bubbaloop_storage_schemas::reply::{Blocked, JobReply, JobRow, ReplyHead};

use crate::engine::{
    driver::Engine,
    jobs::{Job, JobView},
};

/// A job's answer, which is waited for.
#[derive(Debug)]
pub struct Pending {
    head: ReplyHead,
    job: Arc<Job>,
    sync: Arc<Engine>,
    wait: Duration,
}

impl Pending {
    pub(super) const fn new(head: ReplyHead, job: Arc<Job>, sync: Arc<Engine>, wait: Duration) -> Self {
        Self { head, job, sync, wait }
    }

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
pub(super) fn row(job: &Job, view: JobView, sync: &Engine) -> JobRow {
    let block = sync.going().block.filter(|_| view.goes_on());
    JobRow {
        job: job.id.to_string(),
        verb: job.work.verb().into(),
        recording: job.work.recording().cloned(),
        state: view.state.into(),
        progress: view.progress,
        blocked: block.map(|(block, since_ns)| Blocked { reason: block.reason, since_ns, hint: block.hint }),
        result: view.result,
        error: view.error,
    }
}
