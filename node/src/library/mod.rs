//! This machine's disk: the recordings as manifest, files and journal tell them, merged.
//!
//! ```text
//! <home>/recordings/.library.json                the folder's mark: another disk in its place has another, or none
//! <home>/recordings/<recording>/manifest.json   the recorder's, until the recording has ended
//! <home>/recordings/<recording>/uploads.jsonl   the journal: ours alone
//! <home>/recordings/<recording>/chunks/         the chunks' files
//! <home>/storage/                               identity, lock, dead letters, state
//! ```

use std::{fs::Metadata, os::unix::fs::MetadataExt};

use bubbaloop_storage_schemas::UnixNs;

pub mod contents;
pub mod dead_letters;
pub mod disk;
pub mod fold;
pub mod identity;
pub mod journal;
pub mod journals;
pub mod left_alone;
pub mod mcap_file;
pub mod salvage;
pub mod scan;
pub mod source;
pub mod state;
pub mod unmanaged;

/// The mark of a folder of recordings. A hidden file is no recording.
pub const MARK_FILE: &str = ".library.json";

/// Returns when a file changed last; zero before 1970.
fn mtime_ns(metadata: &Metadata) -> UnixNs {
    let ns = i128::from(metadata.mtime()) * 1_000_000_000 + i128::from(metadata.mtime_nsec());
    u64::try_from(ns).unwrap_or(0)
}
