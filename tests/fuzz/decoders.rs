//! Each decoder of external bytes, as a function that panics if the decoder is wrong.
//!
//! A decoder may refuse any input. An accepted value must stay the same after encoding and decoding.

use std::{
    collections::BTreeMap,
    fmt::Debug,
    fs,
    future::Future,
    io,
    io::{Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    str::FromStr,
    sync::{Arc, Mutex, OnceLock},
    thread,
    time::Duration,
};

use bubbaloop_storage::{
    bus::dispatch::Dispatch,
    clock::SystemClock,
    config::{Config, File, Files},
    library::{
        dead_letters,
        identity::{HomeLock, Identity},
        journal::Fold,
        state::NodeState,
    },
    policy::{
        intake,
        listing::{Filter, matches},
        parts::SentPart,
        window::Window,
    },
    secret::Secret,
    store::{
        Body, ObjectStore, PutMode, StoreError, StoreErrorKind,
        local::LocalStore,
        s3::{
            S3Store,
            settings::{Credentials, Patience, Provider, S3Settings},
        },
    },
};
use bubbaloop_storage_schemas::{
    ChunkName, Digest, MachineId, RecordingName, Verb,
    codec::{self, Format},
    definition::VerbDefinition,
    event::{FinalizeEvent, StorageEvent},
    journal::{JournalEntry, JournalLine},
    keys::{ObjectKey, Space},
    manifest::{Indices, Manifest},
    params::Params,
    reconcile::ReconcileResult,
    reply::{DeadLettersReply, InfoReply, JobReply, ListReply, StatusReply},
    selector,
    time::Timestamp,
    verbs::list::List,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;
use zenoh_keyexpr::keyexpr;

/// A decoder under test.
pub(crate) type Target = fn(&[u8]);

/// All decoders, by the names of their corpora.
pub(crate) const TARGETS: [(&str, Target); 14] = [
    ("manifest", manifest),
    ("finalize_event", finalize_event),
    ("journal", journal),
    ("value", value),
    ("reply", reply),
    ("selector", selector),
    ("query_key", query_key),
    ("config", config),
    ("name", name),
    ("state", state),
    ("dead_letters", dead_letters),
    ("identity", identity),
    ("seal", seal),
    ("s3_answer", s3_answer),
];

const FORMATS: [Option<Format>; 3] = [None, Some(Format::Json), Some(Format::Cbor)];

fn machine() -> MachineId {
    "robot_1".parse().unwrap()
}

/// Checks that a decoded value is the same after encoding and decoding.
fn survives<T: Serialize + DeserializeOwned + PartialEq + Debug>(value: &T) {
    for format in [Format::Json, Format::Cbor] {
        let bytes = codec::encode(value, format).unwrap();
        let again: T = codec::decode(&bytes, format).unwrap();
        assert_eq!(again, *value, "{format:?}");
    }
}

pub(crate) fn manifest(bytes: &[u8]) {
    for indices in [Indices::Contiguous, Indices::Rising] {
        let Ok((manifest, checked)) = Manifest::parse(bytes, indices) else { continue };
        let text = serde_json::to_vec(&manifest).unwrap();
        assert_eq!(Manifest::parse(&text, indices), Ok((manifest, checked)));
    }
}

pub(crate) fn finalize_event(bytes: &[u8]) {
    for format in FORMATS {
        let Ok(event) = FinalizeEvent::decode(bytes, format) else { continue };
        for format in [Format::Json, Format::Cbor] {
            let again = codec::encode(&event, format).unwrap();
            assert_eq!(FinalizeEvent::decode(&again, Some(format)).as_ref(), Ok(&event));
            assert_eq!(FinalizeEvent::decode(&again, None).as_ref(), Ok(&event));
        }
        if let Ok(announced) = intake::check(&event, &machine()) {
            assert!(announced.chunk.name.fits(&announced.chunk.digest));
        }
    }
}

pub(crate) fn journal(bytes: &[u8]) {
    let fold = Fold::read(bytes, "s").unwrap();
    // A crash leaves half a line. The lines before it are still read.
    let whole = bytes.iter().rposition(|&byte| byte == b'\n').map_or(0, |end| end + 1);
    assert_eq!(Fold::read(&bytes[..whole], "s").unwrap(), fold);
    for line in bytes.split(|&byte| byte == b'\n') {
        let Ok(line) = serde_json::from_slice::<JournalLine>(line) else { continue };
        if line.entry != JournalEntry::Unknown {
            let text = serde_json::to_vec(&line).unwrap();
            assert!(!text.contains(&b'\n'), "a line is one line");
            assert_eq!(serde_json::from_slice::<JournalLine>(&text).unwrap(), line);
        }
    }
}

pub(crate) fn value(bytes: &[u8]) {
    codec::sniff(bytes);
    for format in FORMATS {
        let Ok(value) = codec::decode_value(bytes, format) else { continue };
        for format in [Format::Json, Format::Cbor] {
            let again = codec::encode(&value, format).unwrap();
            assert_eq!(codec::decode_value(&again, Some(format)).as_ref(), Ok(&value), "{format:?}");
        }
    }
}

pub(crate) fn reply(bytes: &[u8]) {
    fn try_as<T: Serialize + DeserializeOwned + PartialEq + Debug>(bytes: &[u8]) {
        for format in [Format::Json, Format::Cbor] {
            if let Ok(reply) = codec::decode::<T>(bytes, format) {
                survives(&reply);
            }
        }
    }
    try_as::<StatusReply>(bytes);
    try_as::<ListReply>(bytes);
    try_as::<InfoReply>(bytes);
    try_as::<JobReply>(bytes);
    try_as::<DeadLettersReply>(bytes);
    try_as::<ReconcileResult>(bytes);
    try_as::<StorageEvent>(bytes);
}

/// The first line is a selector's parameters, the rest a payload.
pub(crate) fn selector(bytes: &[u8]) {
    let (line, payload) = bytes.split_at(bytes.iter().position(|&byte| byte == b'\n').unwrap_or(bytes.len()));
    let Ok(text) = std::str::from_utf8(line) else { return };
    let pairs = text.split(';').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let Ok(mut params) = selector::parse(pairs) else { return };
    if let Some(Ok(Value::Object(fields))) = payload.get(1..).map(|rest| codec::decode_value(rest, None)) {
        params.overlay(fields);
    }
    let mut again = Params::default();
    again.overlay(params.to_fields());
    assert_eq!(again, params);
    if let Ok(request) = List::parse(&params) {
        Filter::of(&request);
        assert!(request.limit.rows() > 0);
    }
    if let Ok(Some(glob)) = params.text("name") {
        matches(glob, "drive_1");
    }
    if let Ok(Some(time)) = params.time("since") {
        assert_eq!(Timestamp::parse(&time.to_rfc3339()), Some(time));
    }
    for verb in Verb::ALL {
        if let Ok(sent) = verb.normalize(&params) {
            assert_eq!(verb.normalize(&sent), Ok(sent), "what is sent is read back");
        }
        // Each reader accepts or refuses a value of any kind.
        for param in verb.parameters() {
            let read = [params.text(param.name).is_ok(), params.number(param.name).is_ok()];
            let more = [params.flag(param.name).is_ok(), params.duration(param.name).is_ok()];
            std::hint::black_box((read, more, params.recording(param.name).is_ok()));
        }
    }
}

pub(crate) fn query_key(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    std::hint::black_box(Format::of_encoding(text).is_ok());
    let Ok(key) = keyexpr::new(text) else { return };
    let dispatch = Dispatch::new(&machine());
    for space in [Space::Short, Space::Global] {
        let decision = dispatch.decide(space, key);
        assert_eq!(dispatch.decide(space, key), decision);
    }
}

/// Each setting is applied or reported as wrong, and none shows a secret.
pub(crate) fn config(bytes: &[u8]) {
    const SECRET: &str = "a-secret-that-is-never-shown";
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let secrets = format!("[storage]\nsecret_access_key = \"{SECRET}\"\n");
    let files = [
        Files { config: File::Text(text.to_owned().into()), secrets: File::Text(secrets.into()) },
        Files { config: File::Absent, secrets: File::Text(text.to_owned().into()) },
    ];
    for files in files.iter().filter(|_| !text.contains(SECRET)) {
        let config = Config::of(Path::new("/home"), files, &BTreeMap::new(), &[]);
        assert!(config.settings.live.concurrency > 0);
        assert!(!format!("{config:?}").contains(SECRET));
        assert_eq!(Config::of(Path::new("/home"), files, &BTreeMap::new(), &[]).digest, config.digest);
    }
}

pub(crate) fn name(bytes: &[u8]) {
    fn reads_back<T: FromStr + ToString + PartialEq + Debug>(text: &str) {
        if let Ok(value) = text.parse::<T>() {
            assert_eq!(value.to_string().parse::<T>().ok().as_ref(), Some(&value), "{text}");
        }
    }
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    reads_back::<MachineId>(text);
    reads_back::<RecordingName>(text);
    reads_back::<ChunkName>(text);
    reads_back::<Digest>(text);
    reads_back::<Window>(text);
    reads_back::<Verb>(text);
    if let Ok(machine) = MachineId::of_host(text) {
        assert!(machine.spellings().iter().all(|spelling| machine.is_same_machine(spelling)));
    }
    if let Ok(key) = text.parse::<ObjectKey>() {
        assert_eq!(key.as_str(), text);
        assert!(!text.starts_with('/') && !text.split('/').any(|part| part.is_empty() || part == ".."), "{text}");
    }
    if let Some(time) = Timestamp::parse(text) {
        assert_eq!(Timestamp::parse(&time.to_rfc3339()), Some(time), "{text}");
    }
}

/// Returns a folder in memory if the system has one.
fn folder() -> tempfile::TempDir {
    let memory = Path::new("/dev/shm");
    if memory.is_dir() { tempfile::tempdir_in(memory) } else { tempfile::tempdir() }.unwrap()
}

pub(crate) fn state(bytes: &[u8]) {
    let folder = folder();
    let path = folder.path().join("state.json");
    fs::write(&path, bytes).unwrap();
    let state = NodeState::load(&path);
    NodeState::update(&path, |_| ()).unwrap();
    assert_eq!(NodeState::load(&path), state);
}

pub(crate) fn dead_letters(bytes: &[u8]) {
    let folder = folder();
    let (path, settings) = (folder.path().join("dead_letter.json"), Digest::of(b"settings"));
    fs::write(&path, bytes).unwrap();
    let letters = dead_letters::load(&path, &settings);
    dead_letters::save(&path, &settings, letters.iter()).unwrap();
    assert_eq!(dead_letters::load(&path, &settings), letters);
}

pub(crate) fn identity(bytes: &[u8]) {
    let folder = folder();
    fs::create_dir(folder.path().join("storage")).unwrap();
    let path = folder.path().join("storage/identity.json");
    fs::write(&path, bytes).unwrap();
    let found = Identity::load_or_make(folder.path(), &machine()).ok();
    assert_eq!(Identity::load(folder.path()), found);
    assert_eq!(fs::read(&path).unwrap(), bytes, "whatever stands there is not replaced");
    fs::write(folder.path().join("storage/lock"), bytes).unwrap();
    std::hint::black_box(HomeLock::holder(folder.path()));
}

/// Whatever a local object's seal says, the correct digest is reported.
pub(crate) fn seal(bytes: &[u8]) {
    let folder = folder();
    let digest = Digest::of(b"object");
    let key = ObjectKey::chunk(&machine(), &"drive".parse().unwrap(), ChunkName::new(0, &digest));
    wait(async {
        let store = LocalStore::new(folder.path().join("store"));
        store.probe().await.unwrap();
        store.put(&key, &Body::Bytes("object".into()), PutMode::Create).await.unwrap();
        let seals = files(&folder.path().join("store/.bubbaloop"));
        let seals: Vec<_> = seals.iter().filter(|path| path.to_string_lossy().contains(&digest_part(&key))).collect();
        assert!(!seals.is_empty(), "there is a seal");
        seals.iter().for_each(|seal| fs::write(seal, bytes).unwrap());
        let meta = store.head(&key).await.unwrap().unwrap();
        assert_eq!((meta.digest, meta.size_bytes), (Some(digest), 6));
    });
}

fn digest_part(key: &ObjectKey) -> String {
    key.as_str().rsplit_once('/').unwrap().1.to_owned()
}

fn files(folder: &Path) -> Vec<std::path::PathBuf> {
    let entries = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn wait(future: impl Future<Output = ()>) {
    tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future);
}

/// A store whose server answers with the given bytes.
struct Answered {
    runtime: tokio::runtime::Runtime,
    store: S3Store,
    bytes: Arc<Mutex<Vec<u8>>>,
}

/// Reads the whole request, writes the answer and closes the connection.
fn answer(mut stream: TcpStream, bytes: &Mutex<Vec<u8>>) -> io::Result<()> {
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    let (mut request, mut block) = (Vec::new(), [0; 4096]);
    let is_whole = |request: &[u8]| {
        let Some(end) = request.windows(4).position(|four| four == b"\r\n\r\n") else { return false };
        let head = String::from_utf8_lossy(&request[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
        request.len() >= end + 4 + length.unwrap_or(0)
    };
    while !is_whole(&request) {
        let read = stream.read(&mut block)?;
        if read == 0 {
            return Ok(());
        }
        request.extend_from_slice(&block[..read]);
    }
    let bytes = bytes.lock().unwrap().clone();
    stream.write_all(&bytes)
}

fn answered() -> &'static Answered {
    static ANSWERED: OnceLock<Answered> = OnceLock::new();
    ANSWERED.get_or_init(|| {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let shown = Arc::clone(&bytes);
        // A client that disconnects during the answer is no error.
        thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(answer(stream, &shown))));
        let settings = S3Settings {
            provider: Provider::S3,
            endpoint: Some(endpoint),
            region: None,
            bucket: "bucket".into(),
            prefix: "fleet".into(),
            ca_file: None,
            credentials: Credentials::Static {
                access_key_id: "id".into(),
                secret_access_key: Secret::new("secret".into()),
                session_token: None,
            },
            machine_id: machine(),
            patience: Patience::default(),
        };
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let store = runtime.block_on(S3Store::open(&settings, Arc::new(SystemClock::start()))).unwrap();
        Answered { runtime, store, bytes }
    })
}

/// The first byte selects the request. The rest is the server's answer: status, headers and body.
pub(crate) fn s3_answer(bytes: &[u8]) {
    fn told<T>(result: Result<T, StoreError>) -> Option<T> {
        let error = result.map_err(|error| {
            assert!(!error.message.chars().any(char::is_control) && error.message.len() < 2000, "{error:?}");
            if let StoreErrorKind::Retry { after: Some(after) } = error.kind {
                assert!(after <= Duration::from_secs(15 * 60), "{error:?}");
            }
        });
        error.ok()
    }
    let Some((&asked, bytes)) = bytes.split_first() else { return };
    let Answered { runtime, store, bytes: shown } = answered();
    *shown.lock().unwrap() = bytes.to_vec();
    let digest = Digest::of(b"object");
    let key = ObjectKey::chunk(&machine(), &"drive".parse().unwrap(), ChunkName::new(0, &digest));
    runtime.block_on(async {
        match asked % 7 {
            0 => {
                let page = told(store.list("robot_1/", Some("robot_1/a"), 1000).await).unwrap_or_default();
                assert!(page.objects.is_sorted_by(|one, other| one.key <= other.key));
                assert!(page.objects.iter().all(|meta| meta.digest.is_none()), "a listing tells no digest");
                assert!(page.next_after.is_none_or(|next| *next > *"robot_1/a"), "it goes on");
            }
            1 => drop(told(store.head(&key).await)),
            2 => {
                if let Some(Some(object)) = told(store.get(&key, None).await) {
                    let size_bytes = object.meta.size_bytes;
                    let bytes = told(object.collect(1 << 20).await);
                    assert!(bytes.is_none_or(|bytes| bytes.len() as u64 == size_bytes), "half of it is not all");
                }
            }
            3 => {
                let body = Body::Bytes("object".into());
                let stored = told(store.put(&key, &body, PutMode::Create).await);
                assert!(stored.is_none_or(|stored| !stored.etag.is_empty()), "an answer counts only with an ETag");
            }
            4 => drop(told(store.list_folders("robot_1/").await)),
            5 => drop(told(store.multipart().unwrap().parts(&key, "upload").await)),
            _ => {
                let part = SentPart { size_bytes: 6, digest, etag: "etag".into(), etag_is_md5: false };
                let stored =
                    told(store.multipart().unwrap().complete(&key, "upload", &BTreeMap::from([(1, part)])).await);
                assert!(stored.is_none_or(|stored| !stored.etag.is_empty()), "an answer counts only with an ETag");
            }
        }
    });
}
