//! The verbs: one file for each, and the one list that registers them.
//!
//! To add a verb, add its file, its module here, and its line in the list. [`table`] and [`crate::verb`] are generated
//! from the list: a verb that lacks a part does not compile.

pub mod adopt;
pub mod cancel;
pub mod config;
pub mod dead_letters;
pub mod help;
pub mod info;
pub mod jobs;
pub mod list;
pub mod pause;
pub mod reconcile;
pub mod resume;
pub mod rm;
pub mod status;
pub mod table;
pub mod upload;

/// Hands all verbs to another macro, in the order of the help: the variant of `Verb` and the type that defines the verb
/// (one name), and the module and the last part of its key (one name).
macro_rules! for_each_verb {
    ($receiver:ident) => {
        $receiver! {
            /// The verbs and their parameters.
            Help = help;
            /// The recordings of the library.
            List = list;
            /// One recording and its chunks.
            Info = info;
            /// The current state.
            Status = status;
            /// The settings and the source of each.
            Config = config;
            /// The uploads that were given up.
            DeadLetters = dead_letters;
            /// The jobs that run, and those that ended lately.
            Jobs = jobs;
            /// Uploads a recording now.
            Upload = upload;
            /// Compares manifest, files and objects, then repairs.
            Reconcile = reconcile;
            /// Makes a recording of files that are none of this machine's recordings.
            Adopt = adopt;
            /// Stops uploads until somebody resumes them, or for a time.
            Pause = pause;
            /// Continues uploads.
            Resume = resume;
            /// Stops a job.
            Cancel = cancel;
            /// Removes a recording.
            Rm = rm;
        }
    };
}
pub(crate) use for_each_verb;
