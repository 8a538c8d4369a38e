//! What `upload` starts and answers.

use std::sync::Arc;

use bubbaloop_storage_schemas::{
    Verb,
    error::{ErrorCode, Refusal},
    limits::{WAIT_DEFAULT, WAIT_MAX},
    params::Params,
};

use super::{base::Service, pending::Pending};
use crate::engine::jobs::Work;

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
        self.has_store()?;
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
        Ok(Pending::new(self.head(Verb::Upload), job, Arc::clone(&self.sync), wait))
    }
}
