//! What `status` answers: first what is safe and what is not.

use std::path::PathBuf;

use bubbaloop_storage_schemas::{
    BlockReason, Timestamp, UnixNs, Verb,
    reply::{Blocked, ChunkLocal, LibraryStatus, Proof, QueueStatus, StatusReply, StoreStatus},
    time::twin,
};

use super::base::Service;
use crate::{
    engine::driver::{LibraryUnavailable, UploadStatus},
    library::{MARK_FILE, disk, scan::Recording, unmanaged::Unmanaged},
    policy::{queue::Block, recording},
};

/// What is not proven in a store that is another disk.
#[derive(Debug, Default)]
struct AtRisk {
    bytes: u64,
    chunks: u64,
    oldest_at_ns: Option<UnixNs>,
    has_corrupt: bool,
}

impl AtRisk {
    const fn is_any(&self) -> bool {
        self.chunks > 0 || self.has_corrupt
    }

    fn add(&mut self, bytes: u64, chunks: u64, at_ns: Option<UnixNs>) {
        self.bytes += bytes;
        self.chunks += chunks;
        self.oldest_at_ns = self.oldest_at_ns.into_iter().chain(at_ns).min();
    }

    /// Adds what of it is in no recording: what was adopted is told by the recordings that were made of it.
    fn add_unmanaged(&mut self, found: &Unmanaged) {
        if found.is_any_unadopted() {
            let files = found.files - found.adopted_files;
            self.add(found.size_bytes - found.adopted_bytes, files, Some(found.oldest_at_ns));
        }
    }

    /// Adds what of a recording is at risk. `counts_proven` is set where the store is on the library's own disk.
    fn add_recording(&mut self, recording: &Recording, counts_proven: bool) {
        for chunk in &recording.chunks {
            let is_proven = chunk.facts.proof.is_some_and(Proof::is_proven);
            let is_there = recording::is_finalized(&chunk.facts) || chunk.facts.local == ChunkLocal::Present;
            if is_there && (counts_proven || !is_proven) {
                let at_ns = Some(chunk.finalized_at_ns).filter(|at_ns| *at_ns > 0).or(recording.started_at_ns);
                self.add(chunk.size_bytes, 1, at_ns);
            }
        }
        let (strays, bytes) = recording.strays;
        if strays > 0 {
            self.add(bytes, strays, recording.started_at_ns);
        }
        self.has_corrupt |= recording.is_corrupt;
    }
}

impl Service {
    /// Returns the current state.
    pub fn status(&self) -> StatusReply {
        let same_disk = self.same_disk();
        let counts_proven = same_disk != Some(false);
        let mut at_risk = AtRisk::default();
        for found in self.sync.unmanaged().values() {
            at_risk.add_unmanaged(found);
        }
        let now = self.clock.tick();
        let (scanned, away) = (self.sync.is_scanned(), self.sync.away());
        // Of what can't be looked at nothing may be said.
        let is_known = scanned && !self.sync.is_in_doubt() && away.is_none() && self.sync.unreadable().is_empty();
        let (queue, dead_letters, library) = self.sync.read(|recordings, queue| {
            let mut library =
                LibraryStatus { scanned, recordings: recordings.len() as u64, ..LibraryStatus::default() };
            for recording in recordings.values() {
                at_risk.add_recording(recording, counts_proven);
                library.chunks += recording.chunks.len() as u64;
                let proven = |chunk: &&_| proof_of(chunk).is_some_and(Proof::is_proven);
                library.uploaded_chunks += recording.chunks.iter().filter(proven).count() as u64;
            }
            let millis = |tick: crate::policy::Tick| u64::try_from(tick.since(now).as_millis()).unwrap_or(u64::MAX);
            let status = QueueStatus {
                waiting: queue.waiting() as u64,
                in_flight: queue.in_flight().len() as u64,
                in_flight_bytes: queue.in_flight().map(|item| item.size_bytes).sum(),
                next_try_in_ms: queue.next_try_at().map(millis),
            };
            (status, queue.dead_letters().len() as u64, library)
        });
        let UploadStatus { probe, failing, block, upload_rate_bytes_per_s, disk_free_bytes, disk_full_in_s } =
            self.sync.going();
        StatusReply {
            head: self.head(Verb::Status),
            safe: is_known && self.setup.backend.is_some() && !counts_proven && !at_risk.is_any(),
            at_risk_bytes: at_risk.bytes,
            at_risk_chunks: at_risk.chunks,
            oldest_at_risk_at_ns: at_risk.oldest_at_ns,
            oldest_at_risk_at: twin(at_risk.oldest_at_ns),
            upload_rate_bytes_per_s,
            disk_full_in_s,
            disk_free_bytes,
            disk_low_bytes: self.sync.disk_low_bytes(),
            paused: self.sync.paused(),
            upload_window: self.sync.window(),
            blocked: self.blocked(away, block),
            failing,
            queue,
            dead_letters,
            refused_events: self.sync.refused_events(),
            clock_offset_ms: self.sync.clock_offset_ms(),
            twins: self.sync.twins(),
            durable: self.sync.is_durable(),
            store: StoreStatus {
                backend: self.setup.backend.clone(),
                store_id: self.setup.store_id.clone(),
                same_disk,
                probe,
            },
            library,
            config_problems: [self.setup.current.borrow().problems.as_slice(), &self.setup.store_problems].concat(),
            version: env!("CARGO_PKG_VERSION").into(),
            started_at: Timestamp(self.facts.started_at_ns()).to_rfc3339(),
            started_at_ns: self.facts.started_at_ns(),
        }
    }

    /// Tells what a person should mend first: what stops uploads, save that nothing is there to be sent.
    fn blocked(&self, away: Option<(LibraryUnavailable, UnixNs)>, block: Option<(Block, UnixNs)>) -> Option<Blocked> {
        let block = block.map(|(Block { reason, hint }, since_ns)| Blocked { reason, since_ns, hint });
        match away {
            Some((LibraryUnavailable::Unreadable(_), _)) => away.map(|found| self.away(found)),
            Some((LibraryUnavailable::Changed, _)) => block.or_else(|| away.map(|found| self.away(found))),
            None => block,
        }
    }

    fn away(&self, (away, since_ns): (LibraryUnavailable, UnixNs)) -> Blocked {
        let folder = self.setup.recordings.display();
        let (reason, hint) = match away {
            LibraryUnavailable::Unreadable(error) => (
                BlockReason::RecordingsUnreadable,
                format!(
                    "the folder of recordings {folder} can't be read: {error}; mount or make it, or set recordings_dir"
                ),
            ),
            LibraryUnavailable::Changed => (
                BlockReason::RecordingsChanged,
                format!(
                    "another folder stands at {folder} than the one that held the recordings: mount its disk; if this one \
                     is to take its place, make the empty file {folder}/{MARK_FILE}; what is there goes up meanwhile"
                ),
            ),
        };
        Blocked { reason, since_ns, hint }
    }

    /// Tells whether the store is on the library's own disk; `None` while that is not known.
    fn same_disk(&self) -> Option<bool> {
        let Some(folder) = &self.setup.store_folder else { return self.setup.backend.as_ref().map(|_| false) };
        let device = |path: &PathBuf| disk::device(path).ok();
        Some(device(folder)? == device(&self.setup.recordings)?)
    }
}

const fn proof_of(chunk: &crate::library::scan::ChunkEntry) -> Option<Proof> {
    chunk.facts.proof
}
