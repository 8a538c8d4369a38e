//! What `adopt` starts.

use std::{collections::BTreeMap, sync::Arc};

use bubbaloop_storage_schemas::{
    UnixNs, Verb,
    error::{ErrorCode, Refusal},
    verbs::adopt::AdoptRequest,
};

use super::{base::Service, pending::Pending};
use crate::{
    engine::{
        adopt::{self, AdoptOptions, Source},
        jobs::Work,
    },
    policy,
};

/// What was tried to be adopted by itself, as it looked then: it is tried again when it looks otherwise.
pub type Tried = BTreeMap<String, (u64, u64, UnixNs)>;

impl Service {
    /// Starts to make a recording of what `list` shows and is none of this machine's; joins the job that does so already.
    ///
    /// # Errors
    /// `list` shows no such name, it may still be written, or too many jobs run. Nothing was
    /// started.
    pub fn adopt(&self, request: &AdoptRequest) -> Result<Pending, Refusal> {
        let options = AdoptOptions { name: request.name.clone(), recover: request.recover, copy: request.copy };
        self.scanned()?;
        let work = match &request.recording {
            None => Work::Adopt { source: None, target: None, options },
            Some(name) => {
                let Some(is_unmanaged) = self.sync.is_unmanaged(name) else { return Err(self.nothing_to_adopt(name)) };
                let options = self.sync.adopt_options(name, &options);
                let listed = Source::Listed(name.clone());
                let found = adopt::find(&self.sync.library(), &listed, &options, is_unmanaged)
                    .map_err(|error| error.refusal())?;
                Work::Adopt { source: Some(name.clone()), target: Some(found.recording), options }
            }
        };
        let job = self.jobs.start(work)?;
        Ok(Pending::new(self.head(Verb::Adopt), job, Arc::clone(&self.sync), request.wait.duration()))
    }

    /// Starts to adopt what is laid out in another way and has been still for a minute; what was refused, and what a
    /// person removed as a recording, is left alone until it looks otherwise.
    pub fn auto_adopt(&self, tried: &mut Tried) {
        let now_ns = self.clock.wall();
        let found = self.sync.not_adopted(false);
        tried.retain(|name, _| found.contains_key(name));
        for (name, found) in found {
            let look = (found.files, found.size_bytes, found.newest_at_ns);
            let is_still = policy::adopt::is_still(found.newest_at_ns, now_ns);
            if !is_still || found.is_left_alone() || tried.get(&name) == Some(&look) {
                continue;
            }
            tried.insert(name.clone(), look);
            match self.adopt(&AdoptRequest { recording: Some(name.clone()), ..AdoptRequest::default() }) {
                Ok(_) => tracing::info!(source = name, "adopting it"),
                Err(refusal) => {
                    tracing::warn!(source = name, %refusal, "it is not adopted");
                    if refusal.retryable {
                        tried.remove(&name);
                    }
                }
            }
        }
    }

    fn nothing_to_adopt(&self, name: &str) -> Refusal {
        if name.contains('/') || name == ".." || name == "." {
            let refusal = Refusal::new(ErrorCode::InvalidParams, "adopt takes names that list shows, and no paths");
            return refusal.hint("on the machine itself: bubbaloop-storage adopt PATH");
        }
        let names: Vec<_> = self.sync.unmanaged().into_keys().collect();
        let hint = match bubbaloop_storage_schemas::error::nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => "list?state=unmanaged tells what there is to adopt".into(),
        };
        let name = bubbaloop_storage_schemas::digest::shorten(name);
        Refusal::new(ErrorCode::NotFound, format!("list shows nothing named {name}")).hint(hint)
    }
}
