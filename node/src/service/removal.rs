//! What `rm` starts, and who may ask for it.

use std::sync::Arc;

use bubbaloop_storage_schemas::{
    RecordingName, Verb,
    error::{ErrorCode, Refusal},
    removal::RemoveFrom,
    verbs::rm::RmRequest,
};

use super::{admin::AdminToken, base::Service, pending::Pending};
use crate::{engine::jobs::Work, library::contents::Contents, policy::removal::RemovalOptions, secret::Secret};

impl Service {
    /// Refuses who does not know the admin token.
    pub(super) fn admin(&self, verb: Verb, token: Option<&Secret>) -> Result<(), Refusal> {
        let denied = |message: String, hint: &str| Err(Refusal::new(ErrorCode::Denied, message).hint(hint));
        match (&self.setup.admin_token, token) {
            (AdminToken::Absent(reason), _) => {
                let hint = "set admin_token in secrets.toml (mode 600) under [storage], or let the node write it";
                denied(format!("{verb} needs the admin token, and this node has none: {reason}"), hint)
            }
            (AdminToken::Set(_), None) => {
                let hint = "send it as the query's attachment or as the field token of the payload; it stands in the \
                            node's secrets.toml";
                denied(format!("{verb} needs the admin token"), hint)
            }
            (AdminToken::Set(wanted), Some(token)) if wanted.is(token) => Ok(()),
            (AdminToken::Set(_), Some(_)) => {
                denied("this is not the admin token".into(), "it stands in the node's secrets.toml")
            }
        }
    }

    /// Starts to remove a recording; joins the job that does so already.
    ///
    /// # Errors
    /// There is no such recording, it may not be removed now, or too many jobs run. Nothing was started.
    pub fn rm(&self, request: &RmRequest) -> Result<Pending, Refusal> {
        let (name, from) = (&*request.recording, *request.from);
        let options = RemovalOptions { from, dry_run: request.dry_run, force: request.force };
        if from.is_remote() {
            if self.setup.backend.as_deref() == Some("local") {
                let message = format!("from={from}: this node's store is a folder, which is no remote store");
                let hint = "remove what stands in the folder by hand, or use from=local";
                return Err(Refusal::new(ErrorCode::InvalidParams, message).hint(hint));
            }
            self.has_store()?;
        }
        if from == RemoveFrom::Both && !options.force {
            let message = format!("of recording {name} nothing would be left");
            return Err(Refusal::new(ErrorCode::Conflict, message).hint("use force if that is meant"));
        }
        let work = Work::Remove { recording: name.clone(), options };
        let job = match self.jobs.running(&work) {
            Some(job) => job,
            None => {
                self.is_removable(name, options)?;
                self.jobs.start(work)?
            }
        };
        Ok(Pending::new(self.head(Verb::Rm), job, Arc::clone(&self.sync), request.wait.duration()))
    }

    /// Refuses what is no recording of this node, or may not be removed now.
    fn is_removable(&self, name: &RecordingName, options: RemovalOptions) -> Result<(), Refusal> {
        if self.look_up(name).is_some() {
            return self.sync.may_remove(name, options.force);
        }
        // What a removal left that was cut off, though the files that it was made of have its name.
        let contents = Contents::read(&self.setup.recordings, name).ok().flatten();
        if options.from.is_local() && contents.is_some_and(|contents| contents.is_leftover()) {
            return Ok(());
        }
        let unmanaged = self.sync.unmanaged();
        let is_removed = match unmanaged.get(name.as_str()) {
            Some(found) if !found.is_left_alone() => {
                let message = format!("{name} is laid out in another way and no recording of this node");
                let hint = "adopt it first, or remove its files by hand";
                return Err(Refusal::new(ErrorCode::Conflict, message).hint(hint));
            }
            found => found.is_some(),
        };
        // The store alone may have it.
        if options.from.is_remote() && options.force {
            return Ok(());
        }
        if is_removed {
            let message = format!("there is no recording {name} any more: the files that it was made of lie there");
            return Err(Refusal::new(ErrorCode::NotFound, message).hint("remove them by hand, or adopt them again"));
        }
        self.scanned()?;
        Err(self.no_such(name.as_str()))
    }
}
