//! What `reconcile` starts.

use std::sync::Arc;

use bubbaloop_storage_schemas::{
    Verb,
    error::{ErrorCode, Refusal},
    limits::{WAIT_DEFAULT, WAIT_MAX},
    params::Params,
};

use super::{base::Service, pending::Pending};
use crate::engine::{
    jobs::{Scope, Work},
    reconcile::ReconcileOptions,
};

impl Service {
    /// Starts to look at recordings on both sides and to heal them; joins the job that does the same already.
    ///
    /// # Errors
    /// A parameter is wrong, there is no store, uploads are paused, or too many jobs run. Nothing was started.
    pub fn reconcile(&self, params: &Params) -> Result<Pending, Refusal> {
        params.check_names(Verb::Reconcile)?;
        let (recording, name, all) = (params.recording("recording")?, params.text("name")?, params.flag("all")?);
        let (deep, dry_run, restore) = (params.flag("deep")?, params.flag("dry_run")?, params.flag("restore")?);
        let options = ReconcileOptions { deep, dry_run, restore };
        let wait = params.duration("wait")?.unwrap_or(WAIT_DEFAULT).min(WAIT_MAX);
        let scope = match (recording, name, all) {
            (Some(recording), None, false) => Scope::One(recording),
            (None, Some(glob), false) => Scope::Matching(glob.to_owned()),
            (None, None, true) if restore => {
                let message = "restore does not go with all: a whole library may not be meant to be fetched";
                return Err(Refusal::new(ErrorCode::InvalidParams, message).hint("give a recording, or name=GLOB"));
            }
            (None, None, true) => Scope::All,
            (None, None, false) => {
                let refusal = Refusal::new(ErrorCode::InvalidParams, "reconcile needs a recording");
                return Err(refusal.hint("ask reconcile?recording=NAME, ?name=GLOB, or ?all=true for every recording"));
            }
            _ => {
                let refusal =
                    Refusal::new(ErrorCode::InvalidParams, "more than one of recording, name and all is given");
                return Err(refusal.hint("give one of them"));
            }
        };
        self.has_store()?;
        if !options.dry_run {
            self.not_paused()?;
        }
        if let Scope::One(recording) = &scope {
            self.look_up(recording);
        } else {
            self.scanned()?;
        }
        let job = self.jobs.start(Work::Reconcile { scope, options })?;
        Ok(Pending::new(self.head(Verb::Reconcile), job, Arc::clone(&self.sync), wait))
    }
}
