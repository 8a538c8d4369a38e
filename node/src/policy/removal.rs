//! What of a recording is removed, in which order, and what forbids it.
//!
//! The order is such that a crash between any two steps leaves what the same request ends: first nothing goes up any more,
//! then what was begun to be sent is given up while the journal knows it, then the store's manifest goes, so that it never
//! names what is not there, then objects, then files.

use bubbaloop_storage_schemas::{
    ChunkName,
    adopt::AdoptedFile,
    keys::ObjectKey,
    removal::{RemovalFinding, RemovalFindingKind, RemoveFrom},
};

/// The journal, by its path from the recording's folder on.
const JOURNAL: &str = "uploads.jsonl";

/// How a recording is removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RemovalOptions {
    /// Where from.
    pub from: RemoveFrom,
    /// The plan is told and nothing is changed.
    pub dry_run: bool,
    /// What is nowhere else goes too.
    pub force: bool,
}

/// A chunk that is known or whose file is here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Chunk {
    /// Its name.
    pub name: ChunkName,
    /// Its size.
    pub size_bytes: u64,
    /// Its file is here.
    pub is_here: bool,
    /// Why the store is not known to hold it just now; `None` where it does.
    pub unproven: Option<String>,
}

/// Another file of the recording's folder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OtherFile {
    /// Its path from the recording's folder on.
    pub path: String,
    /// It is the recorder's manifest, the journal, or what this node left.
    pub is_ours: bool,
}

/// An object below the recording's name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Object {
    /// Its key.
    pub key: ObjectKey,
    /// The chunk that it is; none where it is a manifest.
    pub chunk: Option<ChunkName>,
    /// Its size.
    pub size_bytes: u64,
    /// Another capture of this name has it.
    pub is_of_other: bool,
    /// Why what it holds is not known to be whole here just now; `None` where it is.
    pub not_intact: Option<String>,
}

/// An upload in parts that was begun and of which no object was made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upload {
    /// The chunk.
    pub chunk: ChunkName,
    /// The key that it is for.
    pub key: String,
    /// What the store calls it.
    pub upload_id: String,
}

/// What was found out just now. What is not to be removed may be left out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The library has the recording, and nothing says yet that it is withdrawn.
    pub is_offered: bool,
    /// Its chunks, by index.
    pub chunks: Vec<Chunk>,
    /// Other files of its folder: what was last known of it goes last.
    pub files: Vec<OtherFile>,
    /// Its folders, the inner ones first, as paths from its own on.
    pub folders: Vec<String>,
    /// What the store lists below its name.
    pub objects: Vec<Object>,
    /// Its uploads in parts that were begun: with the journal goes what is known of them.
    pub uploads: Vec<Upload>,
    /// The files that it was adopted from and that are still as they were then.
    pub sources: Vec<AdoptedFile>,
}

/// One step of a removal. Each is idempotent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write into the journal that nothing of it goes up by itself.
    Withdraw,
    /// Give up an upload in parts.
    Abort(Upload),
    /// Remove an object.
    Object(Object),
    /// Write down that files are not adopted by themselves.
    LeaveSources(Vec<AdoptedFile>),
    /// Remove a chunk's file.
    Chunk(Chunk),
    /// Remove another file.
    File(String),
    /// Remove a folder if nothing is in it.
    Folder(String),
}

/// What is seen and done.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Plan {
    /// What was seen.
    pub findings: Vec<RemovalFinding>,
    /// What is done, in this order; nothing where it is refused.
    pub steps: Vec<Step>,
    /// What is nowhere else would go, and nobody forces it.
    pub is_refused: bool,
}

/// Plans a removal.
pub fn plan(evidence: &Evidence, options: RemovalOptions) -> Plan {
    let RemovalOptions { from, force, .. } = options;
    let mut plan = Plan::default();
    // With both going nothing would be left that proves anything.
    let looks = from != RemoveFrom::Both;
    for chunk in evidence.chunks.iter().filter(|_| from.is_local() && looks) {
        if let Some(reason) = &chunk.unproven {
            plan.doubt(RemovalFindingKind::Unproven, Some(chunk.name), None, reason.clone());
        }
    }
    for object in evidence.objects.iter().filter(|object| from.is_remote() && !object.is_of_other) {
        if let Some(reason) = object.not_intact.as_ref().filter(|_| looks) {
            plan.doubt(RemovalFindingKind::NotIntact, object.chunk, Some(object.key.to_string()), reason.clone());
        }
    }
    plan.is_refused = (from == RemoveFrom::Both || !plan.findings.is_empty()) && !force;
    if from.is_remote() && evidence.is_offered {
        plan.steps.push(Step::Withdraw);
    }
    plan.steps.extend(evidence.uploads.iter().cloned().map(Step::Abort));
    if from.is_remote() {
        plan.remove_remote(evidence);
    }
    if from.is_local() {
        plan.remove_local(evidence);
    }
    if plan.is_refused {
        plan.steps.clear();
    }
    plan
}

impl Plan {
    fn doubt(&mut self, kind: RemovalFindingKind, chunk: Option<ChunkName>, path: Option<String>, message: String) {
        self.findings.push(RemovalFinding { kind, chunk, path, message });
    }

    fn remove_remote(&mut self, evidence: &Evidence) {
        let (others, ours): (Vec<_>, Vec<_>) = evidence.objects.iter().cloned().partition(|object| object.is_of_other);
        for object in others {
            let message = "another capture of this name has it: it stays".to_owned();
            self.doubt(RemovalFindingKind::Stays, object.chunk, Some(object.key.to_string()), message);
        }
        let (manifests, chunks): (Vec<_>, Vec<_>) = ours.into_iter().partition(|object| object.chunk.is_none());
        self.steps.extend(manifests.into_iter().chain(chunks).map(Step::Object));
    }

    fn remove_local(&mut self, evidence: &Evidence) {
        // As long as its manifest stands, that says what it was made of.
        if !evidence.sources.is_empty() {
            self.steps.push(Step::LeaveSources(evidence.sources.clone()));
        }
        self.steps.extend(evidence.chunks.iter().filter(|chunk| chunk.is_here).cloned().map(Step::Chunk));
        for file in &evidence.files {
            if file.is_ours {
                self.steps.push(Step::File(file.path.clone()));
            } else {
                let message = "it is no file of the recording: it stays".to_owned();
                self.doubt(RemovalFindingKind::Stays, None, Some(file.path.clone()), message);
            }
        }
        // Steps before this one write to the journal, which may not have been there.
        let is_journaled =
            self.steps.iter().any(|step| matches!(step, Step::Withdraw | Step::Abort(_) | Step::Chunk(_)));
        if is_journaled && evidence.files.iter().all(|file| file.path != JOURNAL) {
            self.steps.push(Step::File(JOURNAL.into()));
        }
        let is_above_what_stays = |folder: &String| {
            let inside = if folder.is_empty() { String::new() } else { format!("{folder}/") };
            evidence.files.iter().any(|file| !file.is_ours && file.path.starts_with(&inside))
        };
        self.steps.extend(evidence.folders.iter().filter(|it| !is_above_what_stays(it)).cloned().map(Step::Folder));
    }
}

#[cfg(test)]
mod tests {
    use bubbaloop_storage_schemas::Digest;
    use proptest::prelude::*;

    use super::*;

    fn name(index: u32) -> ChunkName {
        ChunkName::new(index, &Digest::of(&index.to_be_bytes()))
    }

    fn chunk(index: u32, is_here: bool, is_proven: bool) -> Chunk {
        let unproven = (!is_proven).then(|| "it is not proven".to_owned());
        Chunk { name: name(index), size_bytes: 4, is_here, unproven }
    }

    fn object(index: Option<u32>, is_intact: bool) -> Object {
        let (machine, recording) = ("m".parse().unwrap(), "r".parse().unwrap());
        let key = match index {
            Some(index) => ObjectKey::chunk(&machine, &recording, name(index)),
            None => ObjectKey::manifest(&machine, &recording),
        };
        let not_intact = (!is_intact).then(|| "it is not here".to_owned());
        Object { key, chunk: index.map(name), size_bytes: 4, is_of_other: false, not_intact }
    }

    fn evidence() -> Evidence {
        let file = |path: &str, is_ours| OtherFile { path: path.into(), is_ours };
        Evidence {
            is_offered: true,
            chunks: vec![chunk(0, true, true), chunk(1, false, true)],
            files: vec![file("manifest.json", true), file("uploads.jsonl", true)],
            folders: vec!["chunks".into(), String::new()],
            objects: vec![object(Some(0), true), object(None, true)],
            ..Evidence::default()
        }
    }

    fn options(from: RemoveFrom, force: bool) -> RemovalOptions {
        RemovalOptions { from, dry_run: false, force }
    }

    #[test]
    fn the_store_goes_first_its_manifest_before_its_objects_and_the_journal_last_of_all_files() {
        let evidence = evidence();
        let found = plan(&evidence, options(RemoveFrom::Both, true));
        let steps = [
            Step::Withdraw,
            Step::Object(evidence.objects[1].clone()),
            Step::Object(evidence.objects[0].clone()),
            Step::Chunk(evidence.chunks[0].clone()),
            Step::File("manifest.json".into()),
            Step::File("uploads.jsonl".into()),
            Step::Folder("chunks".into()),
            Step::Folder(String::new()),
        ];
        assert_eq!((found.steps, found.is_refused, found.findings), (steps.into(), false, vec![]));
    }

    #[test]
    fn a_journal_that_the_removal_itself_begins_goes_with_the_rest() {
        let mut evidence = Evidence { files: Vec::new(), ..evidence() };
        let goes = |evidence: &Evidence, from| {
            plan(evidence, options(from, true)).steps.contains(&Step::File("uploads.jsonl".into()))
        };
        assert!(goes(&evidence, RemoveFrom::Local) && goes(&evidence, RemoveFrom::Both));
        evidence.chunks.clear();
        assert!(goes(&evidence, RemoveFrom::Both) && !goes(&evidence, RemoveFrom::Local));
    }

    #[test]
    fn what_only_the_journal_and_the_manifest_know_is_settled_before_they_go() {
        let upload = Upload { chunk: name(1), key: "m/r/chunks/x".into(), upload_id: "u".into() };
        let source = AdoptedFile {
            file: "a.mcap".into(),
            size_bytes: 4,
            mtime_ns: 7,
            sha256: Digest::of(b"a"),
            outside: false,
            recovered: false,
        };
        let evidence =
            Evidence { uploads: vec![upload.clone()], sources: vec![source.clone()], objects: vec![], ..evidence() };
        for from in RemoveFrom::ALL {
            let steps = plan(&evidence, options(from, true)).steps;
            let place = |wanted: &Step| steps.iter().position(|step| step == wanted);
            let (abort, leave) =
                (place(&Step::Abort(upload.clone())), place(&Step::LeaveSources(vec![source.clone()])));
            let (manifest, journal) =
                (place(&Step::File("manifest.json".into())), place(&Step::File("uploads.jsonl".into())));
            assert!(abort.is_some() && place(&Step::Withdraw) < abort, "{from}: {steps:?}");
            assert_eq!(leave.is_some(), from.is_local());
            assert!(!from.is_local() || leave < manifest && abort < journal, "{from}: {steps:?}");
        }
    }

    #[test]
    fn one_doubt_refuses_all_of_it_unless_it_is_forced() {
        let unproven = Evidence { chunks: vec![chunk(0, true, true), chunk(1, true, false)], ..evidence() };
        let not_intact = Evidence { objects: vec![object(Some(0), true), object(Some(1), false)], ..evidence() };
        for (from, evidence) in [(RemoveFrom::Local, unproven), (RemoveFrom::Remote, not_intact)] {
            let found = plan(&evidence, options(from, false));
            assert!(found.is_refused && found.steps.is_empty(), "{found:?}");
            assert_eq!(found.findings.iter().map(|it| it.chunk).collect::<Vec<_>>(), [Some(name(1))]);
            assert!(!plan(&evidence, options(from, true)).steps.is_empty());
        }
        assert!(plan(&evidence(), options(RemoveFrom::Both, false)).is_refused);
    }

    #[test]
    fn what_is_of_others_stays_and_so_do_the_folders_that_hold_it() {
        let stray = OtherFile { path: "chunks/notes.txt".into(), is_ours: false };
        let mut evidence = Evidence { files: vec![stray], ..evidence() };
        evidence.objects[0].is_of_other = true;
        evidence.objects[0].not_intact = Some("it is not here".into());
        let found = plan(&evidence, options(RemoveFrom::Remote, false));
        assert_eq!(found.steps, [Step::Withdraw, Step::Object(evidence.objects[1].clone())]);
        assert_eq!(found.findings.len(), 1);
        let found = plan(&evidence, options(RemoveFrom::Local, false));
        assert_eq!(found.steps, [Step::Chunk(evidence.chunks[0].clone()), Step::File("uploads.jsonl".into())]);
        assert_eq!(found.findings[0].path.as_deref(), Some("chunks/notes.txt"));
    }

    proptest! {
        /// One chunk, known by whether it is whole here and whole in the store; what is told of it is the truth.
        #[test]
        fn without_force_no_sequence_of_removals_takes_the_last_copy(
            copies in proptest::collection::vec((any::<bool>(), any::<bool>()), 1..6),
            verbs in proptest::collection::vec((0..3_usize, 0..12_usize), 1..6),
        ) {
            let mut now = copies.clone();
            for (from, crash_after) in verbs {
                let numbered = || (0_u32..).zip(now.iter().copied());
                let evidence = Evidence {
                    chunks: numbered().map(|(index, (here, there))| chunk(index, here, there)).collect(),
                    objects: numbered()
                        .filter(|(_, (_, there))| *there)
                        .map(|(index, (here, _))| object(Some(index), here))
                        .collect(),
                    ..evidence()
                };
                let found = plan(&evidence, options(RemoveFrom::ALL[from], false));
                for step in found.steps.into_iter().take(crash_after) {
                    match step {
                        Step::Chunk(gone) => now[gone.name.index() as usize].0 = false,
                        Step::Object(Object { chunk: Some(gone), .. }) => now[gone.index() as usize].1 = false,
                        _ => {}
                    }
                }
            }
            for (before, after) in copies.iter().zip(&now) {
                prop_assert_eq!(before.0 || before.1, after.0 || after.1);
            }
        }
    }
}
