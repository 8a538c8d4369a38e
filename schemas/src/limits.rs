//! The one list of limits: every queue, request, page and name is bounded here.

use std::time::Duration;

/// Longest name of a recording, a machine or a profile, in bytes.
pub const NAME_BYTES_MAX: usize = 128;

/// Largest query payload that is decoded, in bytes. Requests are a few short fields.
pub const REQUEST_BYTES_MAX: usize = 64 * 1024;

/// Longest admin token, in bytes.
pub const TOKEN_BYTES_MAX: usize = 1024;

/// Largest finalize event that is decoded, in bytes.
pub const EVENT_BYTES_MAX: usize = 64 * 1024;

/// Largest `manifest.json` that is read, in bytes: room for 100,000 chunks of some 300 bytes.
pub const MANIFEST_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Most chunks of a manifest that is taken from a store.
pub const MANIFEST_CHUNKS_MAX: usize = 100_000;

/// Largest chunk that a manifest may name, in bytes: the largest object that S3 holds.
pub const CHUNK_BYTES_MAX: u64 = 5 * 1024 * 1024 * 1024 * 1024;

/// Chunks that are fetched from the store at once, at most.
pub const FETCHES_AT_ONCE_MAX: usize = 4;

/// Folders of the store that are told one by one: machines, or recordings of one.
pub const STORE_FOLDERS_MAX: usize = 100_000;

/// Longest journal line that is read, in bytes. A line holds one fact about one chunk.
pub const JOURNAL_LINE_BYTES_MAX: usize = 16 * 1024;

/// Largest reply, in bytes. Zenoh buffers a whole message on both sides.
pub const REPLY_BYTES_MAX: usize = 1024 * 1024;

/// What the rows of one page may take of a reply, in bytes of JSON; the rest is for its other fields.
pub const PAGE_BYTES_MAX: usize = REPLY_BYTES_MAX / 2;

/// What a recording's own manifest fields may take of an `info` reply, in bytes of JSON.
pub const INFO_FIELDS_BYTES_MAX: usize = REPLY_BYTES_MAX / 4;

/// Rows of a page when the asker names no `limit`.
pub const PAGE_ROWS_DEFAULT: usize = 100;

/// Most rows of a page.
pub const PAGE_ROWS_MAX: usize = 1000;

/// Pages that a client joins to one reply.
pub const PAGES_MAX: usize = 1000;

/// Queries at work at once; the next one gets `E_LIMIT`.
pub const QUERIES_AT_WORK_MAX: usize = 64;

/// Queries received and not yet looked at. Receiving only ever fills this.
pub const QUERIES_RECEIVED_MAX: usize = 1024;

/// Replies being sent at once. An asker that reads no more holds up its own; beyond this they keep their work slots.
pub const REPLIES_SENT_MAX: usize = 192;

/// Refusals for want of a work slot being sent at once; beyond this the query ends without a reply.
pub const REFUSALS_SENT_MAX: usize = 64;

/// Queries waiting for a job's end. They hold no work slot; beyond this the job's state is told at once.
pub const QUERIES_WAITING_MAX: usize = 1024;

/// Longest `wait` of a job verb.
pub const WAIT_MAX: Duration = Duration::from_secs(600);

/// `wait` when the asker names none: below the 3 to 10 seconds after which callers give up.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(2);

/// Ended jobs that are remembered.
pub const JOBS_KEPT_MAX: usize = 256;

/// Jobs that run at once; the next one gets `E_LIMIT`.
pub const JOBS_RUNNING_MAX: usize = 64;

/// Finalize events received and not yet looked at. A full queue loses nothing: a rescan finds the chunks.
pub const EVENTS_RECEIVED_MAX: usize = 4096;

/// Finalize events that came before their file and are waited for.
pub const EARLY_EVENTS_MAX: usize = 1024;

/// How long an event may be ahead of its file.
pub const EARLY_EVENT_GRACE: Duration = Duration::from_secs(10);

/// Chunks in the upload queue. It is a cache of what the library knows and is refilled from there.
pub const QUEUE_CHUNKS_MAX: usize = 16 * 1024;

/// Dead letters that are remembered one by one.
pub const DEAD_LETTERS_MAX: usize = 4096;

/// Journal lines that a full disk keeps in memory. What is over is found again at the store after a restart.
pub const UNWRITTEN_LINES_MAX: usize = 64 * 1024;

/// Facts that a slow listener may lag behind before it misses some.
pub const FACTS_BUFFERED_MAX: usize = 4096;

/// Uploads at once, at most.
pub const CONCURRENCY_MAX: usize = 64;

/// Bytes that are read and sent at a time.
pub const BLOCK_BYTES: usize = 256 * 1024;

/// Blocks whose memory is kept for the next ones while nobody uses it.
pub const BLOCKS_SPARE_MAX: usize = 16;

/// Refused events that are logged one by one; all of them are counted.
pub const REFUSED_EVENTS_LOGGED_MAX: usize = 1024;

/// Files of one recording folder that are looked at.
pub const CHUNKS_PER_RECORDING_MAX: usize = 1_000_000;

/// Findings, and actions, that one reconcile reply tells one by one; all of them are counted. Both, with messages of
/// the longest, fit a reply.
pub const RECONCILE_ROWS_MAX: usize = 500;

/// Findings, and actions, that one removal's reply tells one by one; all of them are counted.
pub const REMOVAL_ROWS_MAX: usize = 250;

/// Longest message of a finding or an action, in bytes.
pub const RECONCILE_MESSAGE_BYTES_MAX: usize = 480;

/// Longest record of an MCAP file that is read, in bytes.
pub const MCAP_RECORD_BYTES_MAX: usize = 256 * 1024 * 1024;

/// Files that are remembered as not to be adopted by themselves; those that are gone are forgotten first.
pub const LEFT_ALONE_MAX: usize = 100_000;

/// Files that one adoption takes in.
pub const ADOPTED_FILES_MAX: usize = 100_000;

/// Open files of recorders that are kept at hand in case a crash left them.
pub const SALVAGED_FILES_MAX: usize = 1000;
