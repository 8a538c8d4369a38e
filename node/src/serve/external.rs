//! Adopting files from anywhere on this machine, by the process of the person who asks: no path travels on the bus.

use std::{path::Path, sync::Arc};

use bubbaloop_storage_schemas::{
    Verb,
    adopt::AdoptResult,
    reply::{JobReply, JobResult, JobRow, JobState, Progress},
};
use tokio::task::spawn_blocking;
use ulid::Ulid;

use super::{ServeError, identity};
use crate::{
    clock::{Clock, SystemClock},
    config::Config,
    durable,
    engine::adopt::{self, AdoptError, AdoptOptions, Library, Source, Watch, job::Shared},
    library::identity::Identity,
};

/// Hears of the progress of each step.
pub type OnProgress = Box<dyn Fn(Progress) + Send + Sync>;

struct Heard(Shared, OnProgress);

impl Watch for Heard {
    fn hear(&self, progress: Progress) {
        self.0.hear(progress);
        (self.1)(progress);
    }

    fn is_cancelled(&self) -> bool {
        self.0.is_cancelled()
    }
}

/// Adopts files and folders into the library of a home, whether or not a node runs there: the node finds the recording
/// by a scan.
///
/// # Errors
/// The home can't be used.
pub async fn adopt(
    home: &Path,
    flags: &[(String, String)],
    source: Source,
    options: AdoptOptions,
    progress: OnProgress,
) -> Result<JobReply, ServeError> {
    let mut config = Config::load(home, flags);
    let home_error = |source| ServeError::Home { home: home.to_owned(), source };
    durable::create_folder(&home.join("storage")).map_err(home_error)?;
    let Identity { machine_id, library_id } = identity(home, &mut config)?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock::start());
    let id = Ulid::from_parts(clock.wall() / 1_000_000, fastrand::u128(..));
    let library = Library {
        recordings: config.settings.recordings_dir,
        machine_id: machine_id.clone(),
        lock: home.join("storage/adopt.lock"),
        salvage: home.join("storage/salvage"),
        clock,
    };
    if library.recordings.starts_with(home) {
        durable::create_folder(&library.recordings).map_err(home_error)?;
    }
    let heard = Arc::new(Heard(Shared::default(), progress));
    let watch = Arc::clone(&heard);
    let adopted = match adopt::turn(&library).await {
        Ok(turn) => spawn_blocking(move || adopt::adopt(&library, &source, &options, true, &*watch, &turn)).await,
        Err(error) => Ok(Err(error)),
    };
    let (state, result, error) = match adopted {
        Ok(Ok(result)) => (JobState::Done, result, None),
        Ok(Err(error)) => (JobState::Failed, AdoptResult::default(), Some(error.refusal())),
        Err(error) => {
            let source = std::io::Error::other(error);
            let error = AdoptError::Disk { what: "the adoption ended abnormally".into(), source };
            (JobState::Failed, AdoptResult::default(), Some(error.refusal()))
        }
    };
    let row = JobRow {
        job: id.to_string(),
        verb: Verb::Adopt.into(),
        recording: result.adopted.first().cloned(),
        state: state.into(),
        progress: heard.0.progress(),
        blocked: None,
        result: Some(JobResult::Adopt(Box::new(result))),
        error,
    };
    Ok(JobReply { machine_id, library_id, row })
}
