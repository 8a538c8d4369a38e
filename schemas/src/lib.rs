//! What travels on the bus and what is stored, as types: the contract of a bubbaloop storage node.
//!
//! A publisher of finalize events needs this crate alone: [`keys`] tells where to publish and
//! [`event::FinalizeEvent`] what. Everything here is pure: no I/O, no clock, no environment.
//!
//! JSON Schemas of these types are generated into `schemas/json` and checked for drift by a test.

pub mod adopt;
pub mod block;
pub mod codec;
pub mod definition;
pub mod digest;
pub mod error;
pub mod event;
pub mod head;
pub mod job;
pub mod job_status;
pub mod journal;
pub mod keys;
pub mod lenient;
pub mod limits;
pub mod manifest;
pub mod names;
pub mod pages;
pub mod parameter;
pub mod params;
pub mod probe;
pub mod proof;
pub mod reconcile;
pub mod recording;
pub mod removal;
pub mod reply;
pub mod selector;
pub mod time;
pub mod verb;
pub mod verbs;

pub use block::BlockReason;
pub use digest::Digest;
pub use error::{ErrorCode, ErrorReply};
pub use names::{ChunkName, MachineId, RecordingName};
pub use time::{Timestamp, UnixNs};
pub use verb::{Role, Verb};
