//! Adopting as a job does it: beside everything else, with progress, until somebody stops it.

use std::{
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use bubbaloop_storage_schemas::{adopt::AdoptResult, reply::Progress};
use tokio::task::spawn_blocking;

use super::{AdoptError, AdoptOptions, Source, Watch, adopt, turn};
use crate::engine::driver::Engine;

/// How far an adoption is. Whoever waits for it and stops waiting ends it.
#[derive(Debug, Default)]
pub struct Shared {
    progress: Mutex<Progress>,
    is_cancelled: AtomicBool,
}

impl Shared {
    /// Returns how far it is.
    pub fn progress(&self) -> Progress {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Watch for Shared {
    fn hear(&self, progress: Progress) {
        *self.progress.lock().unwrap_or_else(PoisonError::into_inner) = progress;
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Relaxed)
    }
}

struct EndOnDrop(Arc<Shared>);

impl Drop for EndOnDrop {
    fn drop(&mut self) {
        self.0.is_cancelled.store(true, Ordering::Relaxed);
    }
}

/// Adopts what `list` shows under a name, and takes it into the library in memory.
///
/// # Errors
/// Why it was not adopted.
///
/// # Cancellation
/// The work ends at the next block of a file; asking again goes on from there.
pub async fn adopt_listed(
    engine: &Arc<Engine>,
    name: &str,
    options: &AdoptOptions,
    shared: &Arc<Shared>,
) -> Result<AdoptResult, AdoptError> {
    let _end = EndOnDrop(Arc::clone(shared));
    let library = engine.library();
    let turn = turn(&library).await?;
    let (engine, shared, name, options) = (Arc::clone(engine), Arc::clone(shared), name.to_owned(), options.clone());
    let work = move || {
        let Some(is_unmanaged) = engine.is_unmanaged(&name) else { return Err(AdoptError::NotFound(name)) };
        let options = engine.adopt_options(&name, &options);
        let result = adopt(&library, &Source::Listed(name), &options, is_unmanaged, &*shared, &turn)?;
        engine.note_adopted(&result.adopted);
        Ok(result)
    };
    spawn_blocking(work).await.unwrap_or_else(|error| {
        Err(AdoptError::Disk { what: "the adoption ended abnormally".into(), source: io::Error::other(error) })
    })
}
