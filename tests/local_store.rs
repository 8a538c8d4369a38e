//! The local store: a folder that behaves like an object store.

use std::{fs, sync::Arc};

use bubbaloop_storage::{
    clock::SystemClock,
    store::{Body, ObjectStore, PutMode, StoreErrorKind, local::LocalStore, throttle::Throttle},
};
use bubbaloop_storage_schemas::Digest;

use crate::support::{
    conformance::{Subject, manifest_key},
    node::until,
};

fn opened(root: &std::path::Path) -> LocalStore {
    let store = LocalStore::new(root);
    store.open(None).unwrap();
    store
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_conforms() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(opened(&folder.path().join("bucket")));
    Subject { store, files: folder.path() }.conforms().await;
    let staged = fs::read_dir(folder.path().join("bucket/.bubbaloop/staging")).unwrap().count();
    assert_eq!(staged, 0, "nothing half-written stays");
}

#[tokio::test]
async fn nothing_is_removed_from_a_missing_store_and_no_removal_is_reported() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("bucket");
    let (store, key) = (opened(&root), manifest_key("away"));
    store.put(&key, &Body::Bytes("x".into()), PutMode::Create).await.unwrap();
    fs::rename(&root, folder.path().join("off")).unwrap();
    opened(&root).put(&key, &Body::Bytes("another disk's".into()), PutMode::Create).await.unwrap();
    let error = store.delete(&key).await.unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::Blocked(_)), "{error:?}");
    assert_eq!(fs::read(root.join(key.as_str())).unwrap(), b"another disk's");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_that_share_a_store_never_share_staged_files() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("bucket");
    let stores: Vec<_> = (0..2).map(|_| opened(&root)).collect();
    let puts = (0..40_u8).flat_map(|number| {
        stores.iter().zip([b'a', b'b']).map(move |(store, who)| async move {
            let key = manifest_key(&format!("shared_{}_{number}", char::from(who)));
            let bytes = vec![who ^ number; 300_000];
            store.put(&key, &Body::Bytes(bytes.clone().into()), PutMode::Create).await.unwrap();
            (key, bytes)
        })
    });
    for (key, bytes) in futures_util::future::join_all(puts).await {
        assert_eq!(fs::read(root.join(key.as_str())).unwrap(), bytes, "{key}");
    }
}

#[tokio::test]
async fn a_corrupt_object_is_found_by_head_and_get() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(&folder.path().join("bucket"));
    let key = manifest_key("rot");
    store.put(&key, &Body::Bytes("right".into()), PutMode::Create).await.unwrap();
    let path = folder.path().join("bucket").join(key.as_str());
    let mtime = fs::metadata(&path).unwrap().modified().unwrap();

    fs::write(&path, "wrong").unwrap();
    assert_eq!(store.head(&key).await.unwrap().unwrap().digest, Some(Digest::of(b"wrong")));

    fs::OpenOptions::new().write(true).open(&path).unwrap().set_modified(mtime).unwrap();
    let error = store.get(&key, None).await.unwrap().unwrap().collect(100).await.unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::Corrupt), "{error:?}");
}

#[tokio::test]
async fn an_object_from_another_writer_is_reported_by_its_own_bytes() {
    let folder = tempfile::tempdir().unwrap();
    let store = opened(&folder.path().join("bucket"));
    let key = manifest_key("planted");
    fs::create_dir_all(folder.path().join("bucket/robot_1/planted")).unwrap();
    fs::write(folder.path().join("bucket").join(key.as_str()), "planted").unwrap();
    assert_eq!(store.head(&key).await.unwrap().unwrap().digest, Some(Digest::of(b"planted")));
    let error = store.put(&key, &Body::Bytes("ours".into()), PutMode::Create).await.unwrap_err();
    assert!(matches!(error.kind, StoreErrorKind::AlreadyExists), "{error:?}");
}

#[tokio::test]
async fn an_unmounted_disk_blocks_and_its_mount_point_is_not_created() {
    let folder = tempfile::tempdir().unwrap();
    let mount = folder.path().join("usb");
    let store = LocalStore::new(mount.join("bucket"));
    for result in [
        store.open(None).map(drop),
        store.probe().await.map(drop),
        store.head(&manifest_key("x")).await.map(drop),
        store.list("", None, 1).await.map(drop),
        store.put(&manifest_key("x"), &Body::Bytes("x".into()), PutMode::Create).await.map(drop),
    ] {
        let StoreErrorKind::Blocked(block) = result.unwrap_err().kind else { panic!("not blocked") };
        assert_eq!(block.reason, "local_path_missing");
        assert!(block.hint.contains("local_path"), "{}", block.hint);
    }
    assert!(!mount.exists());

    fs::create_dir(&mount).unwrap();
    store.probe().await.unwrap();
    store.put(&manifest_key("x"), &Body::Bytes("x".into()), PutMode::Create).await.unwrap();
}

#[tokio::test]
async fn half_written_files_of_a_crash_are_swept_and_never_listed() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("bucket");
    let store = opened(&root);
    let left = root.join(".bubbaloop/staging/9.9.tmp");
    fs::write(&left, "half").unwrap();
    assert!(store.list("", None, 10).await.unwrap().objects.is_empty());
    opened(&root);
    assert!(left.exists(), "it may be another writer's");
    let old = std::time::SystemTime::now() - std::time::Duration::from_secs(4000);
    fs::File::open(&left).unwrap().set_modified(old).unwrap();
    opened(&root);
    assert!(!left.exists());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disk_that_is_removed_during_a_put_leaves_nothing_at_its_mount_point() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("bucket");
    let mark = opened(&root).open(None).unwrap();
    // The write is slow enough that the disk is removed meanwhile.
    let throttle = Arc::new(Throttle::new(Arc::new(SystemClock::start())));
    throttle.set(Some(1024 * 1024));
    let store = LocalStore::new(&*root).throttled(throttle);
    store.open(Some(&mark)).unwrap();
    let path = folder.path().join("chunk");
    let content = vec![7; 2 * 1024 * 1024];
    fs::write(&path, &content).unwrap();
    let body = Body::File { path, digest: Digest::of(&content) };
    let put = tokio::spawn(async move { store.put(&manifest_key("x"), &body, PutMode::Create).await });
    let staging = root.join(".bubbaloop/staging");
    until("it is being written", || fs::read_dir(&staging).unwrap().count() > 0);
    fs::rename(&root, folder.path().join("away")).unwrap();
    fs::create_dir(&root).unwrap();
    put.await.unwrap().unwrap_err();
    assert_eq!(fs::read_dir(&root).unwrap().count(), 0);
    let StoreErrorKind::Blocked(block) = LocalStore::new(&*root).open(Some(&mark)).unwrap_err().kind else {
        panic!("not blocked")
    };
    assert_eq!(block.reason, "local_path_changed", "it is not taken for a store that a person made");
}
