use std::collections::BTreeSet;

use bubbaloop_storage_schemas::Digest;
use proptest::{prelude::*, sample::select};

use super::*;

fn name(index: u32) -> ChunkName {
    ChunkName::new(index, &Digest::of(&index.to_be_bytes()))
}

fn same() -> Remote {
    Remote::Same { proof: Proof::Enforced, etag: "e".into() }
}

fn chunk(local: Local, remote: Remote, mark: Mark) -> ChunkEvidence {
    ChunkEvidence { name: name(0), size_bytes: 1, local, remote, mark, failure: None }
}

fn evidence(chunks: Vec<ChunkEvidence>) -> Evidence {
    Evidence {
        recording: "drive".parse().unwrap(),
        chunks,
        orphans: Vec::new(),
        manifest: RemoteManifest::Current,
        is_corrupt: false,
        is_named: true,
        local_manifest: LocalManifest::Kept,
        means: Means { can_prove: true, restore: false },
    }
}

/// What is planned for one chunk: the kinds of findings and of actions.
fn kinds(evidence: &Evidence) -> (Vec<FindingKind>, Vec<ActionKind>) {
    let plan = plan(evidence);
    for message in plan.findings.iter().map(|row| &row.message).chain(plan.actions.iter().map(|row| &row.message)) {
        assert!(message.contains(':'), "it says what and what next: {message}");
    }
    (
        plan.findings.iter().map(|finding| finding.kind).collect(),
        plan.actions.iter().map(|action| action.kind).collect(),
    )
}

fn locals() -> [Local; 6] {
    [
        Local::Intact,
        Local::Damaged,
        Local::Missing,
        Local::Evicted,
        Local::Unreadable("EIO".into()),
        Local::Unnamed("no manifest names it".into()),
    ]
}

fn remotes() -> [Remote; 5] {
    [Remote::Absent, same(), Remote::Other, Remote::Claimed, Remote::Unknown("timeout".into())]
}

#[test]
fn every_cell_of_the_table() {
    use ActionKind::{Mark as Marking, MarkCorrupt, Prove, Publish, Replace, Upload};
    use FindingKind::{Claimed, Damaged, Lost, Missing, OrphanFile, OrphanObject, Unknown as NotKnown, Unreadable};
    type Wanted = (&'static [FindingKind], &'static [ActionKind]);
    let marked: &[ActionKind] = &[Marking, Publish];
    let table: [[Wanted; 5]; 6] = [
        [
            (&[], &[Upload, Publish]),
            (&[], marked),
            (&[], &[Replace, Publish]),
            (&[], &[Prove, Publish]),
            (&[NotKnown], &[]),
        ],
        [
            (&[Lost], &[MarkCorrupt]),
            (&[Damaged], marked),
            (&[Lost], &[MarkCorrupt]),
            (&[Claimed], &[]),
            (&[NotKnown], &[]),
        ],
        [
            (&[Lost], &[MarkCorrupt]),
            (&[Missing], marked),
            (&[Lost], &[MarkCorrupt]),
            (&[Claimed], &[]),
            (&[NotKnown], &[]),
        ],
        [(&[Lost], &[]), (&[], marked), (&[Lost], &[MarkCorrupt]), (&[Claimed], &[]), (&[NotKnown], &[])],
        [
            (&[Unreadable], &[]),
            (&[Unreadable], marked),
            (&[Unreadable], &[]),
            (&[Unreadable], &[]),
            (&[Unreadable], &[]),
        ],
        [
            (&[OrphanFile], &[]),
            (&[OrphanFile], &[]),
            (&[OrphanFile, OrphanObject], &[]),
            (&[OrphanFile], &[]),
            (&[OrphanFile], &[]),
        ],
    ];
    for (local, row) in locals().into_iter().zip(table) {
        for (remote, (findings, actions)) in remotes().into_iter().zip(row) {
            let planned = kinds(&evidence(vec![chunk(local.clone(), remote.clone(), Mark::None)]));
            assert_eq!(planned, (findings.to_vec(), actions.to_vec()), "{local:?} {remote:?}");
        }
    }
}

#[test]
fn with_restore_what_only_the_store_has_is_fetched_and_all_else_is_as_without() {
    let means = Means { can_prove: true, restore: true };
    for local in locals() {
        for remote in remotes() {
            let without = evidence(vec![chunk(local.clone(), remote.clone(), Mark::None)]);
            let with = Evidence { means, ..without.clone() };
            let is_gone = matches!(local, Local::Damaged | Local::Missing | Local::Evicted);
            let is_there = matches!(remote, Remote::Same { .. } | Remote::Claimed);
            let (findings, actions) = kinds(&with);
            assert_eq!(actions.contains(&ActionKind::Restore), is_gone && is_there, "{local:?} {remote:?}");
            if is_gone && is_there {
                assert_eq!(findings, [], "{local:?} {remote:?}: what is mended is no finding");
            } else {
                assert_eq!((findings, actions), kinds(&without), "{local:?} {remote:?}");
            }
            let failure = Some(Failure { step: Step::Restore, reason: "full".into(), is_denied: false });
            let chunk = ChunkEvidence { failure, ..chunk(local.clone(), remote.clone(), Mark::None) };
            let (findings, actions) = kinds(&Evidence { means, ..evidence(vec![chunk]) });
            assert!(!actions.contains(&ActionKind::Restore), "{local:?} {remote:?}: once");
            assert!(!(is_gone && is_there) || findings == [FindingKind::Failed], "{local:?} {remote:?}");
        }
    }
    let corrupt = |remote| {
        let told = Evidence { is_corrupt: true, means, ..evidence(vec![chunk(Local::Missing, remote, Mark::Current)]) };
        kinds(&told).1
    };
    assert!(corrupt(same()).contains(&ActionKind::ClearCorrupt));
    assert!(
        !corrupt(Remote::Claimed).contains(&ActionKind::ClearCorrupt),
        "a claim heals nothing before it is fetched"
    );
}

#[test]
fn the_stores_manifest_is_written_here_first_and_only_when_it_is_asked_for() {
    let told = Evidence {
        manifest: RemoteManifest::Nothing,
        local_manifest: LocalManifest::Restorable,
        ..evidence(vec![chunk(Local::Missing, same(), Mark::NoPlace)])
    };
    assert_eq!(kinds(&told), (vec![FindingKind::Missing], vec![]));
    let with = Evidence { means: Means { can_prove: true, restore: true }, ..told };
    let wanted = [ActionKind::RestoreManifest, ActionKind::Restore, ActionKind::Publish];
    assert_eq!(kinds(&with), (vec![], wanted.to_vec()));
}

#[test]
fn what_the_journal_says_and_the_store_denies_is_taken_back_and_nothing_is_for_want_of_an_answer() {
    for local in locals().into_iter().filter(|local| !matches!(local, Local::Unnamed(_))) {
        for mark in [Mark::Current, Mark::Outdated] {
            for remote in remotes() {
                let (_, actions) = kinds(&evidence(vec![chunk(local.clone(), remote.clone(), mark)]));
                let is_denied = matches!(remote, Remote::Absent | Remote::Other | Remote::Claimed);
                assert_eq!(actions.contains(&ActionKind::Unmark), is_denied, "{local:?} {remote:?} {mark:?}");
                let is_other_version = mark == Mark::Outdated && remote == same();
                assert_eq!(actions.contains(&ActionKind::Mark), is_other_version, "{local:?} {remote:?} {mark:?}");
            }
        }
    }
    let nothing = kinds(&evidence(vec![chunk(Local::Missing, same(), Mark::NoPlace)]));
    assert_eq!(nothing, (vec![FindingKind::Missing], vec![]), "what only the store knows is not marked here");
}

#[test]
fn what_was_tried_in_vain_is_told_and_not_tried_again() {
    let failed = |remote, step, is_denied| {
        let failure = Some(Failure { step, reason: "no".into(), is_denied });
        kinds(&evidence(vec![ChunkEvidence { failure, ..chunk(Local::Intact, remote, Mark::None) }]))
    };
    let replaced = (vec![], vec![ActionKind::Replace, ActionKind::Publish]);
    assert_eq!(failed(Remote::Absent, Step::Upload, false).0, [FindingKind::Failed]);
    assert_eq!(failed(Remote::Other, Step::Upload, false), replaced);
    assert_eq!(failed(Remote::Claimed, Step::Prove, false), replaced, "what can't be proven is sent again");
    assert_eq!(failed(Remote::Other, Step::Replace, true), (vec![FindingKind::NeedsOwner], vec![]));
    assert_eq!(failed(Remote::Other, Step::Replace, false), (vec![FindingKind::Failed], vec![]));
    assert_eq!(failed(Remote::Claimed, Step::Replace, false), (vec![FindingKind::Failed], vec![]));
    assert_eq!(failed(Remote::Unknown("x".into()), Step::Upload, false), (vec![FindingKind::Failed], vec![]));
    let blind = Evidence {
        means: Means { can_prove: false, restore: false },
        ..evidence(vec![chunk(Local::Intact, Remote::Claimed, Mark::None)])
    };
    assert_eq!(kinds(&blind), (vec![FindingKind::Unproven], vec![]), "sending again proves nothing there");
}

#[test]
fn a_recording_is_called_healed_only_when_every_chunk_is_known_to_be_somewhere() {
    let sound = chunk(Local::Intact, same(), Mark::Current);
    let corrupt = |chunks| Evidence { is_corrupt: true, ..evidence(chunks) };
    assert_eq!(kinds(&corrupt(vec![sound.clone()])).1, [ActionKind::ClearCorrupt]);
    for local in locals() {
        for remote in remotes() {
            let other = ChunkEvidence { name: name(1), ..chunk(local.clone(), remote.clone(), Mark::None) };
            let is_here = matches!(local, Local::Intact | Local::Unnamed(_));
            let (_, actions) = kinds(&corrupt(vec![sound.clone(), other]));
            let is_cleared = actions.contains(&ActionKind::ClearCorrupt);
            assert_eq!(is_cleared, is_here || remote == same(), "{local:?} {remote:?}");
            assert!(!actions.contains(&ActionKind::MarkCorrupt), "it is told once");
        }
    }
    let unnamed = Evidence { is_named: false, ..corrupt(vec![sound]) };
    assert_eq!(kinds(&unnamed).1, [], "without a manifest nobody knows what belongs to it");
}

#[test]
fn orphans_and_manifests_are_told() {
    let orphan = |doubt: Option<&str>| OrphanObject { key: "k".into(), chunk: None, doubt: doubt.map(Into::into) };
    let told = Evidence { orphans: vec![orphan(None), orphan(Some("denied"))], ..evidence(Vec::new()) };
    assert_eq!(kinds(&told).0, [FindingKind::OrphanObject, FindingKind::Unknown]);
    let with = |manifest| kinds(&Evidence { manifest, ..evidence(Vec::new()) });
    assert_eq!(with(RemoteManifest::Due), (vec![], vec![ActionKind::Publish]));
    assert_eq!(with(RemoteManifest::Nothing), (vec![], vec![]));
    assert_eq!(with(RemoteManifest::Unknown("x".into())), (vec![FindingKind::Unknown], vec![]));
    for kind in [
        FindingKind::Foreign,
        FindingKind::NameTaken,
        FindingKind::ManifestUnreadable,
        FindingKind::ManifestWaits,
        FindingKind::ManifestRefused,
    ] {
        assert!(!remedy(kind).is_empty());
    }
}

/// What really stands where, for one chunk.
#[derive(Debug, Clone)]
struct Truth {
    local: Local,
    /// Whether an object is there, and whether it has the chunk's bytes.
    object: Option<bool>,
    /// The store tells what it holds.
    is_told: bool,
    is_answered: bool,
    mark: Mark,
    /// Found out in this run.
    failure: Option<Failure>,
}

impl Truth {
    fn remote(&self) -> Remote {
        match self.object {
            _ if !self.is_answered => Remote::Unknown("timeout".into()),
            None => Remote::Absent,
            Some(true) if self.is_told => same(),
            Some(false) if self.is_told => Remote::Other,
            Some(_) => Remote::Claimed,
        }
    }

    fn has_bytes(&self) -> bool {
        matches!(self.local, Local::Intact | Local::Unnamed(_)) || self.object == Some(true)
    }
}

/// Carries plans out on what really stands where.
#[derive(Debug, Clone)]
struct World {
    chunks: Vec<Truth>,
    is_corrupt: bool,
    published: BTreeSet<usize>,
    /// The store refuses to overwrite.
    is_guarded: bool,
    /// A person wants all of it here.
    restore: bool,
}

impl World {
    fn marked(&self) -> BTreeSet<usize> {
        (0..self.chunks.len())
            .filter(|&index| matches!(self.chunks[index].mark, Mark::Current | Mark::Outdated))
            .collect()
    }

    fn evidence(&self) -> Evidence {
        let chunks = self.chunks.iter().enumerate().map(|(index, truth)| ChunkEvidence {
            name: name(u32::try_from(index).unwrap()),
            size_bytes: 1,
            local: truth.local.clone(),
            remote: truth.remote(),
            mark: truth.mark,
            failure: truth.failure.clone(),
        });
        let is_due = self.published != self.marked();
        let manifest = if is_due { RemoteManifest::Due } else { RemoteManifest::Current };
        let means = Means { can_prove: true, restore: self.restore };
        Evidence { manifest, is_corrupt: self.is_corrupt, means, ..evidence(chunks.collect()) }
    }

    fn carry_out(&mut self, action: &Action) {
        let index = action.chunk.map(|chunk| usize::try_from(chunk.index()).unwrap());
        let is_guarded = self.is_guarded;
        let marked = self.marked();
        match (action.kind, index.and_then(|index| self.chunks.get_mut(index))) {
            (ActionKind::Mark, Some(truth)) => truth.mark = Mark::Current,
            (ActionKind::Unmark, Some(truth)) => truth.mark = Mark::None,
            (ActionKind::Upload, Some(truth)) => {
                assert!((&truth.local, truth.object) == (&Local::Intact, None));
                (truth.object, truth.is_told, truth.mark) = (Some(true), true, Mark::Current);
            }
            (ActionKind::Prove, Some(truth)) => {
                truth.is_told = true;
                if truth.object == Some(true) {
                    truth.mark = Mark::Current;
                } else {
                    truth.failure = Some(Failure { step: Step::Prove, reason: "other".into(), is_denied: false });
                }
            }
            (ActionKind::Replace, Some(truth)) if is_guarded => {
                truth.failure = Some(Failure { step: Step::Replace, reason: "denied".into(), is_denied: true });
            }
            (ActionKind::Replace, Some(truth)) => {
                assert_eq!(truth.local, Local::Intact, "only proven bytes replace");
                (truth.object, truth.is_told, truth.mark) = (Some(true), true, Mark::Current);
            }
            (ActionKind::Restore, Some(truth)) if truth.object == Some(true) => {
                (truth.local, truth.is_told) = (Local::Intact, true);
            }
            (ActionKind::Restore, Some(truth)) => {
                assert_eq!(truth.remote(), Remote::Claimed, "what is known to be something else is not fetched");
                truth.is_told = true;
                truth.failure = Some(Failure { step: Step::Restore, reason: "other".into(), is_denied: false });
            }
            (ActionKind::MarkCorrupt, None) => self.is_corrupt = true,
            (ActionKind::ClearCorrupt, None) => self.is_corrupt = false,
            (ActionKind::Publish, None) => self.published = marked,
            (kind, truth) => panic!("{kind:?} of {truth:?}"),
        }
    }

    fn bytes(&self) -> BTreeSet<usize> {
        (0..self.chunks.len()).filter(|&index| self.chunks[index].has_bytes()).collect()
    }
}

fn truth() -> impl Strategy<Value = Truth> {
    let object = select(vec![None, Some(true), Some(false)]);
    let mark = select(vec![Mark::None, Mark::Current, Mark::Outdated]);
    (select(locals().to_vec()), object, any::<bool>(), proptest::bool::weighted(0.8), mark).prop_map(
        |(local, object, is_told, is_answered, mark)| Truth {
            local,
            object,
            is_told,
            is_answered,
            mark,
            failure: None,
        },
    )
}

fn world() -> impl Strategy<Value = World> {
    (proptest::collection::vec(truth(), 0..12), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(
        |(chunks, is_corrupt, is_guarded, restore)| {
            let published = BTreeSet::new();
            World { chunks, is_corrupt, published, is_guarded, restore }
        },
    )
}

proptest! {
    #[test]
    fn two_rounds_suffice_nothing_is_lost_and_then_there_is_nothing_to_do(mut world in world()) {
        for _ in 0..2 {
            let plan = plan(&world.evidence());
            let publishes: Vec<_> = plan.actions.iter().map(|action| action.kind == ActionKind::Publish).collect();
            let is_last = publishes.iter().position(|is| *is).is_none_or(|place| place + 1 == publishes.len());
            prop_assert!(is_last, "the manifest comes last");
            for action in &plan.actions {
                let before = world.bytes();
                world.carry_out(action);
                prop_assert!(world.bytes().is_superset(&before), "{:?} lost bytes", action);
            }
        }
        prop_assert_eq!(plan(&world.evidence()).actions, vec![]);
        for truth in world.chunks.iter().filter(|truth| world.restore && truth.is_answered && truth.object == Some(true)) {
            let is_gone = matches!(truth.local, Local::Damaged | Local::Missing | Local::Evicted);
            prop_assert!(!is_gone, "{:?} was to be fetched", truth);
        }
        if !world.is_guarded {
            // A run that knows nothing of this one's tries has nothing to do either.
            for truth in &mut world.chunks {
                truth.failure = None;
            }
            let again = plan(&world.evidence());
            prop_assert_eq!(&again.actions, &vec![]);
            prop_assert_eq!(plan(&world.evidence()), again);
        }
        for truth in world.chunks.iter().filter(|truth| truth.is_answered && truth.object == Some(false)) {
            prop_assert!(truth.mark == Mark::None || matches!(truth.local, Local::Unnamed(_)), "{:?}", truth);
        }
    }

    #[test]
    fn the_order_of_listings_does_not_matter(world in world(), seed in any::<u64>(), keys in proptest::collection::vec("[a-c]{1,3}", 0..6)) {
        let mut told = world.evidence();
        told.orphans = keys.into_iter().map(|key| OrphanObject { key, chunk: None, doubt: None }).collect();
        let mut other = told.clone();
        let mut random = seed;
        for place in (1..other.chunks.len()).rev() {
            random = random.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            other.chunks.swap(place, usize::try_from(random >> 33).unwrap() % (place + 1));
        }
        other.orphans.reverse();
        prop_assert_eq!(plan(&told), plan(&other));
    }

    #[test]
    fn what_is_not_known_is_never_taken_for_absent(world in world()) {
        let mut told = world.evidence();
        for chunk in &mut told.chunks {
            chunk.remote = Remote::Unknown("denied".into());
        }
        let plan = plan(&told);
        let is_harmless = |action: &Action| matches!(action.kind, ActionKind::Publish | ActionKind::ClearCorrupt);
        prop_assert!(plan.actions.iter().all(is_harmless), "{:?}", plan.actions);
        prop_assert!(plan.findings.iter().all(|finding| finding.kind != FindingKind::Lost));
        let named = told.chunks.iter().filter(|chunk| !matches!(chunk.local, Local::Unnamed(_) | Local::Unreadable(_)));
        let unknown = plan.findings.iter().filter(|finding| finding.kind == FindingKind::Unknown).count();
        prop_assert_eq!(unknown, named.count());
    }
}
