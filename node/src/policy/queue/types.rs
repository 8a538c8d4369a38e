//! What the queue is told, and what it answers.

use std::time::Duration;

use bubbaloop_storage_schemas::{BlockReason, ChunkName, Digest, RecordingName, UnixNs};

use crate::policy::Tick;

/// Which chunk.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ChunkId {
    /// Its recording.
    pub recording: RecordingName,
    /// Its name.
    pub chunk: ChunkName,
}

impl ChunkId {
    /// Returns the lowest id that a chunk of a recording can have.
    pub(super) fn first_of(recording: &RecordingName) -> Self {
        Self { recording: recording.clone(), chunk: ChunkName::new(0, &Digest::from_bytes([0; 32])) }
    }
}

/// A chunk that is to be uploaded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Item {
    /// Which.
    pub id: ChunkId,
    /// Its size.
    pub size_bytes: u64,
    /// When it was finalized.
    pub finalized_at_ns: UnixNs,
    /// What its recording's tags make of it: a lower one goes first.
    pub rank: u32,
    /// It was finalized in this run, so its first try needs no look at the store before.
    pub is_fresh: bool,
}

/// Which of two chunks goes first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Order {
    /// The one that was finalized earlier.
    #[default]
    Oldest,
    /// The one that was finalized later.
    Newest,
}

/// The settings of the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Uploads at once.
    pub concurrency: usize,
    /// Chunks that are held; what is over is offered again later.
    pub chunks_max: usize,
    /// How long a chunk may fail while the store takes others.
    pub give_up_after: Duration,
    /// Which goes first.
    pub order: Order,
}

/// What came of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offered {
    /// It waits now.
    Queued,
    /// It is here already: waiting, on its way, or a dead letter.
    Known,
    /// There is no room: offer it again when the queue has drained.
    Full,
}

/// How a try ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The chunk is proven, or needs no upload any more.
    Settled,
    /// It may succeed later; the store may have said when.
    Retry {
        /// Not before this long.
        after: Option<Duration>,
        /// What went wrong.
        message: String,
    },
    /// A fact stops all uploads.
    Blocked(Block),
    /// The local file could not be read just now, which says nothing of the store.
    Unreadable(String),
    /// It was stopped in the middle by a pause or the end of the hours: no failure, and what was sent stays.
    Halted,
    /// This chunk will not succeed until something changes; the store is fine.
    Dead(String),
}

/// A fact that stops all uploads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Block {
    /// Its class.
    pub reason: BlockReason,
    /// What a person can do, with the names of this case.
    pub hint: String,
}

impl Block {
    /// Makes a block with a hint of its own.
    pub fn new(reason: BlockReason, hint: impl Into<String>) -> Self {
        Self { reason, hint: hint.into() }
    }
}

/// Why a probe did not end a block.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeFailure {
    /// This fact stops uploads.
    Blocked(Block),
    /// No answer came: nothing is known of the fact. The store may have said when to ask again.
    Unanswered {
        /// Not before this long.
        after: Option<Duration>,
    },
}

/// What to do next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Next {
    /// Upload this chunk, then report with [`Queue::finish`](super::Queue::finish); `attempt` counts from 1.
    Start {
        /// The chunk.
        item: Item,
        /// Which try it is.
        attempt: u32,
    },
    /// Probe the store, then report with [`Queue::probed`](super::Queue::probed).
    Probe,
    /// Nothing until this tick, or until something is told.
    WaitUntil(Tick),
    /// Nothing until something is told.
    Idle,
}

/// A chunk that was given up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeadLetter {
    /// The chunk.
    pub item: Item,
    /// Why.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// When it is tried again by itself.
    pub retry_at: Tick,
}

/// Where a chunk is in the queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stage<'a> {
    /// It waits.
    Waiting,
    /// It is on its way.
    InFlight,
    /// It was given up, for this reason.
    Dead(&'a str),
}
