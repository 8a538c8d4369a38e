//! One method per verb: the only door to the engine. It does not know who asks.

use std::sync::Arc;

use bubbaloop_storage_schemas::{
    ChunkName, Verb,
    error::{ErrorCode, Refusal, nearest},
    keys::{self, Space},
    limits::INFO_FIELDS_BYTES_MAX,
    manifest::Manifest,
    params::Params,
    reply::{
        ChunkRow, ChunkUpload, HelpReply, InfoReply, ListReply, OtherField, ParameterHelp, Proof, RecordingRow, Reply,
        ReplyHead, VerbHelp,
    },
    time::twin,
};
use serde_json::{Map, Value};

use crate::{
    clock::Clock,
    engine::sync::Sync,
    library::{
        identity::Identity,
        scan::{ChunkEntry, Recording},
    },
    policy::{
        listing::{self, Filter},
        queue::{ChunkId, Stage},
        recording::{self, Facts},
    },
};

/// Answers for one library.
#[derive(Debug, Clone)]
pub struct Service {
    /// Whose.
    pub identity: Identity,
    /// The engine.
    pub sync: Arc<Sync>,
    /// Tells the time.
    pub clock: Arc<dyn Clock>,
}

impl Service {
    fn head(&self, verb: Verb) -> ReplyHead {
        let Identity { machine_id, library_id } = self.identity.clone();
        ReplyHead { machine_id, library_id, verb }
    }

    /// Tells what can be asked, with the keys of one space.
    pub fn help(&self, space: Space) -> Reply {
        let parameters = |verb: Verb| {
            let help = |param: &bubbaloop_storage_schemas::verb::Param| ParameterHelp {
                name: param.name.into(),
                kind: param.kind,
                summary: param.summary.into(),
            };
            verb.parameters().iter().map(help).collect()
        };
        let verbs = Verb::ALL.map(|verb| VerbHelp {
            name: verb,
            key: keys::verb(space, &self.identity.machine_id, verb),
            role: verb.role(),
            summary: verb.summary().into(),
            parameters: parameters(verb),
        });
        Reply::Help(HelpReply { head: self.head(Verb::Help), verbs: verbs.into() })
    }

    /// Lists the recordings, page by page.
    ///
    /// # Errors
    /// A parameter is wrong, or the first scan is not done: never a part as if it were all.
    pub fn list(&self, params: &Params) -> Result<Reply, Refusal> {
        params.check_names(Verb::List)?;
        let (filter, limit) = (Filter::of(params)?, params.limit()?);
        let after = params.text("after")?;
        self.scanned()?;
        let rows = self.sync.read(|recordings, _| {
            let rows = recordings
                .values()
                .filter(|recording| after.is_none_or(|after| recording.name.as_str() > after))
                .map(|recording| self.row(recording))
                .filter(|row| filter.admits(row));
            listing::page(rows, limit)
        });
        let (recordings, has_more) = rows;
        let next_after = recordings.last().filter(|_| has_more).map(|row| row.recording.clone());
        Ok(Reply::List(ListReply { head: self.head(Verb::List), recordings, next_after }))
    }

    /// Tells all of one recording, its chunks page by page.
    ///
    /// # Errors
    /// A parameter is wrong, the first scan is not done, or there is no such recording.
    pub fn info(&self, params: &Params) -> Result<Reply, Refusal> {
        params.check_names(Verb::Info)?;
        let limit = params.limit()?;
        let after = match params.text("after")? {
            None => None,
            Some(text) => Some(text.parse::<ChunkName>().map_err(|error| {
                Refusal::new(ErrorCode::InvalidParams, format!("after: {error}"))
                    .hint("hand back next_after as it came")
            })?),
        };
        let Some(name) = params.recording("recording")? else {
            let refusal = Refusal::new(ErrorCode::InvalidParams, "info needs a recording");
            return Err(refusal.hint("ask info?recording=NAME; list tells the names"));
        };
        self.scanned()?;
        let found = self.sync.read(|recordings, queue| {
            let recording = recordings.get(&name)?;
            let rows =
                recording.chunks.iter().filter(|chunk| after.is_none_or(|after| chunk.name > after)).map(|chunk| {
                    chunk_row(chunk, queue.stage(&ChunkId { recording: name.clone(), chunk: chunk.name }))
                });
            Some((self.row(recording), listing::page(rows, limit)))
        });
        let Some((row, (chunks, has_more))) = found else {
            return Err(self.no_such(name.as_str()));
        };
        let fields = self.sync.manifest(&name).map(Fields::of).unwrap_or_default();
        Ok(Reply::Info(Box::new(self.info_reply(row, chunks, has_more, fields))))
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

    fn scanned(&self) -> Result<(), Refusal> {
        if self.sync.is_scanned() {
            return Ok(());
        }
        let seen = self.sync.read(|recordings, _| recordings.len());
        let message = format!("the first scan is not done: {seen} recordings so far");
        Err(Refusal::new(ErrorCode::Unavailable, message).hint("ask again in a moment"))
    }

    fn no_such(&self, name: &str) -> Refusal {
        let names = self.sync.read(|recordings, _| recordings.keys().map(ToString::to_string).collect::<Vec<_>>());
        let hint = match nearest(name, names.iter().map(String::as_str)) {
            Some(near) => format!("did you mean {near}?"),
            None => "list tells the names of the recordings".into(),
        };
        Refusal::new(ErrorCode::NotFound, format!("there is no recording {name}")).hint(hint)
    }

    fn row(&self, recording: &Recording) -> RecordingRow {
        let (state, reason) = recording::state(&Facts {
            manifest: &recording.manifest,
            unlisted_chunks: recording.unlisted_chunks(),
            touched_at_ns: recording.touched_at_ns,
            now_ns: self.clock.wall(),
        });
        let is_proven = |chunk: &&ChunkEntry| chunk.facts.proof.is_some_and(Proof::is_proven);
        let proven = || recording.chunks.iter().filter(is_proven);
        let (chunks, uploaded_chunks) = (recording.chunks.len() as u64, proven().count() as u64);
        RecordingRow {
            recording: recording.name.to_string(),
            machine_id: recording.machine_id.to_string(),
            state,
            corrupt: recording.is_corrupt,
            upload: recording::upload_state(chunks, uploaded_chunks),
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
        (Some(Stage::Dead(_)), _) => ChunkUpload::DeadLetter,
        (_, Some(_)) => ChunkUpload::Claimed,
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
        local: chunk.facts.local,
        upload,
        proof,
        uploaded_at_ns: chunk.marked_at_ns,
        uploaded_at: twin(chunk.marked_at_ns),
        reason: match stage {
            Some(Stage::Dead(reason)) => Some(reason.to_owned()),
            Some(Stage::Waiting | Stage::InFlight) | None => None,
        },
    }
}
