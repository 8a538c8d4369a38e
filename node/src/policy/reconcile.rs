//! What is to be done about a recording: told what is here and what is in the store, it answers what that means.
//!
//! No action removes anything. What adopt would do is a finding, and what restore would, where nobody asked for it.

use bubbaloop_storage_schemas::{
    ChunkName, RecordingName,
    reconcile::{Action, ActionKind, Finding, FindingKind},
    reply::Proof,
};

/// What is known of a chunk on this machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Local {
    /// Its file is there and, as far as was looked, has its digest.
    Intact,
    /// Its file has other bytes.
    Damaged,
    /// There is no file.
    Missing,
    /// Its file was removed to make room, once the store held it.
    Evicted,
    /// The disk does not give its bytes, for this reason.
    Unreadable(String),
    /// Its file is there and no manifest names it, for this reason.
    Unnamed(String),
}

/// What is known of a chunk in the store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Remote {
    /// The store says that there is nothing.
    Absent,
    /// The store is known to hold the chunk.
    Same {
        /// How it is known.
        proof: Proof,
        /// The object's ETag.
        etag: String,
    },
    /// Other bytes stand under its name.
    Other,
    /// Something stands under its name of which no digest is told.
    Claimed,
    /// There was no answer, for this reason.
    Unknown(String),
}

/// What the journal says of a chunk's upload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mark {
    /// Nothing.
    None,
    /// It is proven, as it stands in the store where that holds it.
    Current,
    /// It is proven, in a version that does not stand there any more.
    Outdated,
    /// Only the remote manifest names the chunk: the journal has no place for it.
    NoPlace,
}

/// A try in this run that did not help.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// What was tried.
    pub step: Step,
    /// Why it did not help.
    pub reason: String,
    /// The key may not do it.
    pub is_denied: bool,
}

/// What brings a chunk's bytes to the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Step {
    /// Find out what stands there.
    Prove,
    /// Send it.
    Upload,
    /// Put it in the place of what stands there.
    Replace,
    /// Fetch it from there.
    Restore,
}

impl Step {
    const fn kind(self) -> ActionKind {
        match self {
            Self::Prove => ActionKind::Prove,
            Self::Upload => ActionKind::Upload,
            Self::Replace => ActionKind::Replace,
            Self::Restore => ActionKind::Restore,
        }
    }
}

/// What is known of one chunk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChunkEvidence {
    /// Its name.
    pub name: ChunkName,
    /// Its size.
    pub size_bytes: u64,
    /// Here.
    pub local: Local,
    /// There.
    pub remote: Remote,
    /// In the journal.
    pub mark: Mark,
    /// What this run tried with it in vain.
    pub failure: Option<Failure>,
}

/// An object of the recording that no manifest names.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct OrphanObject {
    /// Its key.
    pub key: String,
    /// Its chunk.
    pub chunk: Option<ChunkName>,
    /// Why it is not known whether a manifest names it, where that could not be found out.
    pub doubt: Option<String>,
}

/// How the remote manifest stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RemoteManifest {
    /// It says what it should.
    Current,
    /// It is to say something else, or is not there.
    Due,
    /// There is nothing to write: no manifest of ours is readable here.
    Nothing,
    /// There was no answer, for this reason.
    Unknown(String),
}

/// How the manifest on this machine stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LocalManifest {
    /// It holds, or nothing in the store can stand in its place.
    Kept,
    /// It is absent or broken, and the store's can stand in its place.
    Restorable,
}

/// What may be done about what is seen.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Means {
    /// The store gives some means to prove that it holds a chunk.
    pub can_prove: bool,
    /// A person wants back here what only the store holds.
    pub restore: bool,
}

/// All that is known of a recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Evidence {
    /// The recording.
    pub recording: RecordingName,
    /// Its chunks, those that no manifest names too. In any order.
    pub chunks: Vec<ChunkEvidence>,
    /// Its objects that no manifest names. In any order.
    pub orphans: Vec<OrphanObject>,
    /// Its remote manifest.
    pub manifest: RemoteManifest,
    /// Its own manifest.
    pub local_manifest: LocalManifest,
    /// It is marked corrupt.
    pub is_corrupt: bool,
    /// A readable manifest names its chunks, so that none is passed over.
    pub is_named: bool,
    /// What may be done.
    pub means: Means,
}

/// What is seen and what is to be done, in this order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What is not mended.
    pub findings: Vec<Finding>,
    /// What is done; the remote manifest last.
    pub actions: Vec<Action>,
}

/// What becomes of a recording by one of its chunks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// Its bytes are here or there.
    Sound,
    /// They are nowhere.
    Lost,
    /// That is not known.
    Unsure,
}

/// One cell of the table.
struct Cell {
    step: Option<Step>,
    found: Option<FindingKind>,
    fate: Fate,
}

impl Cell {
    const fn fine() -> Self {
        Self { step: None, found: None, fate: Fate::Sound }
    }

    const fn step(step: Step) -> Self {
        Self { step: Some(step), found: None, fate: Fate::Sound }
    }

    const fn found(kind: FindingKind, fate: Fate) -> Self {
        Self { step: None, found: Some(kind), fate }
    }

    /// Takes a step, unless this run tried it, or a later one, in vain.
    fn once(step: Step, failure: Option<&Failure>) -> Self {
        match failure {
            Some(failure) if failure.step >= step && failure.is_denied && failure.step == Step::Replace => {
                Self::found(FindingKind::NeedsOwner, Fate::Sound)
            }
            Some(failure) if failure.step >= step => Self::found(FindingKind::Failed, Fate::Sound),
            Some(_) | None => Self::step(step),
        }
    }

    /// Fetches the chunk. Until its bytes are here, what only seems to be it makes nothing sound.
    fn restore(fate: Fate, failure: Option<&Failure>) -> Self {
        Self { fate, ..Self::once(Step::Restore, failure) }
    }
}

/// The table of what is here and what is there.
fn cell(chunk: &ChunkEvidence, means: Means) -> Cell {
    let failure = chunk.failure.as_ref();
    match (&chunk.local, &chunk.remote) {
        (Local::Damaged | Local::Missing | Local::Evicted, Remote::Same { .. }) if means.restore => {
            Cell::restore(Fate::Sound, failure)
        }
        (Local::Damaged | Local::Missing | Local::Evicted, Remote::Claimed) if means.restore => {
            Cell::restore(Fate::Unsure, failure)
        }
        (Local::Intact, Remote::Absent) => Cell::once(Step::Upload, failure),
        (Local::Intact | Local::Evicted, Remote::Same { .. }) => Cell::fine(),
        (Local::Intact, Remote::Other) => Cell::once(Step::Replace, failure),
        (Local::Intact, Remote::Claimed) if !means.can_prove => Cell::found(FindingKind::Unproven, Fate::Sound),
        (Local::Intact, Remote::Claimed) => match failure {
            None => Cell::step(Step::Prove),
            // What can't be proven is sent again: bytes that are proven here harm nothing there.
            Some(_) => Cell::once(Step::Replace, failure),
        },
        (Local::Intact, Remote::Unknown(_)) => match failure {
            None => Cell::found(FindingKind::Unknown, Fate::Sound),
            Some(_) => Cell::found(FindingKind::Failed, Fate::Sound),
        },
        (Local::Damaged, Remote::Same { .. }) => Cell::found(FindingKind::Damaged, Fate::Sound),
        (Local::Missing, Remote::Same { .. }) => Cell::found(FindingKind::Missing, Fate::Sound),
        (Local::Damaged | Local::Missing, Remote::Absent | Remote::Other) | (Local::Evicted, Remote::Other) => {
            Cell::found(FindingKind::Lost, Fate::Lost)
        }
        // It was proven somewhere once: another bucket may hold it.
        (Local::Evicted, Remote::Absent) => Cell::found(FindingKind::Lost, Fate::Unsure),
        (Local::Damaged | Local::Missing | Local::Evicted, Remote::Claimed) => {
            Cell::found(FindingKind::Claimed, Fate::Unsure)
        }
        (Local::Damaged | Local::Missing | Local::Evicted, Remote::Unknown(_)) => {
            Cell::found(FindingKind::Unknown, Fate::Unsure)
        }
        (Local::Unreadable(_), Remote::Same { .. }) => Cell::found(FindingKind::Unreadable, Fate::Sound),
        (Local::Unreadable(_), Remote::Absent | Remote::Other | Remote::Claimed | Remote::Unknown(_)) => {
            Cell::found(FindingKind::Unreadable, Fate::Unsure)
        }
        (
            Local::Unnamed(_),
            Remote::Absent | Remote::Same { .. } | Remote::Other | Remote::Claimed | Remote::Unknown(_),
        ) => Cell::found(FindingKind::OrphanFile, Fate::Sound),
    }
}

/// Returns what the journal is to be told of a chunk: what the store proves, whatever the file here is like, and no more.
fn marking(chunk: &ChunkEvidence) -> Option<ActionKind> {
    if matches!(chunk.local, Local::Unnamed(_)) {
        return None;
    }
    match (chunk.mark, &chunk.remote) {
        (Mark::None | Mark::Outdated, Remote::Same { .. }) => Some(ActionKind::Mark),
        (Mark::Current | Mark::Outdated, Remote::Absent | Remote::Other | Remote::Claimed) => Some(ActionKind::Unmark),
        (Mark::None, Remote::Absent | Remote::Other | Remote::Claimed)
        | (Mark::Current | Mark::NoPlace, Remote::Same { .. })
        | (Mark::NoPlace, Remote::Absent | Remote::Other | Remote::Claimed)
        | (Mark::None | Mark::Current | Mark::Outdated | Mark::NoPlace, Remote::Unknown(_)) => None,
    }
}

/// Returns what brings a chunk's bytes to the store or from it, where something is to.
pub fn step(chunk: &ChunkEvidence, means: Means) -> Option<Step> {
    cell(chunk, means).step
}

/// Tells whether a chunk's bytes are sound on this machine, as far as was looked.
pub const fn is_here(chunk: &ChunkEvidence) -> bool {
    matches!(chunk.local, Local::Intact | Local::Unnamed(_))
}

/// Returns what is to be done about a recording. The order in which it is told of chunks and objects does not matter.
pub fn plan(evidence: &Evidence) -> Plan {
    let mut plan = Plan::default();
    let mut chunks: Vec<_> = evidence.chunks.iter().collect();
    chunks.sort_by_key(|chunk| chunk.name);
    let mut fates = Vec::with_capacity(chunks.len());
    if evidence.means.restore && evidence.local_manifest == LocalManifest::Restorable {
        let message = "there is no manifest.json that can be read, and the store has one: it is written here";
        let kind = ActionKind::RestoreManifest;
        plan.actions.push(Action::new(kind, &evidence.recording, None, message.to_owned()));
    }
    for chunk in chunks {
        let cell = cell(chunk, evidence.means);
        let told = |what_next: &str| format!("{}: {what_next}", state(chunk));
        let act = |kind| Action::new(kind, &evidence.recording, Some(chunk.name), told(reason(kind)));
        let find = |kind| Finding::new(kind, &evidence.recording, Some(chunk.name), told(remedy(kind)));
        plan.actions.extend(marking(chunk).map(act));
        plan.actions.extend(cell.step.map(|step| act(step.kind())));
        plan.findings.extend(cell.found.map(find));
        if matches!((&chunk.local, &chunk.remote), (Local::Unnamed(_), Remote::Other)) {
            plan.findings.push(find(FindingKind::OrphanObject));
        }
        fates.push(cell.fate);
    }
    plan.findings.extend(orphans(evidence));
    plan.actions.extend(corruption(evidence, &fates));
    publication(evidence, &mut plan);
    plan
}

fn orphans(evidence: &Evidence) -> Vec<Finding> {
    let mut orphans: Vec<_> = evidence.orphans.iter().collect();
    orphans.sort_unstable();
    let find = |orphan: &OrphanObject| {
        let key = &orphan.key;
        let (kind, message) = match &orphan.doubt {
            None => (
                FindingKind::OrphanObject,
                format!("no manifest names the object {key}: {}", remedy(FindingKind::OrphanObject)),
            ),
            Some(doubt) => (
                FindingKind::Unknown,
                format!(
                    "whether a manifest names the object {key} is not known ({doubt}): {}",
                    remedy(FindingKind::Unknown)
                ),
            ),
        };
        Finding::new(kind, &evidence.recording, orphan.chunk, message)
    };
    orphans.into_iter().map(find).collect()
}

fn corruption(evidence: &Evidence, fates: &[Fate]) -> Option<Action> {
    let lost = fates.iter().filter(|fate| **fate == Fate::Lost).count();
    let are_sound = evidence.is_named && fates.iter().all(|fate| *fate == Fate::Sound);
    let (kind, message) = match (evidence.is_corrupt, lost) {
        (false, 1..) => {
            (ActionKind::MarkCorrupt, format!("{lost} of its chunks are neither here nor in the store: it is corrupt"))
        }
        (true, 0) if are_sound => {
            (ActionKind::ClearCorrupt, "each of its chunks is here or in the store again: it is healed".to_owned())
        }
        (true, _) | (false, 0) => return None,
    };
    Some(Action::new(kind, &evidence.recording, None, message))
}

fn publication(evidence: &Evidence, plan: &mut Plan) {
    let changes = |action: &Action| match action.kind {
        ActionKind::Unmark | ActionKind::Mark | ActionKind::Prove | ActionKind::Upload | ActionKind::Replace => true,
        ActionKind::MarkCorrupt
        | ActionKind::ClearCorrupt
        | ActionKind::Publish
        | ActionKind::RestoreManifest
        | ActionKind::Restore => false,
    };
    let is_changed = plan.actions.iter().any(changes);
    let is_restored = plan.actions.iter().any(|action| action.kind == ActionKind::RestoreManifest);
    let message = match &evidence.manifest {
        RemoteManifest::Nothing if is_restored => {
            "with its manifest here again, what the journal says goes into the remote one: it is written anew"
        }
        RemoteManifest::Nothing => return,
        RemoteManifest::Due => "the remote manifest does not say what is in the store: it is written",
        RemoteManifest::Current | RemoteManifest::Unknown(_) if is_changed => {
            "what is in the store changes: the remote manifest is written anew"
        }
        RemoteManifest::Current => return,
        RemoteManifest::Unknown(reason) => {
            let message = format!("what the remote manifest says is not known ({reason}): reconcile again");
            plan.findings.push(Finding::new(FindingKind::Unknown, &evidence.recording, None, message));
            return;
        }
    };
    plan.actions.push(Action::new(ActionKind::Publish, &evidence.recording, None, message.to_owned()));
}

/// Tells where a chunk is.
fn state(chunk: &ChunkEvidence) -> String {
    let local = match &chunk.local {
        Local::Intact => "its file is sound".to_owned(),
        Local::Damaged => "its file is damaged".to_owned(),
        Local::Missing => "its file is missing".to_owned(),
        Local::Evicted => "its file was evicted".to_owned(),
        Local::Unreadable(reason) => format!("its file can't be read ({reason})"),
        Local::Unnamed(reason) => format!("its file is there and {reason}"),
    };
    let remote = match &chunk.remote {
        Remote::Absent => "the store does not hold it".to_owned(),
        Remote::Same { .. } => "the store holds it".to_owned(),
        Remote::Other => "the store holds other bytes under its name".to_owned(),
        Remote::Claimed => "the store seems to hold it and tells no digest".to_owned(),
        Remote::Unknown(reason) => format!("what the store holds is not known ({reason})"),
    };
    let failure = match &chunk.failure {
        Some(Failure { step: Step::Prove, reason, .. }) => format!("; it could not be proven ({reason})"),
        Some(Failure { step: Step::Upload, reason, .. }) => format!("; it could not be sent ({reason})"),
        Some(Failure { step: Step::Replace, reason, .. }) => format!("; it could not be put there ({reason})"),
        Some(Failure { step: Step::Restore, reason, .. }) => format!("; it could not be fetched ({reason})"),
        None => String::new(),
    };
    format!("{local}, and {remote}{failure}")
}

/// Tells what an action does about it.
const fn reason(kind: ActionKind) -> &'static str {
    match kind {
        ActionKind::Unmark => "the journal's mark is taken back",
        ActionKind::Mark => "the journal is told so",
        ActionKind::Prove => "it is proven",
        ActionKind::Upload => "it is sent",
        ActionKind::Replace => "the object is replaced by the chunk's own bytes",
        ActionKind::MarkCorrupt => "the recording is corrupt",
        ActionKind::ClearCorrupt => "the recording is healed",
        ActionKind::Publish => "the remote manifest is written",
        ActionKind::RestoreManifest => "the manifest is written here",
        ActionKind::Restore => "it is fetched from the store",
    }
}

/// Tells what a person can do about a finding.
pub const fn remedy(kind: FindingKind) -> &'static str {
    match kind {
        FindingKind::Damaged | FindingKind::Missing => "reconcile it with restore, which fetches it from the store",
        FindingKind::Lost => "bring its file back from a copy, or point the node at the store that has it",
        FindingKind::Unreadable => "look at the disk and at the file's rights, then reconcile again",
        FindingKind::Claimed => "reconcile it with restore, which fetches the object and looks what it is",
        FindingKind::Unproven => "give the node's key the right to read objects, then reconcile again",
        FindingKind::Unknown => "nothing is done before that is known; status tells how the store is",
        FindingKind::OrphanFile => "it goes up as unlisted; the recording's manifest does not name it",
        FindingKind::OrphanObject => "look at it and remove it if nobody needs it; it is left alone",
        FindingKind::NeedsOwner => "the bucket's owner must remove the object or let the node's key overwrite it",
        FindingKind::Failed => "mend what the reason names, then reconcile again",
        FindingKind::Foreign => "reconcile it on the machine that recorded it",
        FindingKind::NameTaken => "this recording's remote manifest has a name of its own",
        FindingKind::ManifestUnreadable => "mend manifest.json or put it aside",
        FindingKind::ManifestWaits => "it is tried again by itself",
        FindingKind::Withdrawn => "upload sends it again; until then it is left alone",
        FindingKind::ManifestRefused => "bring back an earlier version of the object, or remove it",
    }
}

#[cfg(test)]
mod tests;
