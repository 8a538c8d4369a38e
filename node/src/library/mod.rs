//! This machine's disk: the recordings as manifest, files and journal tell them, merged.
//!
//! ```text
//! <home>/recordings/<recording>/manifest.json   the recorder's, until the recording has ended
//! <home>/recordings/<recording>/uploads.jsonl   the journal: ours alone
//! <home>/recordings/<recording>/chunks/         the chunks' files
//! <home>/storage/                               identity and lock
//! ```

pub mod identity;
pub mod journal;
pub mod scan;
