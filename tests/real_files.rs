//! MCAP files of other recorders are adopted, uploaded, wiped and restored. External tools find the same content.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
};

use serde_json::{Value, json};

use crate::{
    adopt::{judged, read_by_python, write},
    support::{
        node::{Machine, until},
        python,
        servers::{KEY, SECRET, Server},
    },
};

/// Returns the test files of the `mcap` crate from the dependency's folder.
fn files_of_others() -> PathBuf {
    let mut metadata = Command::new(env!("CARGO"));
    metadata.args(["metadata", "--format-version", "1", "--locked", "--manifest-path"]);
    let output = metadata.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let told: Value = serde_json::from_slice(&output.stdout).unwrap();
    let packages = told["packages"].as_array().unwrap();
    let mcap = packages.iter().find(|package| package["name"] == "mcap").unwrap();
    Path::new(mcap["manifest_path"].as_str().unwrap()).with_file_name("tests/data")
}

fn asked(machine: &Machine, arguments: &[&str]) -> (bool, Value) {
    let output = machine.run(&[arguments, &["--json"]].concat());
    let told = serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"));
    (output.status.success(), told)
}

/// Returns the only chunk of a recording.
fn chunk(machine: &Machine, recording: &str) -> PathBuf {
    let folder = machine.home().join("recordings").join(recording).join("chunks");
    let mut files = fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path());
    let only = files.next().unwrap();
    assert_eq!(files.next(), None);
    only
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn recordings_of_other_tools_are_restored_from_a_bucket_message_by_message() {
    let server: Arc<Server> = Server::seaweedfs().await;
    server.bucket("real").await;
    let mut machine = Machine::new("real_1", "");
    machine.set(&format!(
        "backend = \"s3\"\nendpoint = {:?}\nbucket = \"real\"\nrescan_interval = \"1s\"",
        server.endpoint
    ));
    machine.set_secrets(KEY, SECRET);
    tokio::task::block_in_place(|| come_back(&mut machine));
}

fn come_back(machine: &mut Machine) {
    let originals = files_of_others();
    let original = |name: &str| originals.join(format!("{name}.mcap"));
    let library = machine.home().join("recordings");
    let (whole, broken) = (["compressed", "uncompressed"], ["zstd_chunk_with_padding", "chunk_not_closed"]);
    for name in whole.into_iter().chain(broken) {
        write(&library.join(format!("{name}.mcap")), &fs::read(original(name)).unwrap());
    }
    // Power was lost while the recording was written.
    let bytes = fs::read(original("uncompressed")).unwrap();
    write(&library.join("cut.mcap"), &bytes[..bytes.len() * 6 / 10]);
    machine.start();
    for name in whole {
        let (is_done, told) = asked(machine, &["adopt", name]);
        assert!(is_done, "{told:#}");
    }
    // The first file uses channels that it does not define, as other readers confirm. The second one ends in its first
    // chunk.
    for name in broken.into_iter().chain(["cut"]) {
        let (is_done, told) = asked(machine, &["adopt", name]);
        assert!(!is_done && told["error"]["code"] == "E_CORRUPT", "{told:#}");
    }
    for name in broken {
        let (is_done, told) = asked(machine, &["adopt", name, "--recover"]);
        assert!(!is_done, "there is nothing to take: {told:#}");
        assert!(fs::read(library.join(format!("{name}.mcap"))).unwrap() == fs::read(original(name)).unwrap());
    }
    let (is_done, told) = asked(machine, &["adopt", "cut", "--recover"]);
    assert!(is_done, "{told:#}");
    let recovered = told["result"]["counts"]["recovered_messages"].as_u64().unwrap();

    let kept = ["compressed", "uncompressed", "cut"];
    let is_there = |name: &str| {
        let held = asked(machine, &["list", "--remote"]).1["recordings"].as_array().cloned().unwrap_or_default();
        asked(machine, &["info", name]).1["upload"] == "complete"
            && held.iter().any(|held| held["recording"] == name && held["has_manifest"] == json!(true))
    };
    until("all of them are in the bucket", || kept.iter().all(|name| is_there(name)));
    fs::remove_dir_all(&library).unwrap();
    fs::create_dir(&library).unwrap();
    until("the node saw that they are gone", || machine.run(&["info", "cut"]).status.code() == Some(3));
    let (is_done, told) = asked(machine, &["reconcile", "*", "--restore"]);
    assert!(is_done, "{told:#}");

    for name in whole {
        let (found, wanted) = (fs::read(chunk(machine, name)).unwrap(), fs::read(original(name)).unwrap());
        assert!(found == wanted, "{name}: byte by byte");
        assert_eq!(python::judge(&original(name), &chunk(machine, name)), 826, "{name}");
    }
    let (found, wanted) = (judged(&chunk(machine, "cut")), read_by_python(&original("uncompressed")));
    assert_eq!(found.len() as u64, recovered);
    assert!(recovered > 300 && found == wanted[..found.len()], "{recovered} messages, one by one");
}
