//! What `list` and `info` answer.

use std::collections::BTreeMap;

use bubbaloop_storage_schemas::{
    Timestamp, Verb,
    error::Refusal,
    limits::INFO_FIELDS_BYTES_MAX,
    manifest::Manifest,
    reply::{
        ChunkLocal, ChunkRow, ChunkUpload, DeadLetterRow, DeadLettersReply, InfoReply, ListReply, OtherField, Proof,
        RecordingRow, RecordingState, UploadState,
    },
    time::twin,
    verbs::{
        dead_letters::{DeadLetterPlace, DeadLettersRequest},
        info::InfoRequest,
        list::ListRequest,
    },
};
use serde_json::{Map, Value};

use super::base::Service;
use crate::{
    library::{
        dead_letters::DeadLetterRecord,
        scan::{ChunkEntry, Recording},
        unmanaged::{AllUnmanaged, LEFT_OPEN, Unmanaged},
    },
    policy::{
        fetch,
        listing::{self, Filter},
        queue::{ChunkId, Stage},
        recording::{self, RecordingEvidence},
    },
};

impl Service {
    /// Returns a page of the recordings.
    ///
    /// # Errors
    /// The first scan is not done: a part of the library must not look like all of it.
    pub fn list(&self, request: &ListRequest) -> Result<ListReply, Refusal> {
        let filter = Filter::of(request);
        let after = request.after.as_deref();
        self.scanned()?;
        let is_after = |name: &str| after.is_none_or(|after| name > after);
        let mut others: BTreeMap<_, _> =
            self.unmanaged_shown().iter().map(|(name, it)| (name.clone(), self.unmanaged_row(name, it))).collect();
        for (name, reason) in self.sync.unreadable() {
            if !self.sync.knows(&name) {
                others.insert(name.clone(), self.unreadable_row(&name, reason));
            }
        }
        let others = others.into_iter().filter(|(name, _)| is_after(name)).map(|(_, row)| row);
        let (recordings, has_more) = self.sync.read(|recordings, _| {
            let ours = recordings.values().filter(|recording| is_after(recording.name.as_str()));
            let rows = merged(ours.map(|recording| self.row(recording)), others);
            listing::page(rows.filter(|row| filter.admits(row)), request.limit.rows())
        });
        let next_after = recordings.last().filter(|_| has_more).map(|row| row.recording.clone());
        Ok(ListReply { head: self.head(Verb::List), recordings, next_after })
    }

    /// Returns one recording and a page of its chunks; the first page has the manifest's other fields.
    ///
    /// # Errors
    /// The first scan is not done, or there is no such recording.
    pub fn info(&self, request: &InfoRequest) -> Result<InfoReply, Refusal> {
        let (name, after) = (&*request.recording, request.after);
        if !self.sync.knows(name.as_str()) {
            self.look_up(name);
        }
        let found = self.sync.read(|recordings, queue| {
            let recording = recordings.get(name)?;
            let first = recording.chunks.partition_point(|chunk| after.is_some_and(|after| chunk.name <= after));
            let rows =
                recording.chunks.iter().skip(first).map(|chunk| {
                    chunk_row(chunk, queue.stage(&ChunkId { recording: name.clone(), chunk: chunk.name }))
                });
            Some((self.row(recording), listing::page(rows, request.limit.rows())))
        });
        let Some((row, (chunks, has_more))) = found else {
            self.scanned()?;
            return match self.sync.unmanaged().get(name.as_str()) {
                Some(found) => {
                    let row = self.unmanaged_row(name.as_str(), found);
                    Ok(self.info_reply(row, Vec::new(), false, Fields::default()))
                }
                None => Err(self.no_such(name.as_str())),
            };
        };
        // To read the manifest of many chunks for each of their pages would take minutes.
        let fields = match after {
            None => self.sync.manifest(name).map(Fields::of).unwrap_or_default(),
            Some(_) => Fields { are_left_out: true, ..Fields::default() },
        };
        Ok(self.info_reply(row, chunks, has_more, fields))
    }

    /// Returns a page of the uploads that were given up.
    pub fn dead_letters(&self, request: &DeadLettersRequest) -> DeadLettersReply {
        let row = |letter: DeadLetterRecord| DeadLetterRow {
            recording: letter.recording,
            chunk: letter.chunk,
            size_bytes: letter.file.size_bytes,
            reason: letter.reason,
            attempts: letter.attempts,
            last_tried_at: Timestamp(letter.last_tried_at_ns).to_rfc3339(),
            last_tried_at_ns: letter.last_tried_at_ns,
        };
        let is_after = |letter: &DeadLetterRecord| {
            request
                .after
                .as_ref()
                .is_none_or(|after| (&letter.recording, letter.chunk) > (&after.recording, after.chunk))
        };
        let rows = self.sync.dead_letters().into_iter().filter(is_after).map(row);
        let (dead_letters, has_more) = listing::page(rows, request.limit.rows());
        let last = dead_letters.last().filter(|_| has_more);
        let place = |row: &DeadLetterRow| DeadLetterPlace { recording: row.recording.clone(), chunk: row.chunk };
        let next_after = last.map(|row| place(row).to_string());
        DeadLettersReply { head: self.head(Verb::DeadLetters), dead_letters, next_after }
    }

    fn info_reply(&self, row: RecordingRow, chunks: Vec<ChunkRow>, has_more: bool, fields: Fields) -> InfoReply {
        InfoReply {
            head: self.head(Verb::Info),
            recording: row.recording,
            recording_machine_id: row.machine_id,
            state: row.state,
            corrupt: row.corrupt,
            upload: row.upload,
            chunk_count: row.chunks,
            uploaded_chunks: row.uploaded_chunks,
            size_bytes: row.size_bytes,
            uploaded_bytes: row.uploaded_bytes,
            started_at: row.started_at,
            started_at_ns: row.started_at_ns,
            ended_at: row.ended_at,
            ended_at_ns: row.ended_at_ns,
            tags: row.tags,
            reason: row.reason,
            manifest_fields: fields.known,
            other_fields: fields.other,
            fields_left_out: fields.are_left_out,
            next_after: chunks.last().filter(|_| has_more).map(|chunk| chunk.name.to_string()),
            chunks,
        }
    }

    /// Returns what is listed as laid out in another way: what was adopted under its own name is that recording's row.
    fn unmanaged_shown(&self) -> AllUnmanaged {
        let mut shown = self.sync.unmanaged();
        shown.retain(|name, found| {
            !found.is_adopted() || found.adopted_as.as_ref().is_none_or(|recording| recording.as_str() != name)
        });
        shown
    }

    fn unreadable_row(&self, name: &str, reason: String) -> RecordingRow {
        let row = self.unmanaged_row(name, &Unmanaged::empty(""));
        RecordingRow { state: RecordingState::Invalid.into(), reason: Some(reason), ..row }
    }

    fn unmanaged_row(&self, name: &str, found: &Unmanaged) -> RecordingRow {
        RecordingRow {
            recording: name.to_owned(),
            machine_id: self.identity.machine_id.to_string(),
            state: RecordingState::Unmanaged.into(),
            corrupt: false,
            upload: UploadState::None.into(),
            chunks: found.files,
            uploaded_chunks: 0,
            size_bytes: found.size_bytes,
            uploaded_bytes: 0,
            started_at: None,
            started_at_ns: None,
            ended_at: None,
            ended_at_ns: None,
            tags: Vec::new(),
            reason: Some(unmanaged_reason(found)),
        }
    }

    fn row(&self, recording: &Recording) -> RecordingRow {
        let (state, reason) = recording::state(&RecordingEvidence {
            manifest: &recording.manifest,
            unlisted_chunks: recording.unlisted_chunks(),
            strays: recording.strays.0,
            touched_at_ns: recording.touched_at_ns,
            now_ns: self.clock.wall(),
        });
        let withdrawn =
            recording.is_withdrawn().then(|| "it was removed from the store; upload sends it again".to_owned());
        let chunks = recording.chunks.len();
        let large = fetch::size(chunks, 0).err().map(|reason| format!("its remote manifest is not written: {reason}"));
        let reason = reason.into_iter().chain(withdrawn).chain(large).reduce(|all, more| format!("{all}; {more}"));
        let is_proven = |chunk: &&ChunkEntry| chunk.facts.proof.is_some_and(Proof::is_proven);
        let proven = || recording.chunks.iter().filter(is_proven);
        let (chunks, uploaded_chunks) = (recording.chunks.len() as u64, proven().count() as u64);
        RecordingRow {
            recording: recording.name.to_string(),
            machine_id: recording.machine_id.to_string(),
            state: state.into(),
            corrupt: recording.is_corrupt,
            upload: recording::upload_state(chunks, uploaded_chunks).into(),
            chunks,
            uploaded_chunks,
            size_bytes: recording.chunks.iter().map(|chunk| chunk.size_bytes).sum(),
            uploaded_bytes: proven().map(|chunk| chunk.size_bytes).sum(),
            started_at: twin(recording.started_at_ns),
            started_at_ns: recording.started_at_ns,
            ended_at: twin(recording.ended_at_ns),
            ended_at_ns: recording.ended_at_ns,
            tags: recording.tags.clone(),
            reason,
        }
    }
}

fn unmanaged_reason(found: &Unmanaged) -> String {
    match &found.adopted_as {
        Some(recording) if found.is_adopted() => {
            format!("it was adopted as {recording}: {} that may stay or go", found.layout)
        }
        Some(recording) => {
            let more = found.files - found.adopted_files;
            format!("{more} of its files came after it was adopted as {recording}: adopt it again")
        }
        None if found.is_left_alone() => {
            format!("it is {}; the recording that was made of it was removed; adopt makes it one again", found.layout)
        }
        None if found.layout == LEFT_OPEN => {
            format!("it is {LEFT_OPEN}; adopt with recover takes what is whole in it")
        }
        None => format!("it is {}, not a recording with chunks/ and manifest.json; adopt makes it one", found.layout),
    }
}

/// Merges two sequences of rows that are each in the order of their names.
fn merged(
    ours: impl Iterator<Item = RecordingRow>,
    others: impl Iterator<Item = RecordingRow>,
) -> impl Iterator<Item = RecordingRow> {
    let (mut ours, mut others) = (ours.peekable(), others.peekable());
    std::iter::from_fn(move || match (ours.peek(), others.peek()) {
        (Some(a), Some(b)) if b.recording < a.recording => others.next(),
        (Some(_), _) => ours.next(),
        (None, _) => others.next(),
    })
}

/// A manifest's fields that `info` tells beside its own.
#[derive(Debug, Default)]
struct Fields {
    known: Map<String, Value>,
    other: Vec<OtherField>,
    are_left_out: bool,
}

impl Fields {
    /// What `info` tells in fields of its own.
    const TOLD: [&str; 8] =
        ["name", "machine_id", "started_at_ns", "ended_at_ns", "size_bytes", "tags", "corrupt", "chunks"];

    fn of(mut manifest: Manifest) -> Self {
        let other = std::mem::take(&mut manifest.other);
        manifest.chunks.clear();
        let Ok(Value::Object(mut known)) = serde_json::to_value(manifest) else { return Self::default() };
        known.retain(|name, _| !Self::TOLD.contains(&name.as_str()));
        let other: Vec<_> = other.into_iter().map(|(name, value)| OtherField { name, value }).collect();
        let size_bytes = serde_json::to_vec(&(&known, &other)).map_or(usize::MAX, |text| text.len());
        if size_bytes > INFO_FIELDS_BYTES_MAX {
            return Self { are_left_out: true, ..Self::default() };
        }
        Self { known, other, are_left_out: false }
    }
}

fn chunk_row(chunk: &ChunkEntry, stage: Option<Stage<'_>>) -> ChunkRow {
    let proof = chunk.facts.proof;
    let upload = match (stage, proof) {
        (_, Some(proof)) if proof.is_proven() => ChunkUpload::Uploaded,
        (Some(Stage::InFlight), _) => ChunkUpload::InFlight,
        (_, Some(_)) => ChunkUpload::Claimed,
        (Some(Stage::Dead(_)), _) => ChunkUpload::DeadLetter,
        (_, None) => ChunkUpload::Pending,
    };
    ChunkRow {
        index: chunk.name.index(),
        name: chunk.name,
        size_bytes: chunk.size_bytes,
        sha256: chunk.digest.map(|digest| digest.to_string()),
        log_time_first_ns: chunk.log_time_first_ns,
        log_time_last_ns: chunk.log_time_last_ns,
        listed: chunk.facts.is_listed,
        local: chunk.facts.local.into(),
        upload: upload.into(),
        proof: proof.map(Into::into),
        uploaded_at_ns: chunk.marked_at_ns,
        uploaded_at: twin(chunk.marked_at_ns),
        reason: match stage {
            Some(Stage::Dead(reason)) => Some(reason.to_owned()),
            Some(Stage::Waiting | Stage::InFlight) | None => match chunk.facts.local {
                ChunkLocal::Missing => Some("its file is missing".into()),
                ChunkLocal::Damaged => Some("its file is damaged".into()),
                ChunkLocal::Present | ChunkLocal::Evicted => None,
            },
        },
    }
}
