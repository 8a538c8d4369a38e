//! The conformance suite of object stores: every adapter and every real server passes it.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::Arc,
};

use bubbaloop_storage::{
    content::ContentError,
    policy::parts::{ListedPart, SentPart},
    store::{Body, FilePart, MultipartStore, ObjectStore, PartSupport, PutMode, StoreErrorKind},
};
use bubbaloop_storage_schemas::{ChunkName, Digest, MachineId, RecordingName, keys::ObjectKey, limits::BLOCK_BYTES};
use tokio::task::JoinSet;

/// Size of all parts of an upload but the last one: S3 takes no smaller ones.
const PART_BYTES: usize = 5 * 1024 * 1024;

/// A store under test, and a folder for chunk files.
pub(crate) struct Subject<'a> {
    pub store: Arc<dyn ObjectStore>,
    pub files: &'a Path,
}

pub(crate) fn machine() -> MachineId {
    "robot_1".parse().unwrap()
}

pub(crate) fn recording(name: &str) -> RecordingName {
    name.parse().unwrap()
}

pub(crate) fn manifest_key(name: &str) -> ObjectKey {
    ObjectKey::manifest(&machine(), &recording(name))
}

fn bytes(text: &str) -> Body {
    Body::Bytes(text.to_owned().into())
}

fn pattern(size: usize) -> Vec<u8> {
    (0..=250).cycle().take(size).collect()
}

/// A file whose upload in parts was begun.
struct PartedFile {
    path: PathBuf,
    content: Vec<u8>,
    key: ObjectKey,
    upload_id: String,
}

impl PartedFile {
    /// Returns a part of the file as it is to be sent. Numbers count from 1.
    fn part(&self, number: u32) -> FilePart {
        let begin = PART_BYTES * (number as usize - 1);
        let end = self.content.len().min(begin + PART_BYTES);
        FilePart {
            path: self.path.clone(),
            range: begin as u64..end as u64,
            digest: Digest::of(&self.content[begin..end]),
            is_suspect: false,
        }
    }
}

impl Subject<'_> {
    /// Checks every claim. Each uses its own keys.
    pub(crate) async fn conforms(&self) {
        // The probe finds which claims the adapter has to ensure itself.
        let probe = self.store.probe().await.unwrap();
        self.an_object_is_read_as_it_was_put().await;
        self.a_missing_object_is_no_error().await;
        self.create_only_leaves_an_existing_object_untouched().await;
        self.exactly_one_of_racing_creators_wins(probe.honours_create_only).await;
        self.an_overwrite_is_seen_at_once().await;
        self.an_update_replaces_only_the_version_that_it_names().await;
        self.a_damaged_or_absent_file_never_becomes_an_object().await;
        self.a_range_is_the_bytes_that_it_names().await;
        self.a_listing_is_complete_ordered_and_paged().await;
        self.folders_are_listed_without_their_content().await;
        self.a_removed_object_is_gone_and_removing_it_again_is_no_error().await;
        let takes_parts = match self.store.multipart() {
            None => false,
            Some(multi) => {
                matches!(multi.support().await.unwrap(), PartSupport::Unchecked | PartSupport::Checked)
            }
        };
        if takes_parts {
            self.parts_in_any_order_become_the_object_and_nothing_is_visible_before().await;
            self.an_upload_is_gone_on_with_by_its_list_of_parts().await;
            self.an_aborted_upload_is_gone_and_leaves_no_object().await;
            self.a_part_with_other_bytes_than_its_digest_is_never_sent().await;
            self.an_upload_with_a_missing_part_becomes_no_object().await;
            self.an_upload_leaves_an_object_of_its_key_untouched().await;
        }
        self.a_probe_leaves_nothing_behind().await;
    }

    /// Returns the port for uploads in parts.
    fn multi(&self) -> &dyn MultipartStore {
        self.store.multipart().expect("the store takes parts")
    }

    /// Writes a file of two parts of the smallest size that S3 allows and a short one, and begins its upload.
    async fn begin(&self, name: &str) -> PartedFile {
        let content = pattern(2 * PART_BYTES + 1000);
        let Body::File { path, digest } = self.file(name, &content) else { unreachable!() };
        let key = ObjectKey::chunk(&machine(), &recording(name), ChunkName::new(0, &digest));
        let upload_id = self.multi().begin(&key, digest).await.unwrap();
        PartedFile { path, content, key, upload_id }
    }

    async fn put_part(&self, file: &PartedFile, number: u32) -> SentPart {
        self.multi().put_part(&file.key, &file.upload_id, number, &file.part(number)).await.unwrap()
    }

    /// Returns the parts that the store lists, by number; `None` where it does not know the upload.
    async fn listed(&self, file: &PartedFile) -> Option<BTreeMap<u32, ListedPart>> {
        let listed = self.multi().parts(&file.key, &file.upload_id).await.unwrap()?;
        Some(listed.into_iter().map(|part| (part.number, part)).collect())
    }

    async fn parts_in_any_order_become_the_object_and_nothing_is_visible_before(&self) {
        let file = self.begin("parts_order").await;
        let mut sent = BTreeMap::new();
        for number in [3, 1, 2] {
            sent.insert(number, self.put_part(&file, number).await);
            assert!(self.store.head(&file.key).await.unwrap().is_none(), "after part {number}");
        }
        let prefix = "robot_1/parts_order/";
        assert!(self.store.list(prefix, None, 10).await.unwrap().objects.is_empty());
        let stored = self.multi().complete(&file.key, &file.upload_id, &sent).await.unwrap();
        let meta = self.store.head(&file.key).await.unwrap().expect("the object is there");
        assert_eq!((meta.size_bytes, &meta.etag), (file.content.len() as u64, &stored.etag));
        assert!(self.content(&file.key).await == file.content, "the object has the file's bytes");
        assert_eq!(self.store.list(prefix, None, 10).await.unwrap().objects.len(), 1);
        assert_eq!(self.listed(&file).await, None, "a completed upload is not known any more");
    }

    async fn an_upload_is_gone_on_with_by_its_list_of_parts(&self) {
        let file = self.begin("parts_resumed").await;
        assert_eq!(self.listed(&file).await, Some(BTreeMap::new()));
        let mut sent = BTreeMap::new();
        // Part 2 is sent twice: the later one takes the place of the earlier one.
        for number in [2, 2, 3] {
            sent.insert(number, self.put_part(&file, number).await);
        }
        let listed = self.listed(&file).await.expect("the upload is known");
        assert_eq!(listed.keys().collect::<Vec<_>>(), [&2, &3]);
        for (number, part) in &listed {
            assert_eq!(part.size_bytes, sent[number].size_bytes);
            assert!(part.etag.as_ref().is_none_or(|etag| *etag == sent[number].etag), "{part:?}: {:?}", sent[number]);
        }
        sent.insert(1, self.put_part(&file, 1).await);
        self.multi().complete(&file.key, &file.upload_id, &sent).await.unwrap();
        assert!(self.content(&file.key).await == file.content, "the object has the file's bytes");
    }

    async fn an_aborted_upload_is_gone_and_leaves_no_object(&self) {
        let file = self.begin("parts_aborted").await;
        let sent = BTreeMap::from([(1, self.put_part(&file, 1).await)]);
        for _ in 0..2 {
            self.multi().abort(&file.key, &file.upload_id).await.unwrap();
            assert_eq!(self.listed(&file).await, None);
        }
        let put = self.multi().put_part(&file.key, &file.upload_id, 2, &file.part(2)).await.unwrap_err();
        let completed = self.multi().complete(&file.key, &file.upload_id, &sent).await.unwrap_err();
        for error in [put, completed] {
            assert!(matches!(error.kind, StoreErrorKind::Changed), "{error:?}");
        }
        assert!(self.store.head(&file.key).await.unwrap().is_none());
    }

    async fn a_part_with_other_bytes_than_its_digest_is_never_sent(&self) {
        let file = self.begin("parts_damaged").await;
        self.put_part(&file, 1).await;
        for is_suspect in [false, true] {
            let part = FilePart { digest: Digest::of(b"other"), is_suspect, ..file.part(2) };
            let error = self.multi().put_part(&file.key, &file.upload_id, 2, &part).await.unwrap_err();
            let is_refused = matches!(error.kind, StoreErrorKind::Content(_) | StoreErrorKind::BadDigest);
            assert!(is_refused, "{error:?}");
        }
        let listed = self.listed(&file).await.expect("the upload is known");
        assert_eq!(listed.into_keys().collect::<Vec<_>>(), [1]);
        self.multi().abort(&file.key, &file.upload_id).await.unwrap();
    }

    async fn an_upload_with_a_missing_part_becomes_no_object(&self) {
        let file = self.begin("parts_missing").await;
        let mut sent = BTreeMap::new();
        for number in [1, 3] {
            sent.insert(number, self.put_part(&file, number).await);
        }
        sent.insert(2, SentPart { etag: "0123456789abcdef0123456789abcdef".into(), ..sent[&1].clone() });
        let error = self.multi().complete(&file.key, &file.upload_id, &sent).await.unwrap_err();
        assert!(!matches!(error.kind, StoreErrorKind::AlreadyExists), "{error:?}");
        assert!(self.store.head(&file.key).await.unwrap().is_none(), "{error:?}");
        self.multi().abort(&file.key, &file.upload_id).await.unwrap();
    }

    async fn an_upload_leaves_an_object_of_its_key_untouched(&self) {
        let file = self.begin("parts_late").await;
        let mut sent = BTreeMap::new();
        for number in [1, 2, 3] {
            sent.insert(number, self.put_part(&file, number).await);
        }
        self.store.put(&file.key, &bytes("first"), PutMode::Create).await.unwrap();
        let error = self.multi().complete(&file.key, &file.upload_id, &sent).await.unwrap_err();
        assert!(matches!(error.kind, StoreErrorKind::AlreadyExists), "{error:?}");
        assert_eq!(self.content(&file.key).await, b"first");
        self.multi().abort(&file.key, &file.upload_id).await.unwrap();
    }

    fn file(&self, name: &str, content: &[u8]) -> Body {
        let path = self.files.join(name);
        std::fs::write(&path, content).unwrap();
        Body::File { path, digest: Digest::of(content) }
    }

    async fn content(&self, key: &ObjectKey) -> Vec<u8> {
        self.store.get(key, None).await.unwrap().expect("the object is there").collect(u64::MAX).await.unwrap()
    }

    async fn an_object_is_read_as_it_was_put(&self) {
        for size in [0, 1, BLOCK_BYTES, 5 * 1024 * 1024 + 1] {
            let content = pattern(size);
            let digest = Digest::of(&content);
            let key = ObjectKey::chunk(&machine(), &recording("round"), ChunkName::new(0, &digest));
            let etag = self.store.put(&key, &self.file("round", &content), PutMode::Create).await.unwrap().etag;
            let meta = self.store.head(&key).await.unwrap().expect("the object is there");
            assert_eq!((meta.size_bytes, &meta.etag, &meta.key), (size as u64, &etag, &key));
            assert!(meta.digest.is_none_or(|told| told == digest), "{size}");
            assert_eq!(self.content(&key).await, content, "{size}");
        }
    }

    async fn a_missing_object_is_no_error(&self) {
        let key = manifest_key("absent");
        assert!(self.store.head(&key).await.unwrap().is_none());
        assert!(self.store.get(&key, None).await.unwrap().is_none());
        assert!(self.store.list("robot_1/absent/", None, 10).await.unwrap().objects.is_empty());
    }

    async fn create_only_leaves_an_existing_object_untouched(&self) {
        let key = manifest_key("create");
        self.store.put(&key, &bytes("first"), PutMode::Create).await.unwrap();
        let error = self.store.put(&key, &bytes("second"), PutMode::Create).await.unwrap_err();
        assert!(matches!(error.kind, StoreErrorKind::AlreadyExists), "{error:?}");
        assert_eq!(self.content(&key).await, b"first");
    }

    /// If the store ignores the condition, the adapter looks before the put. Another writer may come between, and then
    /// each of them succeeds. The object of one writer stays, complete.
    async fn exactly_one_of_racing_creators_wins(&self, honours_create_only: bool) {
        let key = manifest_key("race");
        let mut racers = JoinSet::new();
        for number in 0..8 {
            let (store, key) = (Arc::clone(&self.store), key.clone());
            racers.spawn(
                async move { store.put(&key, &bytes(&number.to_string()), PutMode::Create).await.map(|_| number) },
            );
        }
        let winners: Vec<_> = racers.join_all().await.into_iter().flatten().collect();
        assert!(winners.len() == 1 || !honours_create_only && winners.len() > 1, "{winners:?}");
        let content = self.content(&key).await;
        assert!(winners.iter().any(|winner| winner.to_string().as_bytes() == content), "{winners:?}");
        let digest = self.store.head(&key).await.unwrap().unwrap().digest;
        assert!(digest.is_none_or(|told| told == Digest::of(&content)));
    }

    async fn an_overwrite_is_seen_at_once(&self) {
        let key = manifest_key("overwrite");
        let mut etags = Vec::new();
        for text in ["one", "two", ""] {
            etags.push(self.store.put(&key, &bytes(text), PutMode::Overwrite).await.unwrap().etag);
            assert_eq!(self.content(&key).await, text.as_bytes());
        }
        etags.dedup();
        assert_eq!(etags.len(), 3, "another content has another ETag");
    }

    async fn an_update_replaces_only_the_version_that_it_names(&self) {
        let key = manifest_key("update");
        let absent = self.store.put(&key, &bytes("x"), PutMode::Update("none".into())).await.unwrap_err();
        assert!(matches!(absent.kind, StoreErrorKind::Changed), "{absent:?}");
        let first = self.store.put(&key, &bytes("one"), PutMode::Create).await.unwrap().etag;
        self.store.put(&key, &bytes("two"), PutMode::Update(first.clone())).await.unwrap();
        let stale = self.store.put(&key, &bytes("three"), PutMode::Update(first)).await.unwrap_err();
        assert!(matches!(stale.kind, StoreErrorKind::Changed), "{stale:?}");
        assert_eq!(self.content(&key).await, b"two");
    }

    async fn a_damaged_or_absent_file_never_becomes_an_object(&self) {
        let key = manifest_key("damaged");
        for size in [1, 3 * BLOCK_BYTES] {
            let Body::File { path, .. } = self.file("damaged", &pattern(size)) else { unreachable!() };
            let body = Body::File { path, digest: Digest::of(b"other") };
            let error = self.store.put(&key, &body, PutMode::Create).await.unwrap_err();
            assert!(matches!(error.kind, StoreErrorKind::Content(ContentError::Damaged { .. })), "{error:?}");
        }
        let body = Body::File { path: self.files.join("none"), digest: Digest::of(b"") };
        let error = self.store.put(&key, &body, PutMode::Create).await.unwrap_err();
        assert!(matches!(error.kind, StoreErrorKind::Content(ContentError::Gone(_))), "{error:?}");
        assert!(self.store.head(&key).await.unwrap().is_none());
    }

    async fn a_range_is_the_bytes_that_it_names(&self) {
        let content = pattern(2 * BLOCK_BYTES + 10);
        let key = manifest_key("range");
        self.store.put(&key, &Body::Bytes(content.clone().into()), PutMode::Create).await.unwrap();
        for range in [0..1, 5..BLOCK_BYTES + 9, content.len() - 3..content.len()] {
            let part = self.store.get(&key, Some(range.start as u64..range.end as u64)).await.unwrap().unwrap();
            assert_eq!(part.meta.size_bytes, content.len() as u64, "of the whole object");
            assert_eq!(part.collect(u64::MAX).await.unwrap(), content[range]);
        }
        let end = content.len() as u64;
        for (range, expected) in [(end - 1..end + 10, &content[content.len() - 1..]), (end..end + 1, &[]), (3..3, &[])]
        {
            let part = self.store.get(&key, Some(range)).await.unwrap().unwrap();
            assert_eq!(part.collect(u64::MAX).await.unwrap(), expected, "what is beyond the end is left out");
        }
    }

    async fn a_listing_is_complete_ordered_and_paged(&self) {
        let mut keys: Vec<_> = (0..5_u32)
            .map(|number| ChunkName::new(number, &Digest::of(&number.to_be_bytes())))
            .map(|chunk| ObjectKey::chunk(&machine(), &recording("list"), chunk))
            .chain(["list", "list-2"].map(manifest_key))
            .collect();
        for key in &keys {
            self.store.put(key, &bytes(key.as_str()), PutMode::Create).await.unwrap();
        }
        keys.retain(|key| key.as_str().starts_with("robot_1/list/"));
        keys.sort();
        for limit in [1, 2, 6, 100] {
            let (mut found, mut after) = (Vec::new(), None);
            loop {
                let page = self.store.list("robot_1/list/", after.as_deref(), limit).await.unwrap();
                assert!(page.objects.len() <= limit);
                found.extend(page.objects.into_iter().map(|meta| meta.key));
                after = page.next_after;
                if after.is_none() {
                    break;
                }
            }
            assert_eq!(found, keys, "pages of {limit}");
        }
    }

    async fn folders_are_listed_without_their_content(&self) {
        for (machine, name) in
            [("fleet_1", "b"), ("fleet_1", "a"), ("fleet_1", "a"), ("fleet-1", "c"), ("fleet_10", "d")]
        {
            let key = ObjectKey::manifest(&machine.parse().unwrap(), &recording(name));
            self.store.put(&key, &bytes("x"), PutMode::Overwrite).await.unwrap();
        }
        assert_eq!(self.store.list_folders("fleet_1/").await.unwrap(), ["a", "b"]);
        assert_eq!(self.store.list_folders("fleet_2/").await.unwrap(), [""; 0]);
        let machines = self.store.list_folders("").await.unwrap();
        for machine in ["fleet_1", "fleet-1", "fleet_10", "robot_1"] {
            assert!(machines.iter().any(|found| found == machine), "{machine}: {machines:?}");
        }
        assert!(machines.is_sorted() && machines.iter().all(|found| !found.contains('/')), "{machines:?}");
    }

    async fn a_removed_object_is_gone_and_removing_it_again_is_no_error(&self) {
        let key = manifest_key("remove");
        self.store.put(&key, &bytes("x"), PutMode::Create).await.unwrap();
        for _ in 0..2 {
            self.store.delete(&key).await.unwrap();
            assert!(self.store.head(&key).await.unwrap().is_none());
        }
        self.store.put(&key, &bytes("y"), PutMode::Create).await.unwrap();
    }

    async fn a_probe_leaves_nothing_behind(&self) {
        let before = self.store.list("", None, 1000).await.unwrap();
        self.store.probe().await.unwrap();
        assert_eq!(self.store.list("", None, 1000).await.unwrap(), before);
    }
}
