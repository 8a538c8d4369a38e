//! Adoption on the real binary. Files of other tools, orphans and foreign recordings become recordings and are
//! uploaded. The sources stay unchanged. A truncated file is recovered as far as it is intact.

use std::{
    fs::{self, File},
    io::Cursor,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use bubbaloop_storage_schemas::{Digest, parameter::Wait, verbs::adopt::AdoptRequest};
use mcap::{Compression, WriteOptions, records::MessageHeader};
use serde_json::{Value, json};

use crate::{
    evict::SmallDisk,
    service::{json_of, service},
    support::{
        node::{Machine, until},
        python::{self, Python, Reply},
        robot::{Robot, sync_once},
    },
};

/// Age of a file that nobody writes to.
const STILL: Duration = Duration::from_secs(300);

/// Returns a real MCAP file: `messages` messages on two topics, from `from_ns` on.
pub(crate) fn mcap(from_ns: u64, messages: u32, compression: Option<Compression>) -> Vec<u8> {
    let options = WriteOptions::new().compression(compression).chunk_size(Some(20_000)).profile("ros2");
    let mut writer = options.create(Cursor::new(Vec::new())).unwrap();
    let schema = writer.add_schema("std_msgs/msg/String", "ros2msg", b"string data").unwrap();
    let topics = ["/chatter", "/tf"]
        .map(|topic| writer.add_channel(schema, topic, "cdr", &std::collections::BTreeMap::new()).unwrap());
    for sequence in 0..messages {
        let log_time = from_ns + u64::from(sequence);
        let header =
            MessageHeader { channel_id: topics[sequence as usize % 2], sequence, log_time, publish_time: log_time };
        let mut data = [0; 1000];
        fastrand::Rng::with_seed(log_time).fill(&mut data);
        writer.write_to_known_channel(&header, &data).unwrap();
    }
    writer.finish().unwrap();
    writer.into_inner().into_inner()
}

pub(crate) fn write(path: &Path, bytes: &[u8]) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, bytes).unwrap();
    still(path);
}

/// Sets a file's time back, so that it counts as finished.
pub(crate) fn still(path: &Path) {
    File::open(path).unwrap().set_modified(SystemTime::now() - STILL).unwrap();
}

/// Returns the names, sizes, times and digests of the files in a folder.
fn snapshot(folder: &Path) -> Vec<(PathBuf, u64, SystemTime, Digest)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let metadata = fs::metadata(&path).unwrap();
        if metadata.is_file() {
            let digest = Digest::of(&fs::read(&path).unwrap());
            found.push((path, metadata.len(), metadata.modified().unwrap(), digest));
        }
    }
    found.sort();
    found
}

/// Returns every message of a file as the Python reader finds it: topic, log time, digest of the data.
pub(crate) fn read_by_python(path: &Path) -> Vec<(String, u64, String)> {
    let script = "import hashlib, json, sys\nfrom mcap.reader import make_reader\nwith open(sys.argv[1], 'rb') as f:\n    \
                  print(json.dumps([[c.topic, m.log_time, hashlib.sha256(m.data).hexdigest()] for _, c, m in \
                  make_reader(f, validate_crcs=True).iter_messages()]))";
    let output = Command::new(python::python()).arg("-c").arg(script).arg(path).output().unwrap();
    assert!(output.status.success(), "{}: {output:?}", path.display());
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Checks a file with the external tools and returns its messages.
pub(crate) fn judged(path: &Path) -> Vec<(String, u64, String)> {
    let doctor = Command::new(python::python().with_file_name("pymcap-cli")).arg("doctor").arg(path).output().unwrap();
    assert!(doctor.status.success(), "{}: {doctor:?}", path.display());
    read_by_python(path)
}

fn adopt(python: &mut Python, machine: &Machine, selector: &str) -> Value {
    python.ask(&format!("{}?{selector};wait=60s", machine.key("adopt"))).value()
}

fn done(python: &mut Python, machine: &Machine, selector: &str) -> Value {
    let job = adopt(python, machine, selector);
    assert_eq!(
        (&job["state"], &job["verb"], &job["error"]),
        (&json!("done"), &json!("adopt"), &json!(null)),
        "{job:#}"
    );
    job
}

fn info(python: &mut Python, machine: &Machine, recording: &str) -> Value {
    python.ask(&format!("{}?recording={recording}", machine.key("info"))).value()
}

fn rows(python: &mut Python, machine: &Machine) -> Vec<(String, String)> {
    let list = python.ask(&machine.key("list")).value();
    let row = |row: &Value| (row["recording"].as_str().unwrap().into(), row["state"].as_str().unwrap().into());
    list["recordings"].as_array().unwrap().iter().map(row).collect()
}

fn kinds(job: &Value, field: &str) -> Vec<(String, u64)> {
    let counts = job["result"]["counts"][field].as_array().unwrap();
    counts.iter().map(|row| (row["kind"].as_str().unwrap().into(), row["count"].as_u64().unwrap())).collect()
}

fn counted(rows: &[(&str, u64)]) -> Vec<(String, u64)> {
    rows.iter().map(|(kind, count)| ((*kind).to_owned(), *count)).collect()
}

fn refused(reply: &Reply, code: &str) -> Value {
    assert!(!reply.is_ok, "{:?}", reply.value());
    let error = reply.value();
    assert_eq!(error["code"], code, "{error}");
    error
}

/// Returns a machine with these files in its library, and a node that has scanned them.
fn started(id: &str, files: &[(&str, Vec<u8>)]) -> (Machine, Python) {
    let mut machine = Machine::new(id, "rescan_interval = \"1s\"");
    for (name, bytes) in files {
        write(&machine.home().join("recordings").join(name), bytes);
    }
    machine.start();
    let python = machine.python();
    (machine, python)
}

/// Returns the files of a recording's chunks, by index.
fn chunks(machine: &Machine, recording: &str) -> Vec<PathBuf> {
    let mut found: Vec<_> = fs::read_dir(machine.home().join("recordings").join(recording).join("chunks"))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    found.sort();
    found
}

fn is_uploaded(python: &mut Python, machine: &Machine, recording: &str) -> bool {
    info(python, machine, recording)["upload"] == "complete" && machine.remote_manifest(recording).is_some()
}

const SESSION: &str = "2026-07-26T12-00-00";

fn session() -> Vec<(String, Vec<u8>)> {
    [("000", Some(Compression::Zstd)), ("001", None), ("010", Some(Compression::Lz4))]
        .into_iter()
        .zip(0..)
        .map(|((number, compression), place)| {
            (format!("{SESSION}_chunk_{number}.mcap"), mcap(1_000_000 + place * 1000, 50, compression))
        })
        .collect()
}

fn named(files: &[(String, Vec<u8>)]) -> Vec<(&str, Vec<u8>)> {
    files.iter().map(|(name, bytes)| (name.as_str(), bytes.clone())).collect()
}

#[test]
fn a_flat_session_becomes_a_recording_that_is_uploaded_and_its_files_stay_unchanged() {
    let files = session();
    let (machine, mut python) = started("adopt_1", &named(&files));
    let root = machine.home().join("recordings");
    let before = snapshot(&root);
    assert_eq!(rows(&mut python, &machine), [(SESSION.into(), "unmanaged".into())]);
    let job = done(&mut python, &machine, &format!("recording={SESSION}"));
    assert_eq!((&job["recording"], &job["result"]["adopted"]), (&json!(SESSION), &json!([SESSION])), "{job:#}");
    assert_eq!(kinds(&job, "actions"), counted(&[("link", 3), ("write_manifest", 1)]));
    assert_eq!(job["progress"]["chunks_done"], 3);

    until("it is uploaded", || is_uploaded(&mut python, &machine, SESSION));
    assert_eq!(snapshot(&root), before, "the sources are as they were");
    assert_eq!(rows(&mut python, &machine), [(SESSION.into(), "ended".into())], "one row, the recording's");
    let told = info(&mut python, &machine, SESSION);
    assert_eq!((&told["started_at_ns"], &told["ended_at_ns"]), (&json!(1_000_000), &json!(1_002_049)));
    assert_eq!(
        (&told["chunk_count"], &told["uploaded_chunks"], &told["tags"]),
        (&json!(3), &json!(3), &json!(["adopted"]))
    );
    let topics: Vec<_> =
        told["channels"].as_array().unwrap().iter().map(|row| (&row["topic"], &row["message_count"])).collect();
    assert_eq!(topics, [(&json!("/chatter"), &json!(75)), (&json!("/tf"), &json!(75))]);
    assert_eq!(told["channels"][0]["schema_name"], "std_msgs/msg/String");
    for ((chunk, path), (name, bytes)) in
        told["chunks"].as_array().unwrap().iter().zip(chunks(&machine, SESSION)).zip(&files)
    {
        assert_eq!(chunk["sha256"], json!(Digest::of(bytes)), "{name} in its place");
        assert!(machine.is_stored(SESSION, chunk), "{name}");
        let inode = |path: &Path| fs::metadata(path).unwrap().ino();
        assert_eq!(inode(&path), inode(&root.join(name)), "no bytes were copied");
    }
    assert_eq!(judged(&chunks(&machine, SESSION)[0]).len(), 50);

    let again = done(&mut python, &machine, &format!("recording={SESSION}"));
    assert_eq!((&again["result"]["adopted"], kinds(&again, "actions")), (&json!([SESSION]), vec![]), "nothing to do");
    let mut more = session();
    more[0].0 = format!("{SESSION}_chunk_011.mcap");
    write(&root.join(&more[0].0), &mcap(9_000_000, 10, None));
    until("what came later is told", || {
        info(&mut python, &machine, SESSION)["chunk_count"] == 3 && rows(&mut python, &machine).len() == 2
    });
    let grown = done(&mut python, &machine, &format!("recording={SESSION}"));
    assert_eq!(kinds(&grown, "actions"), counted(&[("link", 1), ("write_manifest", 1)]), "{grown:#}");
    until("it is uploaded too", || info(&mut python, &machine, SESSION)["uploaded_chunks"] == 4);
}

#[test]
fn a_rosbag2_bag_is_adopted_in_the_order_of_its_metadata() {
    let metadata = "rosbag2_bagfile_information:\n  version: 9\n  storage_identifier: mcap\n  duration:\n    \
                    nanoseconds: 4000\n  starting_time:\n    nanoseconds_since_epoch: 1000\n  message_count: 30\n  \
                    topics_with_message_count: []\n  compression_format: \"\"\n  compression_mode: \"\"\n  \
                    relative_file_paths:\n    - my_bag_1.mcap\n    - my_bag_0.mcap\n    - my_bag_2.mcap\n  files: []\n";
    let files = [
        ("my bag/metadata.yaml", metadata.as_bytes().to_vec()),
        ("my bag/my_bag_0.mcap", mcap(2000, 10, Some(Compression::Zstd))),
        ("my bag/my_bag_1.mcap", mcap(1000, 10, Some(Compression::Zstd))),
        ("my bag/my_bag_2.mcap", mcap(3000, 10, Some(Compression::Zstd))),
        ("plain/a.mcap", mcap(1, 5, None)),
    ];
    let (machine, mut python) = started("adopt_2", &files);
    let bag = machine.home().join("recordings/my bag");
    let before = snapshot(&bag);
    let job = done(&mut python, &machine, "all=true");
    assert_eq!(job["result"]["adopted"], json!(["my_bag", "plain-adopted"]), "{job:#}");
    until("both are uploaded", || {
        ["my_bag", "plain-adopted"].iter().all(|name| is_uploaded(&mut python, &machine, name))
    });
    assert_eq!(snapshot(&bag), before);
    let told = info(&mut python, &machine, "my_bag");
    let starts: Vec<_> =
        told["chunks"].as_array().unwrap().iter().map(|chunk| chunk["log_time_first_ns"].as_u64().unwrap()).collect();
    assert_eq!(starts, [1000, 2000, 3000]);
    let list = python.ask(&machine.key("list?state=unmanaged")).value();
    let reasons: Vec<_> =
        list["recordings"].as_array().unwrap().iter().map(|row| row["reason"].as_str().unwrap().to_owned()).collect();
    assert!(reasons[0].contains("adopted as my_bag") && reasons[1].contains("adopted as plain-adopted"), "{reasons:?}");
    let nothing = done(&mut python, &machine, "all=true");
    assert_eq!(nothing["result"]["adopted"], json!([]), "what was adopted is not adopted again");
}

#[test]
fn on_the_bus_only_listed_names_are_adopted_and_files_in_use_are_left_alone() {
    let (machine, mut python) =
        started("adopt_3", &[("a_chunk_000.mcap", mcap(1, 5, None)), ("b.mcap", mcap(2, 5, None))]);
    let root = machine.home().join("recordings");
    let outside = machine.folder.path().join("outside.mcap");
    write(&outside, &mcap(1, 5, None));
    for path in ["../outside.mcap", "/etc", "..", ".", "./a", &outside.display().to_string()] {
        refused(&python.ask(&machine.key(&format!("adopt?recording={path}"))), "E_INVALID_PARAMS");
    }
    for (selector, code) in [
        ("adopt?recording=etc", "E_NOT_FOUND"),
        ("adopt", "E_INVALID_PARAMS"),
        ("adopt?recording=a;all=true", "E_INVALID_PARAMS"),
        ("adopt?all=true;name=x", "E_INVALID_PARAMS"),
        ("adopt?recording=a;name=../x", "E_INVALID_PARAMS"),
        ("adopt?recording=a;recover=maybe", "E_INVALID_PARAMS"),
    ] {
        refused(&python.ask(&machine.key(selector)), code);
    }
    fs::write(root.join("a_chunk_001.mcap"), mcap(3, 5, None)).unwrap();
    let busy = refused(&python.ask(&machine.key("adopt?recording=a")), "E_CONFLICT");
    assert_eq!(busy["retryable"], true, "{busy}");
    assert!(busy["message"].as_str().unwrap().contains("a_chunk_001.mcap"), "{busy}");
    fs::remove_file(root.join("a_chunk_001.mcap")).unwrap();
    fs::write(root.join("a_chunk_001.mcap.active"), b"x").unwrap();
    refused(&python.ask(&machine.key("adopt?recording=a")), "E_CONFLICT");
    fs::remove_file(root.join("a_chunk_001.mcap.active")).unwrap();

    let mut recorder = machine.recorder("b");
    recorder.finalize();
    recorder.end();
    until("both are told", || rows(&mut python, &machine).iter().filter(|(name, _)| name == "b").count() == 2);
    let taken = adopt(&mut python, &machine, "recording=b");
    assert_eq!((&taken["state"], &taken["error"]["code"]), (&json!("failed"), &json!("E_CONFLICT")), "{taken:#}");
    assert!(taken["error"]["hint"].as_str().unwrap().contains("name="), "{taken:#}");
    let other = done(&mut python, &machine, "recording=b;name=b_2;copy=true");
    assert_eq!(kinds(&other, "actions"), counted(&[("copy", 1), ("write_manifest", 1)]), "{other:#}");
    let again = done(&mut python, &machine, "recording=b");
    assert_eq!(
        (&again["result"]["adopted"], kinds(&again, "actions")),
        (&json!(["b_2"]), vec![]),
        "it is known as that"
    );
    assert_eq!(fs::metadata(&chunks(&machine, "b_2")[0]).unwrap().nlink(), 1);
}

#[test]
fn a_truncated_file_is_refused_and_then_recovered_with_its_loss_reported() {
    let whole = mcap(1000, 200, Some(Compression::Zstd));
    let cut = whole[..whole.len() * 6 / 10].to_vec();
    let files = [
        ("s_chunk_000.mcap", mcap(1, 20, None)),
        ("s_chunk_001.mcap.active", cut.clone()),
        ("t.mcap", cut.clone()),
        ("u.mcap", b"this is no mcap file, whatever its name says".to_vec()),
    ];
    let (machine, mut python) = started("adopt_4", &files);
    for (name, code, hint) in [("t", "E_CORRUPT", "recover=true"), ("u", "E_CORRUPT", "move it away")] {
        let job = adopt(&mut python, &machine, &format!("recording={name}"));
        assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!(code)), "{job:#}");
        assert!(job["error"]["hint"].as_str().unwrap().contains(hint), "{job:#}");
        assert_eq!(kinds(&job, "findings"), counted(&[("refused", 1)]));
    }
    assert!(!machine.home().join("recordings/t/manifest.json").exists());
    assert_eq!(adopt(&mut python, &machine, "recording=u;recover=true")["state"], "failed");

    let first = done(&mut python, &machine, "recording=s");
    assert_eq!(kinds(&first, "findings"), counted(&[("left_out", 1)]), "{first:#}");
    let job = done(&mut python, &machine, "recording=s;recover=true");
    assert_eq!(kinds(&job, "findings"), counted(&[("lost", 1)]), "{job:#}");
    assert_eq!(kinds(&job, "actions"), counted(&[("recover", 1), ("write_manifest", 1)]));
    let recovered = job["result"]["counts"]["recovered_messages"].as_u64().unwrap();
    assert!(
        recovered > 100 && recovered < 200 && job["result"]["counts"]["lost_bytes"].as_u64().unwrap() > 0,
        "{job:#}"
    );
    let folder = tempfile::tempdir().unwrap();
    let original = folder.path().join("whole.mcap");
    fs::write(&original, &whole).unwrap();
    let (found, wanted) = (judged(&chunks(&machine, "s")[1]), read_by_python(&original));
    assert_eq!(found, wanted[..usize::try_from(recovered).unwrap()], "message by message");
    until("it is uploaded", || info(&mut python, &machine, "s")["uploaded_chunks"] == 2);
    assert_eq!(fs::read(machine.home().join("recordings/s_chunk_001.mcap.active")).unwrap(), cut);
    let again = done(&mut python, &machine, "recording=s;recover=true");
    assert_eq!((kinds(&again, "actions"), kinds(&again, "findings")), (vec![], vec![]), "{again:#}");
}

#[test]
fn a_file_left_open_by_a_crash_survives_its_recorders_sweep_and_is_recovered() {
    let mut machine = Machine::new("adopt_9", "rescan_interval = \"1s\"");
    let mut recorder = machine.recorder("drive");
    recorder.finalize();
    let whole = mcap(1000, 100, None);
    let active = machine.home().join("recordings/drive/chunks/.chunk-000001.mcap.active");
    write(&active, &whole[..whole.len() / 2]);
    machine.start();
    let mut python = machine.python();
    let crashed = ("salvage/drive".to_owned(), "unmanaged".to_owned());
    until("it is told", || rows(&mut python, &machine).contains(&crashed));
    fs::remove_file(&active).unwrap();
    let root = machine.home().join("storage/salvage/drive");
    let before = snapshot(&root);
    assert_eq!(before.len(), 1);
    assert_eq!(
        done(&mut python, &machine, "all=true")["result"]["adopted"],
        json!([]),
        "only where recovering is asked for"
    );
    let refused = adopt(&mut python, &machine, "recording=salvage/drive");
    assert!(refused["error"]["hint"].as_str().unwrap().contains("recover=true"), "{refused:#}");
    let job = done(&mut python, &machine, "recording=salvage/drive;recover=true");
    assert_eq!(
        (&job["result"]["adopted"], kinds(&job, "findings")),
        (&json!(["drive-adopted"]), counted(&[("lost", 1)]))
    );
    until("it is uploaded", || is_uploaded(&mut python, &machine, "drive-adopted"));
    let found = judged(&chunks(&machine, "drive-adopted")[0]);
    assert!(found.len() > 40 && found.len() < 60, "{}", found.len());
    assert_eq!(snapshot(&root), before);
    let list = python.ask(&machine.key("list?name=salvage*")).value();
    assert!(list["recordings"][0]["reason"].as_str().unwrap().contains("adopted as drive-adopted"), "{list}");
}

#[test]
fn orphans_get_a_manifest_and_a_foreign_recording_becomes_ours() {
    let mut machine = Machine::new("adopt_5", "auto_upload = false\nrescan_interval = \"1s\"");
    let mut orphans = machine.recorder("orphans");
    let orphan_chunks = [orphans.finalize(), orphans.finalize()];
    let root = machine.home().join("recordings");
    fs::remove_file(root.join("orphans/manifest.json")).unwrap();
    let mut foreign = machine.recorder("foreign");
    let chunk = foreign.finalize();
    foreign.save(&json!({"machine_id": "robot_2", "mine": {"a": 1}}));
    let mut invalid = machine.recorder("invalid");
    invalid.finalize();
    fs::write(root.join("invalid/manifest.json"), r#"{"schema_version": 7}"#).unwrap();
    let mut going_on = machine.recorder("going_on");
    going_on.finalize();
    going_on.rename();
    machine.start();
    let mut python = machine.python();
    refused(&python.ask(&machine.key("adopt?recording=foreign")), "E_CONFLICT");
    for name in ["orphans/chunks", "foreign/chunks", "foreign/manifest.json", "invalid/chunks", "invalid/manifest.json"]
    {
        still(&root.join(name));
    }
    let busy = refused(&python.ask(&machine.key("adopt?recording=going_on")), "E_CONFLICT");
    assert_eq!(busy["retryable"], true);
    for name in ["going_on/chunks", "going_on/manifest.json"] {
        still(&root.join(name));
    }
    refused(&python.ask(&machine.key("adopt?recording=going_on")), "E_CONFLICT");
    refused(&python.ask(&machine.key("adopt?recording=foreign;name=other")), "E_CONFLICT");

    let job = done(&mut python, &machine, "recording=orphans");
    assert_eq!(kinds(&job, "actions"), counted(&[("name", 2), ("write_manifest", 1)]), "{job:#}");
    let told = info(&mut python, &machine, "orphans");
    assert_eq!(
        (&told["state"], &told["chunk_count"], &told["channels"][0]["message_count"]),
        (&json!("ended"), &json!(2), &json!(40))
    );
    for (row, chunk) in told["chunks"].as_array().unwrap().iter().zip(&orphan_chunks) {
        assert_eq!((&row["name"], &row["listed"]), (&chunk["name"], &json!(true)));
    }
    done(&mut python, &machine, "recording=foreign");
    let told = info(&mut python, &machine, "foreign");
    assert_eq!((&told["state"], &told["recording_machine_id"]), (&json!("ended"), &json!("adopt_5")), "{told:#}");
    assert_eq!(foreign.manifest()["adopted_from"]["machine_id"], "robot_2");
    assert_eq!(foreign.manifest()["mine"], json!({"a": 1}));
    for name in ["orphans", "foreign"] {
        let again = done(&mut python, &machine, &format!("recording={name}"));
        assert_eq!((&again["result"]["adopted"], kinds(&again, "actions")), (&json!([name]), vec![]), "at once, too");
    }
    let job = done(&mut python, &machine, "recording=invalid");
    assert_eq!(kinds(&job, "findings"), counted(&[("left_out", 1)]), "the refused manifest is kept: {job:#}");
    assert_eq!(info(&mut python, &machine, "invalid")["state"], "ended");
    python.ask(&format!("{}?all=true;wait=60s", machine.key("upload")));
    assert!(machine.is_stored("foreign", &chunk) && machine.is_stored("orphans", &orphan_chunks[1]));
}

#[test]
fn a_disk_from_another_robot_is_uploaded_as_this_robots_and_its_old_marks_do_not_count() {
    let former = Machine::started("adopt_10");
    let mut recorder = former.recorder("drive");
    let chunk = recorder.finalize();
    recorder.end();
    let mut its_python = former.python();
    until("the former robot has uploaded it", || is_uploaded(&mut its_python, &former, "drive"));
    assert!(!recorder.journal().is_empty());

    let store = former.folder.path().join("store");
    let mut machine = Machine::new("adopt_11", "");
    machine.set(&format!("backend = \"local\"\nlocal_path = {store:?}\nrescan_interval = \"1s\""));
    let (from, to) = (former.home().join("recordings/drive"), machine.home().join("recordings/drive"));
    for name in ["manifest.json", "uploads.jsonl", &format!("chunks/{}", chunk["name"].as_str().unwrap())] {
        write(&to.join(name), &fs::read(from.join(name)).unwrap());
    }
    still(&to.join("chunks"));
    machine.start();
    let mut python = machine.python();
    assert_eq!(info(&mut python, &machine, "drive")["state"], "foreign");
    assert_eq!(done(&mut python, &machine, "all=true")["result"]["adopted"], json!([]), "all does not mean another's");
    done(&mut python, &machine, "recording=drive");
    let object = store.join("adopt_11/drive/chunks").join(chunk["name"].as_str().unwrap());
    until("it is this robot's in the store", || {
        object.exists()
            && store.join("adopt_11/drive/manifest.json").exists()
            && info(&mut python, &machine, "drive")["upload"] == "complete"
    });
    assert!(former.is_stored("drive", &chunk), "the former robot's objects stay");
}

#[test]
fn a_killed_adoption_leaves_no_recording_and_the_same_request_completes_it() {
    let files: Vec<_> =
        (0..6).map(|number| (format!("big_chunk_{number:03}.mcap"), mcap(1000 * number, 20_000, None))).collect();
    let mut machine = Machine::new("adopt_6", "auto_upload = false");
    for (name, bytes) in &files {
        write(&machine.home().join("recordings").join(name), bytes);
    }
    let manifest = machine.home().join("recordings/big/manifest.json");
    let folder = machine.home().join("recordings/big/chunks");
    let entries = || fs::read_dir(&folder).map_or(0, Iterator::count);
    let mut in_the_middle = 0;
    for (round, copy) in [";copy=true", "", ";copy=true", ";copy=true"].iter().enumerate() {
        machine.start();
        let mut python = machine.python();
        python.ask(&format!("{}?recording=big{copy};wait=0s", machine.key("adopt")));
        until("it is under way", || folder.exists() && (copy.is_empty() || entries() > round));
        machine.kill();
        if manifest.exists() {
            let named: Value = serde_json::from_slice(&fs::read(&manifest).unwrap()).unwrap();
            assert_eq!(named["chunks"].as_array().unwrap().len(), files.len(), "no half recording is one");
        } else {
            in_the_middle += 1;
        }
    }
    assert!(in_the_middle > 0);
    machine.start();
    let mut python = machine.python();
    done(&mut python, &machine, "recording=big");
    let told = info(&mut python, &machine, "big");
    assert_eq!((&told["state"], &told["chunk_count"]), (&json!("ended"), &json!(6)));
    let found = chunks(&machine, "big");
    assert_eq!(found.len(), files.len(), "nothing is left of what was begun: {found:?}");
    for (path, (_, bytes)) in found.iter().zip(&files) {
        assert_eq!(Digest::of(&fs::read(path).unwrap()), Digest::of(bytes));
    }
    assert_eq!(rows(&mut python, &machine), [("big".into(), "ended".into())]);
}

#[test]
fn paths_are_adopted_by_the_command_itself_beside_a_node_and_without_one() {
    let (mut machine, mut python) = started("adopt_7", &[]);
    let disk = machine.folder.path().join("disk");
    for (name, bytes) in [
        ("bag/bag_0.mcap", mcap(1, 10, None)),
        ("bag/bag_1.mcap", mcap(20, 10, None)),
        ("lone.mcap", mcap(40, 10, None)),
    ] {
        write(&disk.join(name), &bytes);
    }
    let path = |name: &str| disk.join(name).display().to_string();
    let told = machine.run(&["adopt", &path("bag")]);
    let text = String::from_utf8_lossy(&told.stdout).into_owned();
    assert!(told.status.success() && text.contains("done") && text.contains("bag_0.mcap"), "{told:?}");
    until("the node has found and uploaded it", || is_uploaded(&mut python, &machine, "bag"));

    let again = machine.run(&["adopt", "--json", &path("bag")]);
    let reply: Value = serde_json::from_slice(&again.stdout).unwrap();
    assert_eq!((&reply["state"], &reply["result"]["actions"]), (&json!("done"), &json!([])), "{reply:#}");
    for (arguments, code) in [
        (vec!["adopt".to_owned(), path("gone.mcap")], 3),
        (vec!["adopt".to_owned(), path("lone.mcap"), "--machine".into(), "robot_9".into()], 2),
        (vec!["adopt".to_owned(), "nothing".into()], 3),
        (vec!["adopt".to_owned()], 2),
    ] {
        let arguments: Vec<_> = arguments.iter().map(String::as_str).collect();
        let output = machine.run(&arguments);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
    }
    assert_eq!(machine.terminate(), Some(0));
    let offline = machine.run(&["adopt", &path("lone.mcap"), "--as", "lone_2", "--copy"]);
    assert!(offline.status.success(), "{offline:?}");
    let list = machine.run(&["list", "--offline"]);
    assert!(String::from_utf8_lossy(&list.stdout).contains("lone_2"), "{list:?}");
    write(&machine.home().join("recordings/flat.mcap"), &mcap(1, 5, None));
    let named = machine.run(&["adopt", "flat", "--offline"]);
    assert!(named.status.success(), "{named:?}");
}

#[test]
fn with_auto_adopt_unchanged_files_are_adopted_and_foreign_recordings_are_not() {
    let mut machine = Machine::new("adopt_8", "rescan_interval = \"1s\"\nauto_adopt = true");
    let root = machine.home().join("recordings");
    write(&root.join("a_chunk_000.mcap"), &mcap(1, 5, None));
    write(&root.join("broken.mcap"), b"no mcap");
    fs::write(root.join("fresh.mcap"), mcap(7, 5, None)).unwrap();
    let mut foreign = machine.recorder("foreign");
    foreign.finalize();
    foreign.save(&json!({"machine_id": "robot_2", "ended_at_ns": 7}));
    for name in ["foreign/chunks", "foreign/manifest.json"] {
        still(&root.join(name));
    }
    machine.start();
    let mut python = machine.python();
    until("the session is uploaded", || is_uploaded(&mut python, &machine, "a"));
    until("the broken one was tried", || machine.log().contains("adopting it source=\"broken\""));
    let jobs = || python.ask(&machine.key("jobs")).value()["jobs"].as_array().unwrap().len();
    let mut jobs = jobs;
    until("both jobs have ended", || jobs() == 2);
    let states = rows(&mut python, &machine);
    let state = |name: &str| states.iter().find(|(known, _)| known == name).unwrap().1.as_str();
    assert_eq!(
        [state("a"), state("broken"), state("foreign"), state("fresh")],
        ["ended", "unmanaged", "foreign", "unmanaged"]
    );
}

#[test]
fn a_removed_recording_is_adopted_again_only_by_name() {
    let mut machine = Machine::new("adopt_9", "rescan_interval = \"1s\"\nauto_adopt = true");
    let root = machine.home().join("recordings");
    for (from_ns, name) in [(1, "a_chunk_000.mcap"), (1000, "a_chunk_001.mcap")] {
        write(&root.join(name), &mcap(from_ns, 5, None));
    }
    machine.start();
    let mut python = machine.python();
    until("the session is uploaded", || is_uploaded(&mut python, &machine, "a"));
    let remove = ["rm", "a", "--from", "local", "--force", "--json"];
    until("its manifest is written", || machine.remote_manifest("a").is_some());
    let output = machine.run(&remove);
    assert!(output.status.success(), "{output:?}");
    let done: Value = serde_json::from_slice(&output.stdout).unwrap();
    let actions = done["result"]["actions"].as_array().unwrap();
    let left: Vec<_> = actions.iter().filter(|row| row["kind"] == "leave_source").map(|row| &row["path"]).collect();
    assert_eq!(left, ["a_chunk_000.mcap", "a_chunk_001.mcap"], "{done:#}");

    // The node adopts the next file by itself. That shows that the turn of this one has passed, before a restart and
    // after it.
    for (number, session) in ["b", "c"].into_iter().enumerate() {
        write(&root.join(format!("{session}_chunk_000.mcap")), &mcap(number as u64 * 7, 5, None));
        until("the next session is adopted", || machine.home().join("recordings").join(session).exists());
        until("it is uploaded", || is_uploaded(&mut python, &machine, session));
        assert!(!root.join("a").exists(), "it is not made again");
        machine.terminate();
        machine.start();
        python = machine.python();
        machine.wait_for_scan(&mut python);
    }
    let shown = python.ask(&machine.key("list")).value();
    let row = shown["recordings"].as_array().unwrap().iter().find(|row| row["recording"] == "a").unwrap().clone();
    assert_eq!(row["state"], "unmanaged");
    assert!(row["reason"].as_str().unwrap().contains("was removed"), "{row}");

    // A new file of the session is not known yet, so the session is adopted again with it.
    let output = machine.run(&["adopt", "a"]);
    assert!(output.status.success(), "{output:?}");
    assert!(root.join("a/manifest.json").exists(), "a person's word counts");
    until("it is uploaded again", || is_uploaded(&mut python, &machine, "a"));
    assert!(machine.run(&remove).status.success());
    write(&root.join("a_chunk_002.mcap"), &mcap(5000, 5, None));
    until("what came since is not left alone", || root.join("a/manifest.json").exists());
}

#[test]
fn a_file_in_another_folder_with_the_same_name_size_and_time_is_a_different_file() {
    let mut machine = Machine::started("adopt_10");
    let mut python = machine.python();
    let (root, elsewhere) = (machine.home().join("recordings"), machine.folder.path().join("usb"));
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(315_532_800);
    for (from_ns, path) in [(1, root.join("q.mcap")), (2, elsewhere.join("q.mcap")), (3, elsewhere.join("b/q.mcap"))] {
        write(&path, &mcap(from_ns, 5, None));
        File::open(&path).unwrap().set_modified(at).unwrap();
    }
    let size = |path: PathBuf| fs::metadata(path).unwrap().len();
    assert_eq!(size(root.join("q.mcap")), size(elsewhere.join("q.mcap")));
    let adopt = |path: PathBuf, name: &str| machine.run(&["adopt", path.to_str().unwrap(), "--as", name]);
    assert!(adopt(elsewhere.join("q.mcap"), "far").status.success());
    until("it is uploaded", || is_uploaded(&mut python, &machine, "far"));
    let list = python.ask(&machine.key("list")).value();
    let row = list["recordings"].as_array().unwrap().iter().find(|row| row["recording"] == "q").cloned().unwrap();
    assert!(row["state"] == "unmanaged" && !row["reason"].as_str().unwrap().contains("may stay or go"), "{row}");
    assert_eq!(python.ask(&machine.key("status")).value()["safe"], false, "the one in the library is nowhere else");
    let other = adopt(elsewhere.join("b/q.mcap"), "far");
    assert!(other.status.code() == Some(1), "other bytes are not what was adopted: {other:?}");
    assert!(machine.run(&["adopt", "q"]).status.success());
    until("the one in the library is uploaded", || is_uploaded(&mut python, &machine, "q"));
    assert_eq!(machine.terminate(), Some(0));
}

#[test]
fn one_file_damaged_by_a_power_cut_does_not_block_the_others_and_times_of_other_clocks_are_kept() {
    let machine = Machine::started("adopt_11");
    let root = machine.home().join("recordings");
    let ahead = SystemTime::now() + Duration::from_secs(365 * 24 * 3600);
    write(&root.join("ahead_chunk_000.mcap"), &mcap(1, 5, None));
    File::open(root.join("ahead_chunk_000.mcap")).unwrap().set_modified(ahead).unwrap();
    for (number, bytes) in [mcap(10, 5, None), mcap(20, 5, None), Vec::new(), vec![0; 5000]].into_iter().enumerate() {
        write(&root.join(format!("cut_chunk_{number:03}.mcap")), &bytes);
    }
    write(&root.join("none_chunk_000.mcap"), &[0; 100]);
    let adopted = |words: &[&str]| -> (Option<i32>, Value) {
        let output = machine.run(&[&["adopt", "--json"], words].concat());
        (output.status.code(), serde_json::from_slice(&output.stdout).unwrap())
    };
    assert_eq!(adopted(&["ahead"]).0, Some(0), "a clock that was ahead keeps nothing for ever");
    let (exit, refused) = adopted(&["cut"]);
    assert_eq!((exit, &refused["error"]["code"]), (Some(1), &json!("E_CORRUPT")), "{refused:#}");
    assert!(!root.join("cut").exists(), "what failed leaves no recording without chunks");
    let (exit, done) = adopted(&["cut", "--recover"]);
    assert_eq!((exit, &done["result"]["counts"]["chunks"]), (Some(0), &json!(2)), "{done:#}");
    let files: Vec<_> = done["result"]["findings"].as_array().unwrap().iter().map(|row| &row["file"]).collect();
    assert_eq!(files, ["cut_chunk_002.mcap", "cut_chunk_003.mcap"], "{done:#}");
    assert_eq!(adopted(&["none", "--recover"]).0, Some(1), "where nothing is whole nothing is adopted");
    assert!(machine.log().contains("a job failed verb=adopt"), "what fails is logged");
}

#[test]
fn an_adoption_that_must_copy_without_room_fills_no_disk() {
    let machine = Machine::new("adopt_12", "");
    let root = machine.home().join("recordings");
    let _disk = SmallDisk::mount(&root, 4);
    let paths: Vec<_> =
        (0..3).map(|number| machine.folder.path().join(format!("big_chunk_{number:03}.mcap"))).collect();
    for (from_ns, path) in (0..).zip(&paths) {
        write(path, &mcap(from_ns * 10_000, 2000, None));
    }
    let words: Vec<_> = std::iter::once("adopt").chain(paths.iter().map(|path| path.to_str().unwrap())).collect();
    let output = machine.run(&words);
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && told.contains("are to be written") && told.contains("hint"), "{told}");
    assert!(!root.join("big").exists(), "nothing of it was begun");
}

/// Returns a request that waits for the end of the adoption.
pub(crate) fn adopt_request(source: &str) -> AdoptRequest {
    let wait = Wait::new(Duration::from_secs(60));
    AdoptRequest { recording: Some(source.into()), wait, ..AdoptRequest::default() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn adopted_and_uploaded_files_are_safe_although_the_sources_are_still_there() {
    let robot = Robot::new();
    let root = robot.folder.path().join("recordings");
    let file = root.join("a_chunk_000.mcap");
    write(&file, &mcap(1, 5, None));
    let engine = robot.started_and_scanned();
    let service = service(&robot, &engine);
    let status = || json_of(service.status());
    assert_eq!((&status()["safe"], &status()["at_risk_chunks"]), (&json!(false), &json!(1)));
    let job = service.adopt(&adopt_request("a")).unwrap().reply().await;
    assert_eq!(json!(job)["state"], "done", "{job:?}");
    sync_once(&engine).await;
    assert_eq!((&status()["safe"], &status()["at_risk_bytes"]), (&json!(true), &json!(0)));
    sync_once(&robot.started()).await;
    assert_eq!(
        json_of(crate::service::service(&robot, &robot.started_and_scanned()).status())["safe"],
        true,
        "after a restart too"
    );

    write(&file, &mcap(2, 5, None));
    File::open(&file).unwrap().set_modified(SystemTime::now() - 2 * STILL).unwrap();
    engine.scan().unwrap();
    assert_eq!(status()["safe"], false, "a file that changed since is not what was adopted");
}
