//! The store port of the simulated store. Each request takes time and may fail with any of the faults.

use std::{
    collections::{BTreeMap, BTreeSet},
    hash::{DefaultHasher, Hash, Hasher},
    ops::Range,
    path::Path,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, Weak,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use bubbaloop_storage::{
    content::VerifiedBlocks,
    engine::driver::Engine,
    policy::{
        parts::{ListedPart, SentPart},
        queue::{Block, ChunkId, Stage},
    },
    store::{
        Body, FilePart, MultipartStore, ObjectBody, ObjectMeta, ObjectStore, Page, PartSupport, PutMode, StoreError,
        StoreErrorKind, Stored,
    },
};
use bubbaloop_storage_schemas::{Digest, keys::ObjectKey, reply::Probe};
use bytes::Bytes;
use fastrand::Rng;
use tokio::sync::{Notify, mpsc};

use super::{
    bucket::{Begun, Bucket, Kind},
    runtime::SimClock,
    weather::Fault,
};

/// Timeout of a stalled connection.
const PATIENCE: Duration = Duration::from_secs(60);

/// The connection of one run of the node to the store. It ends with that run.
#[derive(Debug)]
pub(crate) struct Port {
    bucket: Arc<Mutex<Bucket>>,
    clock: Arc<SimClock>,
    seed: u64,
    takes_parts: bool,
    is_cut: AtomicBool,
    engine: OnceLock<Weak<Engine>>,
    /// Notified when the node is to crash.
    crash: Arc<Notify>,
}

fn error<T>(kind: StoreErrorKind, message: impl Into<String>) -> Result<T, StoreError> {
    Err(StoreError::new(kind, message))
}

fn retry<T>(message: &str) -> Result<T, StoreError> {
    error(StoreErrorKind::Retry { after: None }, message)
}

fn blocked<T>(reason: &str) -> Result<T, StoreError> {
    error(StoreErrorKind::Blocked(Block::new(reason.into(), "mend it")), reason)
}

/// Reads the bytes that an adapter would send. The last block of a damaged file is not sent.
fn read(mut blocks: VerifiedBlocks) -> Result<Bytes, StoreError> {
    let mut bytes = Vec::new();
    while let Some(block) = blocks.next_block()? {
        bytes.extend_from_slice(&block);
    }
    Ok(bytes.into())
}

fn bytes_of(body: &Body) -> Result<Bytes, StoreError> {
    match body {
        Body::Bytes(bytes) => Ok(bytes.clone()),
        Body::File { path, digest } => read(VerifiedBlocks::open(path, Some(*digest))?),
    }
}

fn part_of(path: &Path, range: &Range<u64>, digest: Digest) -> Result<Bytes, StoreError> {
    read(VerifiedBlocks::open_range(path, range, Some(digest))?)
}

fn changed(bytes: &Bytes) -> Bytes {
    let mut bytes = bytes.to_vec();
    match bytes.first_mut() {
        Some(first) => *first ^= 1,
        None => bytes.push(1),
    }
    bytes.into()
}

impl Port {
    pub(crate) fn new(
        bucket: Arc<Mutex<Bucket>>,
        clock: Arc<SimClock>,
        seed: u64,
        takes_parts: bool,
        crash: Arc<Notify>,
    ) -> Self {
        Self { bucket, clock, seed, takes_parts, is_cut: AtomicBool::new(false), engine: OnceLock::new(), crash }
    }

    /// Sets the engine of this port.
    pub(crate) fn belongs_to(&self, engine: &Arc<Engine>) {
        self.engine.set(Arc::downgrade(engine)).unwrap();
    }

    /// The node has ended: its requests are not answered.
    pub(crate) fn cut(&self) {
        self.is_cut.store(true, Ordering::Relaxed);
    }

    fn bucket(&self) -> MutexGuard<'_, Bucket> {
        self.bucket.lock().unwrap()
    }

    async fn pass(&self, time: Duration) {
        tokio::time::sleep(time).await;
        if self.is_cut.load(Ordering::Relaxed) {
            std::future::pending::<()>().await;
        }
    }

    /// Crashes the node if this is the chosen request.
    async fn crash_if_due(&self) {
        let is_due = match &mut self.bucket().crash_in {
            Some(left) => {
                let is_due = *left == 0;
                *left = left.saturating_sub(1);
                is_due
            }
            None => false,
        };
        if is_due {
            self.bucket().crash_in = None;
            self.crash.notify_one();
            std::future::pending::<()>().await;
        }
    }

    /// Returns a random generator for one request, so that an additional request elsewhere changes nothing here.
    fn chance(&self, verb: &'static str, key: &str) -> Rng {
        let mut bucket = self.bucket();
        let count = bucket.calls.entry((verb, key.to_owned())).or_default();
        *count += 1;
        let mut hasher = DefaultHasher::new();
        (self.seed, verb, key, *count).hash(&mut hasher);
        Rng::with_seed(hasher.finish())
    }

    fn begins(&self, verb: &'static str, key: &str) {
        let is_tried = matches!(verb, "put" | "begin" | "head" | "parts");
        let Some(engine) = self.engine.get().and_then(Weak::upgrade).filter(|_| is_tried) else { return };
        let Some((recording, Some(chunk))) = key.parse::<ObjectKey>().ok().and_then(|key| key.parts()) else { return };
        let id = ChunkId { recording, chunk };
        let (opens_at, is_in_flight) =
            engine.read(|_, queue| (queue.opens_at(), matches!(queue.stage(&id), Some(Stage::InFlight))));
        let (now, is_out_of_hours) = (self.clock.passed(), engine.window().is_some_and(|window| !window.is_open));
        let mut bucket = self.bucket();
        if is_out_of_hours {
            bucket.request_begins_out_of_hours(key, id.recording.as_str(), now, is_in_flight);
        }
        bucket.request_begins(key, now, opens_at, is_in_flight);
    }

    /// Carries out one request. `act` is the store's action; it is told the fault, because that may corrupt the bytes.
    async fn request<T>(
        &self,
        verb: &'static str,
        key: &str,
        act: impl FnOnce(&mut Bucket, Option<Fault>) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let mut random = self.chance(verb, key);
        let (fault, slowest) = {
            let bucket = self.bucket();
            (bucket.weather.strikes(&mut random), bucket.weather.slowest)
        };
        self.begins(verb, key);
        self.crash_if_due().await;
        let millis = u64::try_from(slowest.as_millis()).unwrap();
        self.pass(Duration::from_millis(random.u64(1..millis))).await;
        let result = match fault {
            Some(Fault::ResetBefore) => retry("reset"),
            Some(Fault::Unavailable) => retry("503"),
            Some(Fault::TooMany) => {
                let after = Some(Duration::from_secs(random.u64(1..300)));
                error(StoreErrorKind::Retry { after }, "429")
            }
            Some(Fault::Cut) if matches!(verb, "put" | "part") => retry("cut"),
            Some(Fault::Stall) => {
                self.pass(PATIENCE).await;
                retry("nothing moves")
            }
            Some(Fault::Denied) => blocked("access_denied"),
            Some(Fault::DeniedOne) if verb == "put" && key.contains("/chunks/") => blocked("access_denied"),
            Some(Fault::BucketGone) => blocked("no_such_bucket"),
            fault => act(&mut self.bucket(), fault),
        };
        self.crash_if_due().await;
        self.pass(Duration::from_millis(random.u64(0..10))).await;
        let result = match (fault, result) {
            (Some(Fault::ResetAfter), Ok(_)) => retry("reset after it was done"),
            (Some(Fault::FailedAfter), Ok(_)) => retry("500 after it was done"),
            (_, result) => result,
        };
        let mut bucket = self.bucket();
        bucket.request_ended(key, self.clock.passed(), result.as_ref().err());
        let told = result.as_ref().err().map_or("fine", |error| error.message.as_str());
        bucket.trace.add(format!("{:?} {verb} {key}: {fault:?} {told}", self.clock.passed()));
        drop(bucket);
        result
    }
}

/// Corrupts bytes in transit. A checking store refuses them, another one stores them.
fn arrived(bucket: &Bucket, bytes: Bytes, fault: Option<Fault>) -> Result<Bytes, StoreError> {
    match (fault, bucket.kind) {
        (Some(Fault::WrongBytes), Kind::Checking) => error(StoreErrorKind::BadDigest, "the bytes have another digest"),
        (Some(Fault::WrongBytes), Kind::Md5 | Kind::Naive) => Ok(changed(&bytes)),
        _ => Ok(bytes),
    }
}

#[async_trait::async_trait]
impl ObjectStore for Port {
    async fn put(&self, key: &ObjectKey, body: &Body, mode: PutMode) -> Result<Stored, StoreError> {
        self.request("put", key.as_str(), |bucket, fault| {
            let sent = bytes_of(body)?;
            // Only chunks are corrupted in transit here: nothing would repair a corrupted manifest.
            let is_chunk = matches!(body, Body::File { .. });
            let arrived = if is_chunk { arrived(bucket, sent.clone(), fault)? } else { sent.clone() };
            let is_as_sent = arrived == sent;
            let object = bucket.object(arrived);
            let etag = bucket.put(key, object, &mode)?;
            Ok(Stored { etag, etag_is_md5: bucket.kind == Kind::Md5 && is_as_sent })
        })
        .await
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Option<ObjectBody>, StoreError> {
        self.request("get", key.as_str(), |bucket, fault| {
            let Some(meta) = bucket.meta(key) else { return Ok(None) };
            let mut bytes = bucket.objects[key.as_str()].bytes.clone();
            if let Some(range) = range {
                let place = |place: u64| usize::try_from(place).unwrap().min(bytes.len());
                bytes = bytes.slice(place(range.start)..place(range.end));
            }
            let (blocks, body) = mpsc::channel(2);
            let half = bytes.len() / 2;
            let first = bytes.split_to(half);
            blocks.try_send(Ok(first)).unwrap();
            let rest = if fault == Some(Fault::Cut) { retry("cut") } else { Ok(bytes) };
            blocks.try_send(rest).unwrap();
            Ok(Some(ObjectBody::new(meta, body)))
        })
        .await
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        self.request("head", key.as_str(), |bucket, fault| {
            let meta = bucket.meta(key);
            Ok(match fault {
                Some(Fault::SaysAbsent) => None,
                Some(Fault::SaysOther) => meta.map(|meta| ObjectMeta {
                    etag: format!("other-{}", meta.etag),
                    digest: meta.digest.map(|digest| Digest::of(digest.as_bytes())),
                    ..meta
                }),
                _ => meta,
            })
        })
        .await
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        self.request("list", prefix, |bucket, fault| {
            let lies = matches!(fault, Some(Fault::SaysAbsent | Fault::SaysOther));
            let is_meant = |key: &&String| key.starts_with(prefix) && after.is_none_or(|after| key.as_str() > after);
            let mut keys: Vec<_> = bucket.objects.keys().filter(is_meant).cloned().collect();
            let is_more = keys.len() > limit;
            keys.truncate(limit);
            let next_after = keys.last().filter(|_| is_more).cloned();
            let parsed = keys.iter().filter_map(|key| key.parse().ok());
            let objects = parsed.filter_map(|key| bucket.meta(&key)).filter(|_| !lies).collect();
            Ok(Page { objects, next_after })
        })
        .await
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.request("list", prefix, |bucket, _| {
            let below = |key: &String| Some(key.strip_prefix(prefix)?.split_once('/')?.0.to_owned());
            let folders: BTreeSet<_> = bucket.objects.keys().filter_map(below).collect();
            Ok(folders.into_iter().collect())
        })
        .await
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.request("delete", key.as_str(), |bucket, _| {
            bucket.wrong.push(format!("{key} was removed"));
            bucket.objects.remove(key.as_str());
            Ok(())
        })
        .await
    }

    async fn probe(&self) -> Result<Probe, StoreError> {
        self.request("probe", "", |bucket, _| Ok(bucket.probe())).await
    }

    fn multipart(&self) -> Option<&dyn MultipartStore> {
        self.takes_parts.then_some(self)
    }
}

#[async_trait::async_trait]
impl MultipartStore for Port {
    async fn support(&self) -> Result<PartSupport, StoreError> {
        self.request("support", "", |bucket, _| {
            Ok(if bucket.kind == Kind::Checking { PartSupport::Checked } else { PartSupport::Unchecked })
        })
        .await
    }

    async fn begin(&self, key: &ObjectKey, _: Digest) -> Result<String, StoreError> {
        self.request("begin", key.as_str(), |bucket, _| {
            let id = format!("upload-{}-{}", bucket.calls[&("begin", key.to_string())], key.as_str().len());
            let id = format!("{id}-{}", Digest::of(key.as_str().as_bytes()));
            bucket.uploads.insert(id.clone(), Begun { key: key.to_string(), parts: BTreeMap::new() });
            Ok(id)
        })
        .await
    }

    async fn put_part(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        number: u32,
        part: &FilePart,
    ) -> Result<SentPart, StoreError> {
        self.request("part", &format!("{key}#{number}"), |bucket, fault| {
            let sent = part_of(&part.path, &part.range, part.digest)?;
            let size_bytes = sent.len() as u64;
            let arrived = arrived(bucket, sent.clone(), fault)?;
            let etag_is_md5 = bucket.kind == Kind::Md5 && arrived == sent;
            let object = bucket.object(arrived);
            let etag = bucket.put_part(upload_id, number, object)?;
            Ok(SentPart { size_bytes, digest: part.digest, etag, etag_is_md5 })
        })
        .await
    }

    async fn parts(&self, key: &ObjectKey, upload_id: &str) -> Result<Option<Vec<ListedPart>>, StoreError> {
        self.request("parts", key.as_str(), |bucket, _| {
            let Some(begun) = bucket.uploads.get(upload_id) else { return Ok(None) };
            let listed = |(number, part): (&u32, &super::bucket::Object)| ListedPart {
                number: *number,
                size_bytes: part.bytes.len() as u64,
                etag: Some(part.etag.clone()),
            };
            Ok(Some(begun.parts.iter().map(listed).collect()))
        })
        .await
    }

    async fn complete(
        &self,
        key: &ObjectKey,
        upload_id: &str,
        parts: &BTreeMap<u32, SentPart>,
    ) -> Result<Stored, StoreError> {
        self.request("complete", key.as_str(), |bucket, _| {
            let numbers: Vec<_> = parts.keys().copied().collect();
            let etag = bucket.complete(key, upload_id, &numbers)?;
            let etag_is_md5 = bucket.kind == Kind::Md5 && parts.values().all(|part| part.etag_is_md5);
            Ok(Stored { etag, etag_is_md5 })
        })
        .await
    }

    async fn abort(&self, key: &ObjectKey, upload_id: &str) -> Result<(), StoreError> {
        self.request("abort", key.as_str(), |bucket, _| {
            bucket.uploads.remove(upload_id);
            Ok(())
        })
        .await
    }
}
