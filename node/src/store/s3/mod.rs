//! An S3 bucket, by any of its providers.
//!
//! Providers differ by a table in `settings` and by what the probe finds out, not by code paths. `errors` is the one
//! place where a failure gets its meaning, `requests` the one that sends. Before the probe ran, the store is taken to
//! honour conditions and to tell no digest of its own.

use std::{
    fmt,
    ops::Range,
    path::PathBuf,
    str::FromStr,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use async_trait::async_trait;
use aws_config::BehaviorVersion;
use aws_sdk_s3::{
    Client, Config,
    config::{
        Credentials as SdkCredentials, Region, RequestChecksumCalculation, ResponseChecksumValidation,
        SharedCredentialsProvider, StalledStreamProtectionConfig, retry::RetryConfig,
    },
    operation::get_object::GetObjectOutput,
    primitives::ByteStream,
};
use bubbaloop_storage_schemas::{MachineId, keys::ObjectKey, limits::CHUNK_BYTES_MAX, reply::Probe};
use bytes::Bytes;
use tokio::sync::mpsc;

use self::{
    errors::StoreNames,
    http::Http,
    requests::{Condition, ObjectInfo, etag},
    settings::{Credentials, Patience, S3Settings},
    time::StoreTime,
};
use super::{
    backend::{Backend, Checked, OpenError, OpenRequest, Opened, Problem, StoreSettings},
    port::{
        Body, MultipartStore, ObjectBody, ObjectMeta, ObjectStore, PROBE_FOLDER, Page, PartSupport, PutMode,
        StoreError, StoreErrorKind, Stored,
    },
    throttle::Throttle,
};
use crate::clock::Clock;

mod body;
mod errors;
mod http;
mod multipart;
mod probe;
mod requests;
pub mod settings;
mod time;

/// What the log need not hear of the SDK: a connection that broke is told with the request that it broke.
pub const QUIET: &str = "aws_smithy_runtime=off";

/// Blocks of an object that are read ahead of whoever takes them.
const BLOCKS_AHEAD: usize = 2;

/// The backends that speak S3.
#[derive(Debug)]
pub struct S3Backend;

#[async_trait]
impl Backend for S3Backend {
    fn names(&self) -> &'static [&'static str] {
        &["s3", "r2", "gcs", "minio"]
    }

    fn required(&self) -> &'static [(&'static str, &'static str)] {
        // It depends on the provider: `check` decides.
        &[]
    }

    fn check(&self, settings: &StoreSettings, machine_id: &MachineId) -> Checked {
        S3Settings::of(settings, machine_id).check()
    }

    async fn open(&self, settings: &StoreSettings, request: &OpenRequest<'_>) -> Result<Opened, OpenError> {
        let settings = S3Settings::of(settings, request.machine_id);
        let store = S3Store::open(&settings, Arc::clone(request.clock)).await.map_err(OpenError::Settings)?;
        let store = store.throttled(Arc::clone(request.throttle));
        Ok(Opened { store: Arc::new(store), id: settings.store_id(), mark: None })
    }

    fn folder(&self, _: &StoreSettings) -> Option<PathBuf> {
        None
    }

    fn place(&self, _: &StoreSettings) -> Option<String> {
        None
    }
}

/// The store in a bucket.
pub struct S3Store {
    client: Client,
    bucket: String,
    /// Begins every key; empty, or with a `/` at its end.
    prefix: String,
    /// Where the probe's objects go.
    probe_folder: String,
    /// The endpoint, for hints.
    endpoint: String,
    time: StoreTime,
    patience: Patience,
    throttle: Arc<Throttle>,
    found: Mutex<Option<Probe>>,
    /// What it does with parts, once that was asked; after the next probe it is found out anew.
    parts_found: Mutex<Option<PartSupport>>,
    /// Held by whoever finds that out.
    finding_parts: tokio::sync::Mutex<()>,
    /// Held by the one probe that runs, with how the last one ended: uploads that begin together ask
    /// for a probe together, and probes at once would find each other's objects.
    probing: tokio::sync::Mutex<Option<Result<Probe, StoreError>>>,
    /// How many have ended.
    probes: AtomicU64,
}

impl fmt::Debug for S3Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { bucket, prefix, endpoint, .. } = self;
        write!(f, "S3Store({endpoint} {bucket}/{prefix})")
    }
}

impl S3Store {
    /// Makes the store of these settings. Nothing is sent, but ambient credentials may be looked for on the disk.
    ///
    /// # Errors
    /// All that is wrong with the settings, at once.
    pub async fn open(settings: &S3Settings, clock: Arc<dyn Clock>) -> Result<Self, Vec<Problem>> {
        let mut problems = settings.check().problems;
        let time = StoreTime::new(Arc::clone(&clock));
        let http = Http::new(settings.ca_file.as_deref(), settings.patience, time.clone());
        let http = http.map_err(|problem| problems.push(problem)).ok();
        let (Some(http), Some(region), true) = (http, settings.region(), problems.is_empty()) else {
            return Err(problems);
        };
        let region = Region::new(region.to_owned());
        let credentials = credentials(&settings.credentials, &http, &region).await?;
        let mut config = Config::builder()
            .behavior_version(BehaviorVersion::latest())
            .http_client(http)
            .time_source(time.clone())
            // The one correction of the clock is `StoreTime`'s: the SDK's believes every answer's `Date`.
            .disable_clock_skew_correction(true)
            .region(region)
            .credentials_provider(credentials)
            .force_path_style(settings.is_path_style())
            // There is one retry loop, and it is not here.
            .retry_config(RetryConfig::disabled())
            // Our own SHA-256 goes along. Trailers, the SDK's default, are refused or stored as content by some stores.
            .request_checksum_calculation(RequestChecksumCalculation::WhenRequired)
            .response_checksum_validation(ResponseChecksumValidation::WhenRequired)
            // `Patience` watches every wait, the ones for a handshake and for an answer too, which the SDK's does not.
            .stalled_stream_protection(StalledStreamProtectionConfig::disabled());
        config.set_endpoint_url(settings.endpoint().map(str::to_owned));
        let prefix = if settings.prefix.is_empty() { String::new() } else { format!("{}/", settings.prefix) };
        Ok(Self {
            client: Client::from_conf(config.build()),
            bucket: settings.bucket.clone(),
            probe_folder: format!("{prefix}{}/{PROBE_FOLDER}/", settings.machine_id),
            prefix,
            endpoint: settings.endpoint().unwrap_or(settings.provider.name()).to_owned(),
            throttle: Arc::new(Throttle::new(Arc::clone(&clock))),
            time,
            patience: settings.patience,
            found: Mutex::new(None),
            parts_found: Mutex::new(None),
            finding_parts: tokio::sync::Mutex::new(()),
            probing: tokio::sync::Mutex::new(None),
            probes: AtomicU64::new(0),
        })
    }

    /// Lets the bytes of uploads go no faster than `throttle` says.
    #[must_use]
    pub fn throttled(self, throttle: Arc<Throttle>) -> Self {
        Self { throttle, ..self }
    }

    fn found(&self) -> Option<Probe> {
        *self.found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn parts_found(&self) -> Option<PartSupport> {
        *self.parts_found.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note_parts(&self, found: Option<PartSupport>) {
        *self.parts_found.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }

    fn names(&self) -> StoreNames<'_> {
        StoreNames { bucket: &self.bucket, endpoint: &self.endpoint }
    }

    fn full(&self, key: &ObjectKey) -> String {
        format!("{}{key}", self.prefix)
    }

    fn probe_key(&self, name: &str) -> String {
        format!("{}{name}", self.probe_folder)
    }

    /// A digest is told only where the probe saw that the store finds it out itself.
    fn meta(&self, key: &ObjectKey, seen: ObjectInfo) -> ObjectMeta {
        let is_its_own = self.found().is_some_and(|found| found.tells_sha256);
        let checks_parts = self.parts_found() == Some(PartSupport::Checked);
        let ObjectInfo { size_bytes, etag, told_digest, told_parts } = seen;
        let (digest, parts) = (told_digest.filter(|_| is_its_own), told_parts.filter(|_| is_its_own && checks_parts));
        ObjectMeta { key: key.clone(), size_bytes, etag, digest, parts }
    }

    /// Returns the condition for the store, having looked itself where the store is known to pass conditions over: a
    /// look and then a put, which is right for one node per prefix and not for two.
    async fn condition<'a>(&self, key: &str, mode: &'a PutMode) -> Result<Condition<'a>, StoreError> {
        let found = self.found();
        match mode {
            PutMode::Overwrite => Ok(Condition::None),
            PutMode::Create if found.is_none_or(|found| found.honours_create_only) => Ok(Condition::Absent),
            PutMode::Update(etag) if found.is_none_or(|found| found.honours_if_match) => Ok(Condition::Version(etag)),
            PutMode::Create => match self.seen(key).await? {
                None => Ok(Condition::None),
                Some(_) => Err(StoreError::new(StoreErrorKind::AlreadyExists, format!("{key} is there already"))),
            },
            PutMode::Update(etag) => match self.seen(key).await? {
                Some(seen) if seen.etag == *etag => Ok(Condition::None),
                Some(_) | None => {
                    let message = format!("{key} is not the version {etag} any more");
                    Err(StoreError::new(StoreErrorKind::Changed, message))
                }
            },
        }
    }

    /// Reads a range. Some stores answer one with the whole object, or without saying how large that is.
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Option<ObjectBody>, StoreError> {
        let full = self.full(key);
        let Some(seen) = self.seen(&full).await? else { return Ok(None) };
        let size_bytes = seen.size_bytes;
        let range = range.start.min(size_bytes)..range.end.min(size_bytes);
        let meta = self.meta(key, seen);
        if range.is_empty() {
            let (_, blocks) = mpsc::channel(1);
            return Ok(Some(ObjectBody::new(meta, blocks)));
        }
        let Some((answer, etag)) = self.opened(&full, Some(range.clone())).await? else { return Ok(None) };
        if etag != meta.etag {
            let message = format!("{key} changed while it was read");
            return Err(StoreError::new(StoreErrorKind::Retry { after: None }, message));
        }
        let length = length(&answer);
        let wanted = range.end - range.start;
        let skipped = if length == size_bytes && length != wanted { range.start } else { 0 };
        Ok(Some(self.stream(meta, answer.body, skipped, wanted)))
    }

    /// Hands on `wanted` bytes of what comes after `skipped` ones.
    fn stream(&self, meta: ObjectMeta, body: ByteStream, skipped: u64, wanted: u64) -> ObjectBody {
        let (sender, receiver) = mpsc::channel(BLOCKS_AHEAD);
        let (key, patience) = (meta.key.clone(), self.patience);
        tokio::spawn(async move {
            if let Err(words) = pump(body, skipped, wanted, patience, &sender).await {
                let message = format!("can't read {key} to its end: {words}");
                // A reader that is gone has no use for the error.
                sender.send(Err(StoreError::new(StoreErrorKind::Retry { after: None }, message))).await.ok();
            }
        });
        ObjectBody::new(meta, receiver)
    }
}

async fn pump(
    mut body: ByteStream,
    mut skipped: u64,
    mut wanted: u64,
    patience: Patience,
    blocks: &mpsc::Sender<Result<Bytes, StoreError>>,
) -> Result<(), String> {
    while wanted > 0 {
        let next = tokio::time::timeout(patience.stall, body.next()).await.map_err(|_| "no byte came in time")?;
        let mut block = next.ok_or("it ends too early")?.map_err(|error| error.to_string())?;
        let passed = usize::try_from(skipped).unwrap_or(usize::MAX).min(block.len());
        let mut block = block.split_off(passed);
        skipped -= passed as u64;
        block.truncate(usize::try_from(wanted).unwrap_or(usize::MAX));
        wanted -= block.len() as u64;
        if !block.is_empty() && blocks.send(Ok(block)).await.is_err() {
            return Ok(());
        }
    }
    Ok(())
}

fn length(answer: &GetObjectOutput) -> u64 {
    answer.content_length().and_then(size_of).unwrap_or(0)
}

/// Reads a size that a store tells. None is larger than an object can be: sums of sizes stay within their type.
fn size_of(told: i64) -> Option<u64> {
    Some(u64::try_from(told).ok()?.min(CHUNK_BYTES_MAX))
}

async fn credentials(
    credentials: &Credentials,
    http: &Http,
    region: &Region,
) -> Result<SharedCredentialsProvider, Vec<Problem>> {
    match credentials {
        Credentials::Static { access_key_id, secret_access_key, session_token } => {
            let token = session_token.as_ref().map(|token| token.expose().to_owned());
            let secret = secret_access_key.expose();
            Ok(SharedCredentialsProvider::new(SdkCredentials::new(access_key_id, secret, token, None, "settings")))
        }
        Credentials::Ambient => {
            // Only who the node is comes from the machine; where it sends does not.
            let loader = aws_config::defaults(BehaviorVersion::latest()).http_client(http.clone());
            let ambient = loader.region(region.clone()).load().await;
            ambient.credentials_provider().ok_or_else(|| {
                let hint = "set credentials = \"static\" with keys in secrets.toml";
                vec![Problem::new("credentials", "this machine offers no credentials", hint)]
            })
        }
    }
}

/// Says an error of a probe to another one who waited for it.
fn again(error: &StoreError) -> StoreError {
    let kind = match &error.kind {
        StoreErrorKind::Blocked(block) => StoreErrorKind::Blocked(block.clone()),
        StoreErrorKind::Retry { after } => StoreErrorKind::Retry { after: *after },
        _ => StoreErrorKind::Rejected,
    };
    StoreError::new(kind, error.message.clone())
}

#[async_trait]
impl ObjectStore for S3Store {
    async fn put(&self, key: &ObjectKey, body: &Body, mode: PutMode) -> Result<Stored, StoreError> {
        let full = self.full(key);
        let condition = self.condition(&full, &mode).await?;
        let wants_md5 = self.found().is_some_and(|found| found.etag_is_md5 && !found.enforces_sha256);
        let digest = body.digest();
        let sent = self.timed(|| self.put_once(&full, body, digest, condition, wants_md5)).await;
        sent.map_err(|failed| {
            let doing = format!("store {full}");
            let absent = || StoreError::new(StoreErrorKind::Rejected, format!("can't {doing}: it can't be there"));
            self.told(condition.request(), &doing, failed).unwrap_or_else(absent)
        })
    }

    async fn get(&self, key: &ObjectKey, range: Option<Range<u64>>) -> Result<Option<ObjectBody>, StoreError> {
        if let Some(range) = range {
            return self.get_range(key, range).await;
        }
        let Some((answer, etag)) = self.opened(&self.full(key), None).await? else { return Ok(None) };
        let size_bytes = length(&answer);
        let meta = self.meta(key, ObjectInfo { size_bytes, etag, told_digest: None, told_parts: None });
        Ok(Some(self.stream(meta, answer.body, 0, size_bytes)))
    }

    async fn head(&self, key: &ObjectKey) -> Result<Option<ObjectMeta>, StoreError> {
        let seen = self.seen(&self.full(key)).await?;
        Ok(seen.map(|seen| self.meta(key, seen)))
    }

    async fn list(&self, prefix: &str, after: Option<&str>, limit: usize) -> Result<Page, StoreError> {
        let after = after.map(|after| format!("{}{after}", self.prefix));
        let answer = self.listed(&format!("{}{prefix}", self.prefix), after.as_deref(), limit).await?;
        let last = answer.contents().iter().filter_map(|object| object.key()).max();
        let ours = |key: &str| key.strip_prefix(&self.prefix).map(str::to_owned);
        let is_whole = answer.is_truncated() != Some(true);
        let is_on = |next: &&str| after.as_deref().is_none_or(|after| *next > after);
        let next_after = last.filter(is_on).and_then(ours).filter(|_| !is_whole);
        // What a listing leaves out without a way to ask for it must not look absent.
        if !is_whole && next_after.is_none() {
            let message = format!("the listing of {prefix:?} does not go on after {after:?}");
            return Err(StoreError::new(StoreErrorKind::Retry { after: None }, message));
        }
        let mut objects: Vec<_> = answer
            .contents()
            .iter()
            .filter_map(|object| {
                let key = ObjectKey::from_str(&ours(object.key()?)?).ok()?;
                let size_bytes = size_of(object.size()?)?;
                let etag = object.e_tag().and_then(etag).unwrap_or_default();
                Some(ObjectMeta { key, size_bytes, etag, digest: None, parts: None })
            })
            .collect();
        objects.sort_by(|one, other| one.key.cmp(&other.key));
        Ok(Page { objects, next_after })
    }

    async fn list_folders(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        let full = format!("{}{prefix}", self.prefix);
        let found = self.folders(&full).await?;
        let mut names: Vec<_> = found
            .iter()
            .filter_map(|folder| folder.strip_prefix(&full)?.strip_suffix('/'))
            .filter(|name| !name.is_empty())
            .map(str::to_owned)
            .collect();
        names.sort_unstable();
        names.dedup();
        Ok(names)
    }

    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError> {
        self.removed(&self.full(key)).await
    }

    fn clock_offset_ms(&self) -> Option<i64> {
        self.time.offset_ms()
    }

    async fn probe(&self) -> Result<Probe, StoreError> {
        let before = self.probes.load(Ordering::Acquire);
        let mut last = self.probing.lock().await;
        if self.probes.load(Ordering::Acquire) > before
            && let Some(last) = &*last
        {
            return last.as_ref().copied().map_err(again);
        }
        let found = self.find_out().await;
        *last = Some(found.as_ref().copied().map_err(again));
        self.probes.fetch_add(1, Ordering::Release);
        self.note_parts(None);
        if let Ok(found) = found {
            *self.found.lock().unwrap_or_else(PoisonError::into_inner) = Some(found);
        }
        found
    }

    fn multipart(&self) -> Option<&dyn MultipartStore> {
        Some(self)
    }
}
