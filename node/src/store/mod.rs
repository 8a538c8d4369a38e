//! Remote bytes: the port, its adapters, and the registry of backends.
//!
//! A new backend is one adapter that implements [`ObjectStore`] and [`Backend`], and one line in [`BACKENDS`].

mod backend;
pub mod local;
mod port;
pub mod s3;
pub mod throttle;
pub mod unset;

pub use self::{
    backend::{Backend, Checked, OpenError, OpenRequest, Opened, Problem, Purpose, StoreSettings},
    port::{
        Body, Compared, FilePart, MultipartStore, ObjectBody, ObjectMeta, ObjectStore, PROBE_FOLDER, Page, PartSupport,
        PartsDigest, PutMode, StoreError, StoreErrorKind, Stored,
    },
};

/// All backends.
pub const BACKENDS: &[&dyn Backend] = &[&local::LocalBackend, &s3::S3Backend];

/// Returns the values that the `backend` setting may have.
pub fn backend_names() -> Vec<&'static str> {
    BACKENDS.iter().flat_map(|backend| backend.names()).copied().collect()
}

/// Returns the backend that a value of the `backend` setting selects.
pub fn backend(name: &str) -> Option<&'static dyn Backend> {
    BACKENDS.iter().find(|backend| backend.names().contains(&name)).copied()
}
