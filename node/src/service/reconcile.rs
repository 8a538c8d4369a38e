//! What `reconcile` starts.

use std::sync::Arc;

use bubbaloop_storage_schemas::{
    Verb,
    error::Refusal,
    verbs::reconcile::{ReconcileRequest, ReconcileTarget},
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
    /// There is no store, uploads are paused, or too many jobs run. Nothing was started.
    pub fn reconcile(&self, request: &ReconcileRequest) -> Result<Pending, Refusal> {
        let scope = match request.target()? {
            ReconcileTarget::One(recording) => Scope::One(recording.clone()),
            ReconcileTarget::Matching(glob) => Scope::Matching(glob.to_owned()),
            ReconcileTarget::All => Scope::All,
        };
        let &ReconcileRequest { deep, dry_run, restore, wait, .. } = request;
        let options = ReconcileOptions { deep, dry_run, restore };
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
        Ok(Pending::new(self.head(Verb::Reconcile), job, Arc::clone(&self.sync), wait.duration()))
    }
}
