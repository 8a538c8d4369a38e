//! What `upload` starts and answers.

use std::sync::Arc;

use bubbaloop_storage_schemas::{
    Verb,
    error::{ErrorCode, Refusal},
    verbs::upload::UploadRequest,
};

use super::{base::Service, pending::Pending};
use crate::engine::jobs::Work;

impl Service {
    /// Starts to send now what is known of a recording, or of all; joins the job that does so already.
    ///
    /// # Errors
    /// There is no such recording or no store, or too many jobs run. Nothing was started.
    pub fn upload(&self, request: &UploadRequest) -> Result<Pending, Refusal> {
        self.has_store()?;
        self.not_paused()?;
        match &request.recording {
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
        let job = self.jobs.start(Work::Upload(request.recording.clone()))?;
        Ok(Pending::new(self.head(Verb::Upload), job, Arc::clone(&self.sync), request.wait.duration()))
    }
}
