//! Homes and stores that older versions wrote. This version gives the same answers, and sends nothing again.
//!
//! `fixtures/home_v0_1/README.md` describes the fixture and how it was made.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs::{self, File},
    os::unix::fs::{MetadataExt, PermissionsExt},
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use bubbaloop_storage::library::identity::HomeLock;
use bubbaloop_storage_schemas::Digest;
use serde::Deserialize;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::support::{node::until, proxy::Proxy, servers::Server};

const MIB: usize = 1024 * 1024;

/// The folder that held the fixture's homes when they were written: some files contain paths.
const FIXED: &str = "/tmp/bubbaloop_home_v0_1";

/// Size of a part in the S3 home's settings.
const PART_BYTES: usize = 5 * MIB;

/// What git does not keep of a file.
#[derive(Debug, Deserialize)]
struct Kept {
    mtime_s: u64,
    /// It is a second name of this file.
    link_to: Option<PathBuf>,
    /// It is large: its bytes are those of [`pattern`].
    size_bytes: Option<usize>,
    seed: Option<u32>,
    #[serde(default)]
    is_private: bool,
}

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fixtures/home_v0_1")
}

fn json_at(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// Returns the bytes of a large chunk, as `make.py` makes them.
fn pattern(size: usize, seed: u32) -> Vec<u8> {
    let line: Vec<u8> =
        (0..2048).flat_map(|number| *Digest::of(format!("{seed} {number}").as_bytes()).as_bytes()).collect();
    line.into_iter().cycle().take(size).collect()
}

/// A copy of one of the fixture's homes. Its processes see it at the path that it had when it was written.
struct Home {
    folder: TempDir,
    name: &'static str,
    node: Option<Child>,
}

impl Drop for Home {
    fn drop(&mut self) {
        if let Some(node) = &mut self.node {
            node.kill().and_then(|()| node.wait()).ok();
        }
    }
}

impl Home {
    fn laid_out(name: &'static str) -> Self {
        let home = Self { folder: tempfile::tempdir().unwrap(), name, node: None };
        let mut files: BTreeMap<String, BTreeMap<String, Kept>> =
            serde_json::from_value(json_at(&fixture().join("files.json"))).unwrap();
        for (file, kept) in files.remove(name).unwrap() {
            home.lay_out(&file, &kept);
        }
        home
    }

    fn lay_out(&self, file: &str, kept: &Kept) {
        let root = self.root();
        let original = kept.link_to.as_ref().map(|original| root.join(original));
        let inode = original.as_ref().map_or(0, |original| fs::metadata(original).unwrap().ino());
        let path = root.join(file.replace("@INODE@", &inode.to_string()));
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        match (original, kept.size_bytes, kept.seed) {
            (Some(original), ..) => fs::hard_link(original, &path).unwrap(),
            (None, Some(size), Some(seed)) => fs::write(&path, pattern(size, seed)).unwrap(),
            _ => {
                fs::copy(fixture().join(self.name).join(file), &path).unwrap();
                self.set_now(&path);
            }
        }
        let mode = if kept.is_private { 0o600 } else { 0o644 };
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        File::open(&path).unwrap().set_modified(UNIX_EPOCH + Duration::from_secs(kept.mtime_s)).unwrap();
    }

    /// Writes the present time in the place of a placeholder.
    fn set_now(&self, path: &Path) {
        if path.file_name().is_some_and(|name| name == "dead_letter.json") {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos();
            let text = fs::read_to_string(path).unwrap();
            fs::write(path, text.replace("@NOW_NS@", &now.to_string())).unwrap();
        }
    }

    fn root(&self) -> PathBuf {
        self.folder.path().join(self.name)
    }

    fn recording(&self, name: &str) -> PathBuf {
        self.root().join("home/recordings").join(name)
    }

    /// Returns a command of the binary. It runs in its own mount namespace, so that tests can use the same path at the
    /// same time.
    fn command(&self, arguments: &[&str]) -> Command {
        fs::create_dir_all(FIXED).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "sh", "-c", "mount --bind \"$0\" \"$1\" && shift && exec \"$@\""]);
        command.arg(self.folder.path()).args([FIXED, env!("CARGO_BIN_EXE_bubbaloop-storage")]).args(arguments);
        command.arg("--home").arg(Path::new(FIXED).join(self.name).join("home")).current_dir("/");
        command
    }

    fn run(&self, arguments: &[&str]) -> Output {
        self.command(arguments).output().unwrap()
    }

    fn ask(&self, arguments: &[&str]) -> Value {
        let output = self.run(&[arguments, &["--json"]].concat());
        assert!(output.status.success(), "{arguments:?}: {output:?}");
        serde_json::from_slice(&output.stdout).unwrap()
    }

    fn start(&mut self) {
        let log = File::options().append(true).create(true).open(self.folder.path().join("log")).unwrap();
        let mut command = self.command(&["serve"]);
        let node = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
        let pid = node.id();
        self.node = Some(node);
        let home = self.root().join("home");
        until("the node is on the bus", || {
            HomeLock::holder(&home).is_some_and(|holder| holder.pid == pid && !holder.endpoints.is_empty())
        });
        until("the node has scanned", || self.run(&["list"]).status.success());
    }

    /// Returns the journal of a recording.
    fn journal(&self, recording: &str) -> Vec<Value> {
        let text = fs::read_to_string(self.recording(recording).join("uploads.jsonl")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// Asks everything that the older version was asked.
    fn answers(&self, more: &[&str]) -> Value {
        let ask = |words: &[&str]| self.ask(&[words, more].concat());
        let list = ask(&["list"]);
        let names = list["recordings"].as_array().unwrap().iter().map(|row| row["recording"].as_str().unwrap());
        let info: serde_json::Map<_, _> =
            names.filter(|name| !name.contains('/')).map(|name| (name.to_owned(), ask(&["info", name]))).collect();
        let mut found = json!({"list": list.clone(), "info": info});
        for verb in ["status", "dead-letters", "jobs", "config"] {
            found[verb] = ask(&[verb]);
        }
        found
    }

    /// Returns the files of the home and the store with their digests, without the node's own files.
    fn files(&self) -> BTreeMap<PathBuf, Digest> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.root()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(&folder).unwrap() {
                let path = entry.unwrap().path();
                let short = path.strip_prefix(self.root()).unwrap().to_owned();
                if path.is_dir() && short != Path::new("home/storage") && !short.ends_with(".bubbaloop") {
                    folders.push(path);
                } else if path.is_file() {
                    found.insert(short, Digest::of(&fs::read(&path).unwrap()));
                }
            }
        }
        found
    }
}

/// Fields that differ from run to run, by their path in the answers.
const VOLATILE: [&str; 7] = [
    "/status/started_at",
    "/status/started_at_ns",
    "/status/disk_free_bytes",
    "/status/version",
    "/dead-letters/*/last_tried_at",
    "/dead-letters/*/last_tried_at_ns",
    "/status/clock_offset_ms",
];

/// Fields with text for people, which later versions may reword. Only their presence is compared.
const PROSE: [&str; 3] = ["reason", "hint", "message"];

/// Collects the differences of `new` from `old`. New fields are no difference.
fn differences(path: &str, old: &Value, new: &Value, found: &mut Vec<String>) {
    if VOLATILE.contains(&path) {
        return;
    }
    match (old, new) {
        (Value::Object(old), Value::Object(new)) => {
            for (key, old) in old {
                let new = new.get(key).unwrap_or(&Value::Null);
                if PROSE.contains(&key.as_str())
                    && !path.starts_with("/dead-letters")
                    && old.is_string()
                    && new.is_string()
                {
                    continue;
                }
                differences(&format!("{path}/{key}"), old, new, found);
            }
        }
        (Value::Array(old), Value::Array(new)) if path == "/config/settings" => {
            for old in old {
                let new = new.iter().find(|new| new["key"] == old["key"]).unwrap_or(&Value::Null);
                differences(&format!("{path}/{}", old["key"]), old, new, found);
            }
        }
        (Value::Array(old), Value::Array(new)) if old.len() == new.len() => {
            let path = if path == "/dead-letters/dead_letters" { "/dead-letters/*" } else { path };
            old.iter().zip(new).for_each(|(old, new)| differences(path, old, new, found));
        }
        _ if old == new => {}
        _ => found.push(format!("{path}: {old} became {new}")),
    }
}

fn says_the_same(file: &str, new: &Value) {
    let mut found = Vec::new();
    differences("", &json_at(&fixture().join(file)), new, &mut found);
    assert!(found.is_empty(), "{file}: {found:#?}");
}

#[test]
fn every_kind_of_journal_line_is_in_the_fixture() {
    let mut kinds = BTreeSet::new();
    for home in [Home::laid_out("local"), Home::laid_out("s3")] {
        for entry in fs::read_dir(home.recording("")).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            kinds.extend(home.journal(&name).iter().filter_map(|line| line["kind"].as_str().map(str::to_owned)));
        }
    }
    let schema =
        fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../schemas/json/journal_line.schema.json"));
    let schema: Value = serde_json::from_str(&schema.unwrap()).unwrap();
    let mut known = 0;
    for kind in schema["oneOf"].as_array().unwrap() {
        let kind = kind["properties"]["kind"]["const"].as_str().unwrap();
        assert!(kinds.contains(kind), "no line of kind {kind}: {kinds:?}");
        known += 1;
    }
    assert!(known >= 13, "the kinds of lines are found in the schema");
}

#[test]
fn a_home_of_the_first_version_gives_the_same_answers_without_a_node() {
    for (name, answers) in [("local", "answers.local.offline.json"), ("s3", "answers.s3.offline.json")] {
        let home = Home::laid_out(name);
        says_the_same(answers, &home.answers(&["--offline"]));
    }
}

#[test]
fn a_node_in_a_home_of_the_first_version_gives_the_same_answers_and_sends_only_what_was_pending() {
    let mut home = Home::laid_out("local");
    let before = home.files();
    home.start();
    says_the_same("answers.local.bus.json", &home.answers(&[]));
    assert_eq!(home.files(), before, "nothing is sent, removed or written while uploads are paused");

    let pending = home.ask(&["info", "drive_pending"]);
    let chunks = pending["chunks"].as_array().unwrap().iter().map(|chunk| chunk["name"].as_str().unwrap());
    let mut expected: BTreeSet<_> = chunks.map(|name| format!("chunks/{name}")).collect();
    assert_eq!(expected.len(), 2);
    expected.insert("manifest.json".into());
    let expected: BTreeSet<_> =
        expected.iter().map(|name| Path::new("store/fixture_1/drive_pending").join(name)).collect();
    home.ask(&["resume"]);
    until("what was pending is published", || {
        home.journal("drive_pending").iter().any(|line| line["kind"] == "published")
    });
    let after = home.files();
    let journals = |path: &PathBuf| path.ends_with("drive_pending/uploads.jsonl");
    let new: BTreeSet<_> =
        after.keys().filter(|path| !before.contains_key(*path) && !journals(path)).cloned().collect();
    assert_eq!(new, expected, "what was evicted, given up, withdrawn or uploaded is not sent");
    let changed: Vec<_> = before.iter().filter(|(path, digest)| after.get(*path) != Some(digest)).collect();
    assert!(changed.iter().all(|(path, _)| path.ends_with("drive_pending/manifest.json")), "{changed:#?}");
    assert_eq!(home.ask(&["dead-letters"])["dead_letters"].as_array().unwrap().len(), 2);
}

/// Puts the objects of the S3 home into the server, and the parts of the interrupted upload. Returns the id of that
/// upload.
async fn restore_bucket(server: &Server, home: &Home) -> String {
    server.bucket("fixture").await;
    let objects = home.root().join("objects");
    for (path, _) in home.files() {
        let Ok(key) = path.strip_prefix("objects") else { continue };
        let content = fs::read(objects.join(key)).unwrap();
        let answer = server.request("PUT", &format!("fixture/{}", key.display()), &[], &content).await.unwrap();
        assert_eq!(answer.status, 200, "{}", key.display());
    }
    let large = begun(server, home, "drive_large", 0).await;
    let parts = home.journal("drive_large").into_iter().filter(|line| line["kind"] == "part_sent");
    let parts = parts.map(|line| {
        let etag = line["etag"].as_str().unwrap().to_owned();
        format!("<Part><PartNumber>{}</PartNumber><ETag>{etag}</ETag></Part>", line["number"])
    });
    let parts = format!("<CompleteMultipartUpload>{}</CompleteMultipartUpload>", parts.collect::<String>());
    let done = server.request("POST", &large, &[], parts.as_bytes()).await.unwrap();
    assert_eq!(done.status, 200, "{}", String::from_utf8_lossy(&done.body));
    let half = begun(server, home, "drive_half", 1).await;
    half.split_once("uploadId=").unwrap().1.to_owned()
}

/// Begins the upload of a recording's chunk in parts, and sends the parts that its journal names. Returns the path of
/// the upload.
async fn begun(server: &Server, home: &Home, recording: &str, seed: u32) -> String {
    let journal = home.journal(recording);
    let begun = journal.iter().find(|line| line["kind"] == "upload_begun").unwrap();
    let path = format!("fixture/fleet/{}", begun["key"].as_str().unwrap());
    let answer = server.request("POST", &format!("{path}?uploads"), &[], b"").await.unwrap();
    let text = String::from_utf8(answer.body).unwrap();
    let id = text.split_once("<UploadId>").unwrap().1.split_once("</UploadId>").unwrap().0.to_owned();
    for line in journal.iter().filter(|line| line["kind"] == "part_sent") {
        let (number, size) = (line["number"].as_u64().unwrap(), line["size_bytes"].as_u64().unwrap());
        let (number, size) = (usize::try_from(number).unwrap(), usize::try_from(size).unwrap());
        let content = pattern(number * PART_BYTES, seed).split_off((number - 1) * PART_BYTES);
        let path = format!("{path}?partNumber={number}&uploadId={id}");
        let answer = server.request("PUT", &path, &[], &content[..size]).await.unwrap();
        assert_eq!(answer.status, 200, "{path}");
    }
    format!("{path}?uploadId={id}")
}

/// Replaces text in a file.
fn replace(path: &Path, from: &str, to: &str) {
    let text = fs::read_to_string(path).unwrap();
    fs::write(path, text.replace(from, to)).unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_chunk_that_the_first_version_half_sent_is_continued() {
    const SIZE: usize = 16 * MIB;
    let server = Server::seaweedfs().await;
    let mut home = Home::laid_out("s3");
    let upload_id = restore_bucket(&server, &home).await;
    let proxy = Proxy::start(&server.endpoint).await;
    // The server has another address than the first one, which changes the store's id. It also chose another id for the
    // upload.
    let config = home.root().join("home/config.toml");
    let store_id = |home: &Home| home.ask(&["status", "--offline"])["store"]["store_id"].as_str().unwrap().to_owned();
    let old_id = store_id(&home);
    replace(&config, "http://127.0.0.1:18333", &proxy.endpoint);
    replace(&home.root().join("home/secrets.toml"), "test-secret", crate::support::servers::SECRET);
    let new_id = store_id(&home);
    let recordings = ["drive_half", "drive_large", "drive_offered", "drive_small", "drive_withdrawn"];
    for name in recordings {
        replace(&home.recording(name).join("uploads.jsonl"), &old_id, &new_id);
    }
    replace(&home.root().join("home/storage/state.json"), &old_id, &new_id);
    let old_upload = home.journal("drive_half")[0]["upload_id"].as_str().unwrap().to_owned();
    replace(&home.recording("drive_half").join("uploads.jsonl"), &old_upload, &upload_id);
    let before = home.files();

    home.start();
    until("the manifest is written", || home.journal("drive_half").iter().any(|line| line["kind"] == "published"));
    let journal = home.journal("drive_half");
    let kinds: Vec<_> = journal.iter().map(|line| line["kind"].as_str().unwrap()).collect();
    assert_eq!(
        kinds,
        ["upload_begun", "part_sent", "part_sent", "part_sent", "part_sent", "upload_ended", "uploaded", "published"]
    );
    assert_eq!(journal[5]["upload_id"], json!(upload_id));
    assert!(proxy.sent() < (SIZE - PART_BYTES + MIB) as u64, "what was sent is not sent again: {}", proxy.sent());
    let key = format!("fixture/fleet/{}", journal[0]["key"].as_str().unwrap());
    assert!(server.content(&key).await.unwrap() == pattern(SIZE, 1), "the object is whole");
    let mut after = home.files();
    let own = Path::new("home/recordings/drive_half");
    after.retain(|path, _| !path.starts_with(own));
    let others: BTreeMap<_, _> = before.into_iter().filter(|(path, _)| !path.starts_with(own)).collect();
    assert_eq!(after, others, "nothing of other recordings is sent, removed or written");
}
