//! Golden files: everything that was sent or stored stays readable, and is sent and stored in the same form.
//!
//! `golden/*.cbor` holds the exact bytes. `golden/*.json` holds the text in its indented form. The compact form on the
//! bus differs only by white space, and a difference is easier to read here.
#![allow(clippy::disallowed_methods, reason = "a blessed file is written where and when a person asks for it")]
#![allow(clippy::unwrap_used, reason = "a fixture that fails is a failed test")]

mod support;

use std::{collections::BTreeMap, fmt::Debug};

use bubbaloop_storage_schemas::{
    ChunkName, Digest, ErrorCode, ErrorReply, Verb,
    codec::{self, DecodeError, Format},
    error::Refusal,
    event::{EventHead, Fact, FinalizeEvent, StorageEvent},
    journal::{JournalEntry, JournalLine},
    manifest::{Channel, Indices, Manifest, ManifestChunk, SCHEMA_VERSION, Selection},
    reply::{
        Action, ActionKind, AdoptAction, AdoptActionKind, AdoptFinding, AdoptFindingKind, AdoptResult, AdoptedFile,
        AdoptedFrom, Blocked, ChunkLocal, ChunkRow, ChunkUpload, ConfigProblem, ConfigReply, DeadLetterRow,
        DeadLettersReply, Failing, Finding, FindingKind, HelpReply, InfoReply, JobReply, JobResult, JobRow, JobState,
        JobsReply, LibraryStatus, ListReply, OtherField, ParameterHelp, PauseReply, Paused, Probe, Progress, Proof,
        QueueStatus, ReconcileResult, RecordingRow, RecordingState, RefusedEvents, RemovalActionKind, RemovalFinding,
        RemovalFindingKind, RemovalResult, RemoveFrom, ReplyHead, Rights, Setting, StatusReply, StoreStatus,
        UploadResult, UploadState, VerbHelp,
    },
    time::twin,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::{Map, Value, json};

const FORMATS: [Format; 2] = [Format::Json, Format::Cbor];

/// A time that a float represents exactly.
const AT_NS: u64 = 1_764_000_000_000_000_000;

/// Reads bytes. Returns `Ok(true)` if the result is the expected value.
type Read = dyn Fn(&[u8], Format) -> Result<bool, DecodeError>;

/// A value on the bus or on disk, and its reader.
struct Case {
    name: &'static str,
    pretty: Vec<u8>,
    json: Vec<u8>,
    cbor: Vec<u8>,
    read: Box<Read>,
}

impl Case {
    fn new<T: PartialEq + Debug + 'static>(
        name: &'static str,
        sent: &impl Serialize,
        meant: T,
        read: fn(&[u8], Format) -> Result<T, DecodeError>,
    ) -> Self {
        Self {
            name,
            pretty: support::pretty(sent),
            json: codec::encode(sent, Format::Json).unwrap(),
            cbor: codec::encode(sent, Format::Cbor).unwrap(),
            read: Box::new(move |bytes, format| read(bytes, format).map(|value| value == meant)),
        }
    }

    fn plain<T: Serialize + DeserializeOwned + PartialEq + Debug + Clone + 'static>(
        name: &'static str,
        value: T,
    ) -> Self {
        Self::new(name, &value.clone(), value, codec::decode)
    }

    fn bytes(&self, format: Format) -> &[u8] {
        match format {
            Format::Json => &self.json,
            Format::Cbor => &self.cbor,
        }
    }

    fn value(&self) -> Value {
        serde_json::from_slice(&self.json).unwrap()
    }

    /// Reads another value instead.
    fn reads(&self, value: &Value, format: Format) -> Result<bool, DecodeError> {
        (self.read)(&codec::encode(value, format).unwrap(), format)
    }
}

fn cases() -> Vec<Case> {
    let journal = |entry| JournalLine { at_ns: AT_NS, store_id: "s3-2d711642".into(), entry };
    let (digest, chunk, etag) = (digest(), chunk_name(), "\"9dd4e461268c8034f5c8564e155c67a6\"".to_owned());
    let event = FinalizeEvent { recording: "drive_1".into(), machine_id: "robot-1".into(), chunk: finalized() };
    let header = json!({
        "schema_uri": "bubbaloop://recorder/chunk_finalized@v1", "source_instance": "recorder", "monotonic_seq": 3,
        "ts_ns": AT_NS,
    });
    vec![
        Case::new("manifest", &manifest(), manifest(), |bytes, format| match format {
            Format::Json => Manifest::parse(bytes, Indices::Contiguous)
                .map(|(manifest, _)| manifest)
                .map_err(|reasons| DecodeError::Shape(reasons.join("; "))),
            Format::Cbor => codec::decode(bytes, format),
        }),
        Case::new("finalize_event", &event, event.clone(), |bytes, format| FinalizeEvent::decode(bytes, Some(format))),
        Case::new("finalize_event_enveloped", &json!({"header": header, "body": event}), event, |bytes, _| {
            FinalizeEvent::decode(bytes, None)
        }),
        Case::plain("storage_event", storage_event()),
        Case::plain(
            "journal_line_uploaded",
            journal(JournalEntry::Uploaded {
                chunk,
                sha256: digest,
                size_bytes: 9_437_184,
                proof: Proof::Enforced,
                etag: etag.clone(),
                key: Some(format!("robot_1/drive_1/chunks/{}", chunk_name())),
            }),
        ),
        Case::plain("journal_line_gone", journal(JournalEntry::Gone { chunk })),
        Case::plain(
            "journal_line_published",
            journal(JournalEntry::Published {
                key: "robot_1/drive_1/manifest.json".into(),
                recording: "drive_1".parse().unwrap(),
                sha256: digest,
                wanted: digest,
                etag,
            }),
        ),
        Case::plain("journal_line_corrupt", journal(JournalEntry::Corrupt { reason: "2 chunks are lost".into() })),
        Case::plain("journal_line_healed", journal(JournalEntry::Healed)),
        Case::plain("journal_line_withdrawn", journal(JournalEntry::Withdrawn)),
        Case::plain("journal_line_removal_begun", journal(JournalEntry::RemovalBegun)),
        Case::plain("journal_line_offered", journal(JournalEntry::Offered)),
        Case::plain("journal_line_restored", journal(JournalEntry::Restored { chunk })),
        Case::plain("error_reply", error_reply()),
        Case::plain("help_reply", help_reply()),
        Case::plain("list_reply", list_reply()),
        Case::plain("info_reply", info_reply()),
        Case::plain("status_reply", status_reply()),
        Case::plain("config_reply", config_reply()),
        Case::plain("dead_letters_reply", dead_letters_reply()),
        Case::plain("job_reply", job_reply()),
        Case::plain("jobs_reply", jobs_reply()),
        Case::plain("pause_reply", pause_reply()),
        Case::plain("reconcile_result", reconcile_result()),
        Case::plain("adopt_result", adopt_result()),
        Case::plain("adopted_from", adopted_from()),
        Case::plain("removal_result", removal_result()),
    ]
}

#[test]
fn the_golden_files_are_what_is_sent() {
    let files = cases()
        .into_iter()
        .flat_map(|case| [(format!("{}.json", case.name), case.pretty), (format!("{}.cbor", case.name), case.cbor)]);
    support::assert_checked_in("golden", &files.collect::<BTreeMap<_, _>>());
}

#[test]
fn every_sent_value_is_read_back_as_the_same_value() {
    for case in cases() {
        assert_eq!((case.read)(&case.pretty, Format::Json), Ok(true), "{} indented", case.name);
        for format in FORMATS {
            assert_eq!((case.read)(case.bytes(format), format), Ok(true), "{} {format:?}", case.name);
        }
    }
}

#[test]
fn a_value_cut_at_any_length_is_refused() {
    for case in cases() {
        for format in FORMATS {
            let bytes = case.bytes(format);
            for end in 0..bytes.len() {
                assert!((case.read)(&bytes[..end], format).is_err(), "{} {format:?} {end}", case.name);
            }
        }
    }
}

#[test]
fn a_value_with_trailing_bytes_is_refused() {
    for case in cases() {
        for format in FORMATS {
            for more in [&b"0"[..], b"\0", b"}", case.bytes(format)] {
                let bytes = [case.bytes(format), more].concat();
                assert!((case.read)(&bytes, format).is_err(), "{} {format:?} {more:?}", case.name);
            }
        }
    }
}

#[test]
fn unknown_fields_of_a_later_version_are_accepted() {
    fn add_everywhere(value: &mut Value) {
        match value {
            Value::Object(fields) => {
                fields.values_mut().for_each(add_everywhere);
                fields.insert("added_later".into(), json!({"a": [1, -2.5, null], "b": AT_NS}));
            }
            Value::Array(values) => values.iter_mut().for_each(add_everywhere),
            _ => {}
        }
    }
    for case in cases() {
        let mut value = case.value();
        add_everywhere(&mut value);
        for format in FORMATS {
            assert!(case.reads(&value, format).is_ok(), "{} {format:?}", case.name);
            if case.name == "manifest" {
                let bytes = codec::encode(&value, format).unwrap();
                let kept: Manifest = codec::decode(&bytes, format).unwrap();
                assert_eq!(serde_json::to_value(kept).unwrap(), value, "{format:?}");
            }
        }
    }
}

#[test]
fn times_as_floats_are_accepted() {
    fn to_floats(value: &mut Value) {
        match value {
            Value::Object(fields) => fields.values_mut().for_each(to_floats),
            Value::Array(values) => values.iter_mut().for_each(to_floats),
            Value::Number(number) => *value = number.as_f64().into(),
            _ => {}
        }
    }
    for case in cases().iter().filter(|case| case.name == "manifest" || case.name.starts_with("finalize_event")) {
        let mut value = case.value();
        to_floats(&mut value);
        for format in FORMATS {
            assert_eq!(case.reads(&value, format), Ok(true), "{} {format:?}", case.name);
        }
    }
}

#[test]
fn a_manifest_of_an_older_or_minimal_recorder_loads() {
    let bare = json!({"schema_version": 1, "name": "drive_1", "machine_id": "robot_1", "started_at_ns": AT_NS});
    let mut with_nulls = serde_json::to_value(Manifest { other: Map::new(), ..manifest() }).unwrap();
    for (name, value) in with_nulls.as_object_mut().unwrap() {
        *value = bare[name].clone();
    }
    let mut saved = bare.clone();
    saved["chunks"] = json!([]);
    for text in [bare.to_string(), with_nulls.to_string()] {
        let (manifest, checked) = Manifest::parse(text.as_bytes(), Indices::Contiguous).unwrap();
        assert_eq!(checked.chunks, [], "{text}");
        assert_eq!(serde_json::to_value(&manifest).unwrap(), saved, "{text}");
    }
}

fn digest() -> Digest {
    Digest::of(b"chunk 3")
}

fn chunk_name() -> ChunkName {
    ChunkName::new(0, &digest())
}

/// Returns a chunk as in a finalize event.
fn finalized() -> ManifestChunk {
    ManifestChunk {
        name: chunk_name().to_string(),
        index: 0,
        size_bytes: 9_437_184,
        sha256: digest().to_string(),
        log_time_first_ns: Some(AT_NS),
        log_time_last_ns: Some(AT_NS + 1024),
        ..ManifestChunk::default()
    }
}

fn manifest() -> Manifest {
    Manifest {
        schema_version: SCHEMA_VERSION,
        name: "drive_1".into(),
        machine_id: "robot_1".into(),
        started_at_ns: AT_NS,
        ended_at_ns: Some(AT_NS + 2048),
        duration_ns: Some(2048),
        size_bytes: Some(9_437_184),
        mode: Some("ring_buffer".into()),
        window_secs: Some(30),
        trigger: Some("on-event".into()),
        selection: Some(Selection {
            topics: vec!["camera/**".into()],
            regex: Some("^camera/(left|right)$".into()),
            exclude: Some(json!(["camera/raw"])),
            include_local: Some(true),
            other: Map::new(),
        }),
        profile_name: Some("outdoor".into()),
        profile_sha256: Some(Digest::of(b"profile").to_string()),
        recorder_version: Some("0.1.0".into()),
        tags: vec!["night".into(), "r\u{e9}p\u{e9}t\u{e9} \u{1f916}".into()],
        fleet_router: Some("tcp/10.0.0.1:7447".into()),
        corrupt: Some(false),
        channels: vec![Channel {
            topic: "camera/left".into(),
            channel_id: Some(1),
            message_encoding: Some("cbor".into()),
            zenoh_encoding: Some("application/cbor".into()),
            message_count: Some(900),
            schema_name: Some("Frame".into()),
            publish_time_first_ns: Some(AT_NS),
            publish_time_last_ns: Some(AT_NS + 1024),
            other: Map::new(),
        }],
        chunks: vec![ManifestChunk {
            uploaded_at_ns: Some(AT_NS + 4096),
            remote_etag: Some("\"9dd4e461268c8034f5c8564e155c67a6\"".into()),
            ..finalized()
        }],
        other: Map::from_iter([("fps".into(), json!(29.97))]),
    }
}

fn storage_event() -> StorageEvent {
    StorageEvent {
        head: EventHead { library_id: "lib_1".into(), boot_id: "boot_1".into(), seq: 7, at_ns: AT_NS },
        machine_id: "robot_1".parse().unwrap(),
        fact: Fact::ChunkUploaded {
            recording: "drive_1".parse().unwrap(),
            chunk: chunk_name(),
            size_bytes: 9_437_184,
            sha256: digest().to_string(),
            proof: Proof::EtagMd5,
            etag: "\"9dd4e461268c8034f5c8564e155c67a6\"".into(),
        },
    }
}

fn head(verb: Verb) -> ReplyHead {
    ReplyHead { machine_id: "robot_1".parse().unwrap(), library_id: "lib_1".into(), verb }
}

fn refusal() -> Refusal {
    Refusal::new(ErrorCode::Unavailable, "the store does not answer").hint("wait, or look at the network")
}

fn error_reply() -> ErrorReply {
    ErrorReply {
        machine_id: "robot_1".into(),
        library_id: "lib_1".into(),
        verb: Some("upload".into()),
        refusal: refusal(),
    }
}

fn help_reply() -> HelpReply {
    let help = |verb: Verb| VerbHelp {
        name: verb.into(),
        key: format!("bubbaloop/robot_1/storage/{verb}"),
        role: verb.role().into(),
        summary: verb.summary().into(),
        parameters: verb
            .parameters()
            .iter()
            .map(|param| ParameterHelp {
                name: param.name.into(),
                kind: param.kind.into(),
                summary: param.description(),
            })
            .collect(),
    };
    HelpReply { head: head(Verb::Help), verbs: Verb::ALL.map(help).into() }
}

fn list_reply() -> ListReply {
    let row = RecordingRow {
        recording: "drive_1".into(),
        machine_id: "robot_1".into(),
        state: RecordingState::Ended.into(),
        corrupt: false,
        upload: UploadState::Partial.into(),
        chunks: 2,
        uploaded_chunks: 1,
        size_bytes: 18_874_368,
        uploaded_bytes: 9_437_184,
        started_at: twin(Some(AT_NS)),
        started_at_ns: Some(AT_NS),
        ended_at: None,
        ended_at_ns: None,
        tags: vec!["night".into()],
        reason: None,
    };
    ListReply { head: head(Verb::List), recordings: vec![row], next_after: Some("drive_1".into()) }
}

fn info_reply() -> InfoReply {
    let chunk = ChunkRow {
        index: 0,
        name: chunk_name(),
        size_bytes: 9_437_184,
        sha256: Some(digest().to_string()),
        log_time_first_ns: Some(AT_NS),
        log_time_last_ns: None,
        listed: true,
        local: ChunkLocal::Present.into(),
        upload: ChunkUpload::Uploaded.into(),
        proof: Some(Proof::ReadBack.into()),
        uploaded_at_ns: Some(AT_NS),
        uploaded_at: twin(Some(AT_NS)),
        reason: None,
    };
    InfoReply {
        head: head(Verb::Info),
        recording: "drive_1".into(),
        recording_machine_id: "robot_1".into(),
        state: RecordingState::Invalid.into(),
        corrupt: true,
        upload: UploadState::Complete.into(),
        chunk_count: 1,
        uploaded_chunks: 1,
        size_bytes: 9_437_184,
        uploaded_bytes: 9_437_184,
        started_at: twin(Some(AT_NS)),
        started_at_ns: Some(AT_NS),
        ended_at: twin(Some(AT_NS)),
        ended_at_ns: Some(AT_NS),
        tags: vec![],
        reason: Some("unknown schema_version 2".into()),
        manifest_fields: Map::from_iter([("mode".into(), json!("streaming")), ("window_secs".into(), json!(30))]),
        other_fields: vec![OtherField { name: "fps".into(), value: json!(29.97) }],
        fields_left_out: false,
        chunks: vec![chunk],
        next_after: None,
    }
}

fn status_reply() -> StatusReply {
    StatusReply {
        upload_window: None,
        disk_low_bytes: 0,
        head: head(Verb::Status),
        safe: false,
        at_risk_bytes: 9_437_184,
        at_risk_chunks: 1,
        oldest_at_risk_at_ns: Some(AT_NS),
        oldest_at_risk_at: twin(Some(AT_NS)),
        upload_rate_bytes_per_s: 250_000,
        disk_full_in_s: Some(86_400),
        disk_free_bytes: Some(1 << 40),
        paused: Some(Paused { since_ns: AT_NS, until_ns: None }),
        blocked: Some(Blocked { reason: "credentials".into(), since_ns: AT_NS, hint: "renew the key".into() }),
        failing: Some(Failing { message: "the store gives no answer".into(), since_ns: AT_NS }),
        queue: QueueStatus { waiting: 3, in_flight: 1, in_flight_bytes: 9_437_184, next_try_in_ms: Some(5000) },
        dead_letters: 1,
        refused_events: RefusedEvents { total: 5, foreign: 1, illegal: 1, missing: 1, mismatch: 1, undecodable: 1 },
        clock_offset_ms: Some(-1500),
        twins: vec!["lib_2".into()],
        durable: true,
        store: StoreStatus {
            backend: Some("r2".into()),
            store_id: Some("s3-2d711642".into()),
            same_disk: Some(false),
            probe: Some(Probe {
                enforces_sha256: true,
                tells_sha256: true,
                etag_is_md5: false,
                honours_create_only: true,
                honours_if_match: false,
                clock_offset_ms: Some(-1500),
                rights: Rights { delete: false, ..Rights::ALL },
            }),
        },
        library: LibraryStatus { scanned: true, recordings: 1, chunks: 2, uploaded_chunks: 1 },
        config_problems: vec![ConfigProblem {
            key: "concurrency".into(),
            source: "config.toml".into(),
            message: "not a whole number".into(),
            hint: "write 1 to 64".into(),
        }],
        version: "0.1.0".into(),
        started_at: twin(Some(AT_NS)).unwrap(),
        started_at_ns: AT_NS,
    }
}

fn config_reply() -> ConfigReply {
    let setting = |key: &str, value, source: &str| Setting { key: key.into(), value, source: source.into() };
    ConfigReply {
        head: head(Verb::Config),
        settings: vec![
            setting("concurrency", json!(4), "default"),
            setting("priority_tags", json!(["crash"]), "config.toml"),
            setting("secret_access_key", json!("set"), "secrets.toml"),
            setting("session_token", Value::Null, "default"),
        ],
    }
}

fn dead_letters_reply() -> DeadLettersReply {
    let letter = DeadLetterRow {
        recording: "drive_1".parse().unwrap(),
        chunk: chunk_name(),
        size_bytes: 9_437_184,
        reason: "the file is damaged".into(),
        attempts: 1,
        last_tried_at: twin(Some(AT_NS)).unwrap(),
        last_tried_at_ns: AT_NS,
    };
    DeadLettersReply { head: head(Verb::DeadLetters), dead_letters: vec![letter], next_after: None }
}

fn reconcile_result() -> ReconcileResult {
    let recording = "drive_1".parse().unwrap();
    let lost = Finding::new(FindingKind::Lost, &recording, Some(chunk_name()), "its file is missing".into());
    let upload = Action::new(ActionKind::Upload, &recording, Some(chunk_name()), "the store does not hold it".into());
    let corrupt = Action::new(ActionKind::MarkCorrupt, &recording, None, "1 chunk is lost".into());
    let mut result = ReconcileResult::default();
    (result.counts.recordings, result.counts.chunks, result.counts.proven_chunks) = (1, 3, 2);
    result.add(vec![lost], vec![upload, corrupt]);
    result
}

fn adopt_result() -> AdoptResult {
    let mut result = AdoptResult::default();
    result.adopted(&"drive_1".parse().unwrap(), 2);
    result.find(AdoptFinding {
        kind: AdoptFindingKind::Lost,
        source: "drive_1".into(),
        file: Some("drive_1_chunk_001.mcap".into()),
        message: "its last 7 bytes are not whole".into(),
    });
    result.act(AdoptAction {
        kind: AdoptActionKind::Link,
        recording: "drive_1".parse().unwrap(),
        file: Some("drive_1_chunk_000.mcap".into()),
        message: "it has a second name".into(),
    });
    (result.counts.recovered_messages, result.counts.lost_bytes) = (12, 7);
    result
}

fn removal_result() -> RemovalResult {
    let mut result = RemovalResult::new(RemoveFrom::Both, false);
    result.act(RemovalActionKind::Withdraw, "drive_1");
    result.act(RemovalActionKind::RemoveObject, format!("robot_1/drive_1/chunks/{}", chunk_name()));
    result.act(RemovalActionKind::RemoveFile, "uploads.jsonl");
    result.find(RemovalFinding {
        kind: RemovalFindingKind::Stays,
        chunk: None,
        path: Some("chunks/notes.txt".into()),
        message: "it is no file of the recording".into(),
    });
    (result.counts.removed_objects, result.counts.removed_object_bytes) = (1, 9);
    result
}

fn adopted_from() -> AdoptedFrom {
    let file = AdoptedFile {
        file: "drive_1_chunk_001.mcap".into(),
        size_bytes: 9,
        mtime_ns: AT_NS,
        sha256: Digest::of(b"x"),
        outside: false,
        recovered: true,
    };
    AdoptedFrom {
        source: "drive_1".into(),
        machine_id: Some("robot_2".into()),
        adopted_at_ns: AT_NS,
        files: vec![file],
    }
}

#[test]
fn a_job_result_is_read_as_the_type_of_its_verb() {
    let results = [
        JobResult::Removal(Box::new(RemovalResult::new(RemoveFrom::Local, true))),
        JobResult::Removal(Box::new(removal_result())),
        JobResult::Adopt(Box::default()),
        JobResult::Adopt(Box::new(adopt_result())),
        JobResult::Reconcile(Box::default()),
        JobResult::Reconcile(Box::new(reconcile_result())),
        JobResult::Upload(UploadResult::default()),
    ];
    for result in results {
        let text = serde_json::to_vec(&result).unwrap();
        assert_eq!(serde_json::from_slice::<JobResult>(&text).unwrap(), result);
    }
}

fn job_reply() -> JobReply {
    JobReply { machine_id: "robot_1".parse().unwrap(), library_id: "lib_1".into(), row: job_row() }
}

fn jobs_reply() -> JobsReply {
    JobsReply { head: head(Verb::Jobs), jobs: vec![job_row()], next_after: None }
}

fn pause_reply() -> PauseReply {
    PauseReply { head: head(Verb::Pause), paused: Some(Paused { since_ns: AT_NS, until_ns: Some(AT_NS) }) }
}

fn job_row() -> JobRow {
    JobRow {
        job: "01KAV3ZJ4R8X0Q5T2W7Y9B1C3D".into(),
        verb: Verb::Upload.into(),
        recording: Some("drive_1".parse().unwrap()),
        state: JobState::Failed.into(),
        progress: Progress { chunks_done: 2, chunks_total: 2, bytes_done: 18_874_368, bytes_total: 18_874_368 },
        blocked: None,
        result: Some(JobResult::Upload(UploadResult { uploaded_chunks: 1, failed_chunks: 1 })),
        error: Some(refusal()),
    }
}
