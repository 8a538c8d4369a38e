//! The types of all replies, in one place to import them from. Each is defined in the file of its verb or its subject.
//!
//! Later versions add fields. They never remove one.
//!
//! A time has two fields: `*_ns` and its RFC 3339 form, because whole numbers in a browser end at 2^53.

pub use crate::{
    adopt::{
        AdoptAction, AdoptActionKind, AdoptCounts, AdoptFinding, AdoptFindingKind, AdoptResult, AdoptedFile,
        AdoptedFrom,
    },
    block::Blocked,
    head::ReplyHead,
    job::{JobResult, UploadResult},
    job_status::{JobReply, JobRow, JobState, Progress},
    probe::{Probe, Rights},
    proof::Proof,
    reconcile::{Action, ActionKind, Finding, FindingKind, ReconcileCounts, ReconcileResult},
    recording::{ChunkLocal, ChunkUpload, RecordingState, UploadState},
    removal::{
        RemovalAction, RemovalActionKind, RemovalCounts, RemovalFinding, RemovalFindingKind, RemovalResult, RemoveFrom,
    },
    verbs::{
        config::{ConfigProblem, ConfigReply, Setting},
        dead_letters::{DeadLetterRow, DeadLettersReply},
        help::{HelpReply, ParameterHelp, VerbHelp},
        info::{ChunkRow, InfoReply, OtherField},
        jobs::JobsReply,
        list::{ListReply, RecordingRow},
        pause::{PauseReply, Paused},
        status::{Failing, LibraryStatus, QueueStatus, RefusedEvents, StatusReply, StoreStatus, UploadWindow},
    },
};
