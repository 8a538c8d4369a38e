//! The simulated store, and the checks of what must be true of it at every step.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap, VecDeque},
    time::Duration,
};

use bubbaloop_storage::{
    content::md5_of_parts,
    policy::{Tick, parts::composite},
    store::{ObjectMeta, PartsDigest, PutMode, StoreError, StoreErrorKind},
};
use bubbaloop_storage_schemas::{
    Digest,
    keys::ObjectKey,
    manifest::{Indices, Manifest},
    reply::{Probe, Rights},
};
use bytes::Bytes;
use md5::{Digest as _, Md5};

use super::weather::Weather;

/// Number of trace lines in a failure message.
const SHOWN_MAX: usize = 60;

/// How the store handles digests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// It refuses bytes with a wrong digest, and reports digests.
    Checking,
    /// It accepts all bytes; its ETags are MD5 digests.
    Md5,
    /// It accepts all bytes; neither its digests nor its ETags prove anything.
    Naive,
}

/// An object.
#[derive(Debug, Clone)]
pub(crate) struct Object {
    pub bytes: Bytes,
    pub digest: Digest,
    pub etag: String,
    pub parts: Option<PartsDigest>,
}

/// An upload in parts.
#[derive(Debug, Default)]
pub(crate) struct Begun {
    pub key: String,
    pub parts: BTreeMap<u32, Object>,
}

/// The trace: a digest of all lines, and the last lines.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    /// The folder of the run, which differs from run to run.
    pub folder: String,
    lines: u64,
    hash: Option<Digest>,
    last: VecDeque<String>,
}

impl Trace {
    pub(crate) fn add(&mut self, line: String) {
        let line = if self.folder.is_empty() { line } else { line.replace(&self.folder, "~") };
        let before = self.hash.map(|hash| hash.to_string()).unwrap_or_default();
        self.hash = Some(Digest::of(format!("{before}{line}").as_bytes()));
        self.lines += 1;
        self.last.push_back(line);
        if self.last.len() > SHOWN_MAX {
            self.last.pop_front();
        }
    }

    /// Returns what two runs of one seed have in common: the number of trace lines and their digest.
    pub(crate) fn fingerprint(&self) -> (u64, Option<Digest>) {
        (self.lines, self.hash)
    }

    pub(crate) fn shown(&self) -> String {
        self.last.iter().map(|line| format!("{line}\n")).collect()
    }
}

/// The store, the network to it, and the list of violations.
#[derive(Debug)]
pub(crate) struct Bucket {
    pub kind: Kind,
    pub objects: BTreeMap<String, Object>,
    pub uploads: BTreeMap<String, Begun>,
    pub weather: Weather,
    /// Objects that the store lost and that are still missing.
    pub vanished: BTreeSet<String>,
    /// Objects that it ever lost: manifests may still name them.
    named_and_lost: BTreeSet<String>,
    /// Objects that a reconcile may replace.
    pub is_replacing: bool,
    pub trace: Trace,
    pub wrong: Vec<String>,
    /// The node crashes after this many more requests.
    pub crash_in: Option<u32>,
    pub calls: HashMap<(&'static str, String), u64>,
    versions: u64,
    /// The chunks whose last request ended an attempt.
    idle: BTreeMap<String, bool>,
    /// The chunk whose file was found damaged last, and when.
    damaged: Option<(String, Duration)>,
    /// The recordings that somebody requested.
    pub asked: BTreeSet<String>,
    /// State of the gate, and since when.
    gate: (Duration, Option<Tick>),
    /// When the last probe ended: the first attempts of a run start with one.
    probed_at: Duration,
}

fn failed(kind: StoreErrorKind, message: &str) -> StoreError {
    StoreError::new(kind, message)
}

impl Bucket {
    pub(crate) fn new(kind: Kind) -> Self {
        Self {
            kind,
            objects: BTreeMap::new(),
            uploads: BTreeMap::new(),
            weather: Weather::calm(),
            vanished: BTreeSet::new(),
            named_and_lost: BTreeSet::new(),
            is_replacing: false,
            trace: Trace::default(),
            wrong: Vec::new(),
            crash_in: None,
            calls: HashMap::new(),
            versions: 0,
            idle: BTreeMap::new(),
            damaged: None,
            asked: BTreeSet::new(),
            gate: (Duration::ZERO, Some(Tick::default())),
            probed_at: Duration::ZERO,
        }
    }

    pub(crate) fn probe(&self) -> Probe {
        let (is_checking, is_naive) = (self.kind == Kind::Checking, self.kind == Kind::Naive);
        Probe {
            enforces_sha256: is_checking,
            tells_sha256: is_checking,
            etag_is_md5: self.kind == Kind::Md5,
            honours_create_only: !is_naive,
            honours_if_match: !is_naive,
            clock_offset_ms: Some(0),
            rights: Rights::ALL,
        }
    }

    /// Starts a new run of the node: nothing is known of its attempts.
    pub(crate) fn node_starts(&mut self) {
        self.idle.clear();
        self.gate = (Duration::ZERO, Some(Tick::default()));
    }

    /// Removes an object without the node's knowledge.
    pub(crate) fn lose(&mut self, key: &str) {
        self.objects.remove(key);
        self.vanished.insert(key.to_owned());
        self.named_and_lost.insert(key.to_owned());
    }

    pub(crate) fn object(&mut self, bytes: Bytes) -> Object {
        self.versions += 1;
        let etag = match self.kind {
            Kind::Md5 => Md5::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
            Kind::Checking | Kind::Naive => format!("v{}", self.versions),
        };
        Object { digest: Digest::of(&bytes), bytes, etag, parts: None }
    }

    pub(crate) fn meta(&self, key: &ObjectKey) -> Option<ObjectMeta> {
        let object = self.objects.get(key.as_str())?;
        let digest = (self.kind == Kind::Checking && object.parts.is_none()).then_some(object.digest);
        Some(ObjectMeta {
            key: key.clone(),
            size_bytes: object.bytes.len() as u64,
            etag: object.etag.clone(),
            digest,
            parts: object.parts.filter(|_| self.kind == Kind::Checking),
        })
    }

    /// Stores an object as the mode allows.
    pub(crate) fn put(&mut self, key: &ObjectKey, object: Object, mode: &PutMode) -> Result<String, StoreError> {
        let found = self.objects.get(key.as_str());
        match (mode, found) {
            (PutMode::Create, Some(_)) => return Err(failed(StoreErrorKind::AlreadyExists, "something is there")),
            (PutMode::Update(etag), found) if found.is_none_or(|found| found.etag != *etag) => {
                return Err(failed(StoreErrorKind::Changed, "another version is there"));
            }
            (PutMode::Create | PutMode::Overwrite | PutMode::Update(_), _) => {}
        }
        self.check_put(key, &object);
        let etag = object.etag.clone();
        // Other bytes in its place do not make it stored again.
        if key.parts().is_none_or(|(_, chunk)| chunk.is_none_or(|chunk| chunk.fits(&object.digest))) {
            self.vanished.remove(key.as_str());
        }
        self.objects.insert(key.to_string(), object);
        Ok(etag)
    }

    /// Records a violation if something was stored that never may be.
    fn check_put(&mut self, key: &ObjectKey, new: &Object) {
        let old = self.objects.get(key.as_str()).cloned();
        match key.parts() {
            Some((_, Some(chunk))) => {
                let is_replaced = old.is_some_and(|old| old.digest != new.digest);
                if is_replaced && (!self.is_replacing || !chunk.fits(&new.digest)) {
                    self.wrong.push(format!("{key} was overwritten"));
                }
            }
            Some((_, None)) => self.check_manifest(key, new, old.as_ref()),
            None => {}
        }
    }

    fn check_manifest(&mut self, key: &ObjectKey, new: &Object, old: Option<&Object>) {
        let parse = |object: &Object| Manifest::parse(&object.bytes, Indices::Rising).map(|(manifest, _)| manifest);
        let new = match parse(new) {
            Ok(new) => new,
            Err(reasons) => return self.wrong.push(format!("{key} is no manifest: {reasons:?}")),
        };
        let folder = key.as_str().rsplit_once('/').unwrap().0;
        for chunk in &new.chunks {
            let named = format!("{folder}/chunks/{}", chunk.name);
            let is_there = self.objects.get(&named).is_some_and(|object| object.digest.to_string() == chunk.sha256);
            if !is_there && !self.named_and_lost.contains(&named) {
                self.wrong.push(format!("{key} names {named}, which is not there"));
            }
        }
        let Some(old) = old.and_then(|old| parse(old).ok()) else { return };
        if old.started_at_ns != new.started_at_ns {
            self.wrong.push(format!("{key} of another capture was overwritten"));
        }
        let names =
            |manifest: &Manifest| manifest.chunks.iter().map(|chunk| chunk.name.clone()).collect::<BTreeSet<_>>();
        if !names(&old).is_subset(&names(&new)) {
            self.wrong.push(format!("{key} names less than it did"));
        }
    }

    /// Records a part.
    pub(crate) fn put_part(&mut self, id: &str, number: u32, object: Object) -> Result<String, StoreError> {
        let etag = object.etag.clone();
        let begun = self.uploads.get_mut(id);
        let begun = begun.ok_or_else(|| failed(StoreErrorKind::Changed, "the upload is not known"))?;
        begun.parts.insert(number, object);
        Ok(etag)
    }

    /// Completes an upload in parts.
    pub(crate) fn complete(&mut self, key: &ObjectKey, id: &str, numbers: &[u32]) -> Result<String, StoreError> {
        let begun = self.uploads.get(id).ok_or_else(|| failed(StoreErrorKind::Changed, "the upload is not known"))?;
        if !begun.parts.keys().eq(numbers) || begun.key != key.as_str() {
            self.wrong.push(format!("{key} was completed of other parts than were sent"));
        }
        let begun = self.uploads.get(id).ok_or_else(|| failed(StoreErrorKind::Changed, "the upload is not known"))?;
        let digests: Vec<_> = begun.parts.values().map(|part| part.digest).collect();
        let md5s: Vec<[u8; 16]> = begun.parts.values().map(|part| Md5::digest(&part.bytes).into()).collect();
        let bytes: Vec<u8> = begun.parts.values().flat_map(|part| part.bytes.clone()).collect();
        let count = u32::try_from(digests.len()).unwrap();
        let mut object = self.object(bytes.into());
        object.etag = match self.kind {
            Kind::Md5 => md5_of_parts(&md5s),
            Kind::Checking | Kind::Naive => format!("{}-{count}", object.etag),
        };
        object.parts = Some(PartsDigest { digest: composite(digests), count });
        let etag = self.put(key, object, &PutMode::Create)?;
        self.uploads.remove(id);
        Ok(etag)
    }

    /// Records that a request for a chunk begins. If it starts an attempt, the gate must be open.
    pub(crate) fn request_begins(&mut self, key: &str, now: Duration, opens_at: Option<Tick>, is_in_flight: bool) {
        let is_idle = self.idle.insert(key.to_owned(), false).unwrap_or(true) && !self.is_looked_at_again(key, now);
        let is_known_closed = self.gate.1 == opens_at && self.gate.0 < now && opens_at.is_none_or(|at| at.0 > now);
        let may_have_begun_before = self.is_replacing || self.probed_at == now;
        if is_in_flight && is_idle && is_known_closed && !may_have_begun_before {
            self.wrong.push(format!("{key} was tried at {now:?} before the gate opens at {opens_at:?}"));
        }
        if self.gate.1 != opens_at {
            self.gate = (now, opens_at);
        }
    }

    /// Records that a request for a chunk begins outside the upload window: only requested chunks are tried then. Call
    /// it before [`Bucket::request_begins`].
    pub(crate) fn request_begins_out_of_hours(
        &mut self,
        key: &str,
        recording: &str,
        now: Duration,
        is_in_flight: bool,
    ) {
        let is_idle = self.idle.get(key).copied().unwrap_or(true) && !self.is_looked_at_again(key, now);
        let may_have_begun_before = self.is_replacing || self.probed_at == now;
        let is_asked = self.asked.contains(recording);
        if is_in_flight && is_idle && !may_have_begun_before && !is_asked {
            self.wrong.push(format!("{key} was tried at {now:?}, out of hours"));
        }
    }

    /// Tells whether a request continues an attempt whose file was found damaged at this moment. The damage says
    /// nothing about the object, so a HEAD follows.
    fn is_looked_at_again(&self, key: &str, now: Duration) -> bool {
        self.damaged.as_ref().is_some_and(|(damaged, at)| damaged == key && *at == now)
    }

    /// Records how a request for a chunk ended.
    pub(crate) fn request_ended(&mut self, key: &str, now: Duration, error: Option<&StoreError>) {
        if key.is_empty() {
            self.probed_at = now;
        }
        if error.is_some_and(|error| matches!(error.kind, StoreErrorKind::Content(_))) {
            self.damaged = Some((key.to_owned(), now));
        }
        let ends_try = error.is_some_and(|error| match &error.kind {
            StoreErrorKind::Retry { .. } | StoreErrorKind::Rejected | StoreErrorKind::Content(_) => true,
            StoreErrorKind::Blocked(_) => !error.is_denied(),
            _ => false,
        });
        self.idle.insert(key.to_owned(), ends_try);
    }
}
