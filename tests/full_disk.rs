//! The library's disk is full or read-only. The files on it are still uploaded, and every mark is written once that is
//! possible.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::Command,
};

use serde_json::{Value, json};

use crate::{
    evict::SmallDisk,
    support::{
        node::{Machine, Recorder, until},
        python::Python,
    },
};

/// Why a disk takes no writes.
#[derive(Debug, Clone, Copy)]
enum Takes {
    NoByte,
    NoWrite,
}

impl Takes {
    fn begin(self, disk: &Path) {
        match self {
            Self::NoByte => {
                let mut filler = File::create(disk.join(".filler")).unwrap();
                let full = (0..1 << 16).find_map(|_| filler.write_all(&[0; 4096]).err()).unwrap();
                assert_eq!(full.kind(), std::io::ErrorKind::StorageFull);
            }
            Self::NoWrite => remount(disk, "ro"),
        }
    }

    fn end(self, disk: &Path) {
        match self {
            Self::NoByte => fs::remove_file(disk.join(".filler")).unwrap(),
            Self::NoWrite => remount(disk, "rw"),
        }
    }
}

fn remount(disk: &Path, how: &str) {
    let mounted = Command::new("mount").arg("-o").arg(format!("remount,{how}")).arg(disk).output().unwrap();
    assert!(mounted.status.success(), "a test mounts a disk {how}: {mounted:?}");
}

fn status(python: &mut Python, machine: &Machine) -> Value {
    python.ask(&machine.key("status")).value()
}

fn marks(recorder: &Recorder) -> usize {
    recorder.journal().iter().filter(|line| line["kind"] == "uploaded").count()
}

fn goes_up_all_the_same(id: &str, takes: Takes) {
    let mut machine = Machine::new(id, "rescan_interval = \"1s\"");
    let disk = machine.home().join("recordings");
    let _disk = SmallDisk::mount(&disk, 8);
    machine.start();
    let mut python = machine.python();
    assert!(machine.run(&["pause"]).status.success());
    let mut recorder = machine.recorder("drive");
    for _ in 0..5 {
        recorder.finalize_of(100_000);
    }
    recorder.end();
    machine.wait_for_scan(&mut python);
    takes.begin(&disk);
    assert!(machine.run(&["resume"]).status.success());
    let is_stored = || recorder.chunks.iter().all(|chunk| machine.is_stored("drive", chunk));
    until("all of it is in the store", is_stored);
    until("it is safe, and in memory only", || {
        let status = status(&mut python, &machine);
        status["safe"] == true && status["durable"] == false
    });
    assert_eq!(marks(&recorder), 0, "{takes:?}");
    let object = machine.object("drive", recorder.chunks[0]["name"].as_str().unwrap());
    let written = fs::metadata(&object).unwrap().modified().unwrap();

    // A crash loses the marks in memory. The store is asked again, and nothing is sent twice.
    machine.kill();
    machine.start();
    python = machine.python();
    until("it is known again", || status(&mut python, &machine)["safe"] == true);
    assert_eq!(fs::metadata(&object).unwrap().modified().unwrap(), written, "no object is written anew");

    takes.end(&disk);
    until("each mark is written", || marks(&recorder) == 5);
    until("nothing is in memory only", || status(&mut python, &machine)["durable"] == true);
    machine.kill();
    machine.start();
    python = machine.python();
    machine.wait_for_scan(&mut python);
    assert_eq!(status(&mut python, &machine)["at_risk_chunks"], json!(0));
    assert_eq!(marks(&recorder), 5, "no mark is written again");
    assert_eq!(machine.terminate(), Some(0));
}

#[test]
fn a_full_disk_stops_no_upload_and_loses_no_mark() {
    goes_up_all_the_same("full_1", Takes::NoByte);
}

#[test]
fn a_read_only_disk_stops_no_upload_and_loses_no_mark() {
    goes_up_all_the_same("full_2", Takes::NoWrite);
}
