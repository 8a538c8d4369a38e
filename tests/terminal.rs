//! The command line on a terminal, also on narrow ones, and in a pipe.

use std::{
    fs,
    io::{BufRead, BufReader},
    process::{Command, Stdio},
};

use serde_json::{Value, json};

use crate::support::{
    node::{Machine, until},
    python::Python,
    terminal::Terminal,
};

const BINARY: &str = env!("CARGO_BIN_EXE_bubbaloop-storage");

/// Runs a command on a terminal until it ends.
fn ended(machine: &Machine, columns: u16, arguments: &[&str]) -> (i32, Terminal) {
    let mut terminal = machine.on_terminal(columns, arguments);
    let code = terminal.end();
    (code, terminal)
}

/// Returns the lines as they were written. A terminal would have broken lines that are too wide.
fn lines(terminal: &Terminal) -> Vec<String> {
    let text = terminal.written();
    assert!(!text.contains('\u{1b}'), "no colours, no moves: {text:?}");
    text.lines().map(str::to_owned).collect()
}

fn recorded(id: &str) -> Machine {
    let machine = Machine::started(id);
    let mut recorder = machine.recorder("drive_2026-11-24_from_the_quarry_to_the_harbour");
    for _ in 0..3 {
        recorder.finalize();
    }
    recorder.save(&json!({"ended_at_ns": 1_700_000_100_000_000_000_u64, "tags": ["night", "rain", "x".repeat(400)]}));
    until("the recording is uploaded", || String::from_utf8(machine.run(&["list"]).stdout).unwrap().contains("3/3"));
    machine
}

#[test]
fn nothing_is_wider_than_the_terminal_and_pipes_get_whole_lines() {
    let machine = recorded("terminal_1");
    let name = "drive_2026-11-24_from_the_quarry_to_the_harbour";
    for columns in [40, 80, 200] {
        for arguments in [
            &["list"][..],
            &["info", name],
            &["status"],
            &["config"],
            &["jobs"],
            &["reconcile", name],
            &["doctor"],
            &["topics"],
            &["list", "--machine", "*"],
            &["dead-letters"],
            &["list", "--remote"],
            &["reconcile", name, "--restore", "--dry-run"],
        ] {
            let (_, terminal) = ended(&machine, columns, arguments);
            let lines = lines(&terminal);
            assert!(!lines.is_empty(), "{arguments:?}");
            for line in lines {
                assert!(line.chars().count() <= usize::from(columns), "{columns} {arguments:?}: {line:?}");
            }
        }
    }
    let narrow = lines(&ended(&machine, 40, &["list"]).1).join("\n");
    assert!(narrow.contains("RECORDING") && narrow.contains("3/3") && !narrow.contains("TAGS"), "{narrow}");
    let piped = String::from_utf8(machine.run(&["list"]).stdout).unwrap();
    let row = piped.lines().find(|line| line.contains(name)).unwrap();
    assert!(row.contains("3/3") && row.contains(&"x".repeat(400)), "whole, in one line: {piped}");
}

#[test]
fn a_bar_shows_an_upload_on_a_terminal_and_ctrl_c_leaves_the_job() {
    let mut machine = Machine::new("terminal_2", "");
    machine.set("backend = \"local\"\nlocal_path = \"../mnt/store\"\nrescan_interval = \"1s\"");
    let mut recorder = machine.recorder("drive");
    for _ in 0..3 {
        recorder.finalize();
    }
    recorder.end();
    machine.start();
    until("the recording is seen", || machine.run(&["info", "drive"]).status.success());
    for columns in [40, 100] {
        let mut terminal = machine.on_terminal(columns, &["upload", "drive"]);
        until("the bar is drawn", || terminal.screen().contains("0 B/590"));
        until("it is told what holds it back", || terminal.screen().contains("blocked: local_path_missing"));
        assert_eq!(terminal.screen().contains("drive"), columns == 100, "{}", terminal.screen());
        terminal.interrupt();
        assert_eq!(terminal.end(), 1);
        assert!(terminal.screen().contains("the job goes on in the node"), "{}", terminal.screen());
    }
    let quiet = machine.run(&["upload", "drive", "--wait", "3s", "--json"]);
    assert_eq!(quiet.stderr, b"", "programs are told nothing in between");
    assert_eq!(serde_json::from_slice::<Value>(&quiet.stdout).unwrap()["state"], "running");
    let mut terminal = machine.on_terminal(100, &["upload", "drive"]);
    until("the bar is drawn", || terminal.screen().contains("0 B/590"));
    fs::create_dir(machine.folder.path().join("mnt")).unwrap();
    assert_eq!(terminal.end(), 0);
    let screen = terminal.screen();
    assert!(screen.contains("upload of drive on terminal_2: done, 3/3 chunks"), "{screen}");
    assert!(!screen.contains("0 B/590"), "the bar is gone: {screen}");
}

#[test]
fn a_bar_shows_a_download_and_disappears_at_its_end() {
    let machine = recorded("terminal_10");
    let name = "drive_2026-11-24_from_the_quarry_to_the_harbour";
    let to = machine.folder.path().join("copy");
    let to = to.to_str().unwrap();
    for (columns, done) in [(40, "3 chunks fetched"), (100, "0 chunks fetched")] {
        let (code, terminal) = ended(&machine, columns, &["download", name, "--to", to]);
        assert_eq!(code, 0, "{}", terminal.screen());
        let written = terminal.written();
        assert!(written.contains("0 B/"), "the bar was drawn: {written}");
        assert!(!terminal.screen().contains('['), "the bar is gone: {}", terminal.screen());
        assert!(!terminal.screen().contains("chunk-"), "no line for each chunk: {}", terminal.screen());
        let words: Vec<_> = terminal.screen().split_whitespace().map(str::to_owned).collect();
        assert!(words.join(" ").contains(&format!("of terminal_10: {done}")), "{words:?}");
    }
    let piped = machine.run(&["download", name, "--to", to]);
    let told = String::from_utf8(piped.stderr).unwrap();
    assert_eq!(told.matches("is there already").count(), 3, "{told}");
    assert_eq!(
        machine.run(&["download", name, "--to", to, "--json"]).stderr,
        b"",
        "programs are told nothing in between"
    );
}

#[test]
fn a_watched_status_is_drawn_in_place_and_ctrl_c_gives_the_cursor_back() {
    let machine = recorded("terminal_3");
    let mut terminal = machine.on_terminal(80, &["status", "--watch"]);
    until("it is drawn", || terminal.screen().contains("Ctrl-C ends it"));
    assert!(terminal.hides_cursor());
    let frames = |terminal: &Terminal| terminal.written().matches("\u{1b}[H").count();
    until("it was drawn some times", || frames(&terminal) > 3);
    let screen = terminal.screen();
    assert_eq!((screen.matches("machine          terminal_3").count(), terminal.scrolled()), (1, 0), "{screen}");
    terminal.interrupt();
    assert_eq!(terminal.end(), 0);
    assert!(!terminal.hides_cursor());
}

#[test]
fn a_watched_status_in_a_pipe_is_a_line_each_time_until_nobody_reads() {
    let machine = recorded("terminal_4");
    let watch = |more: &[&str]| {
        let mut command = Command::new(BINARY);
        command.args(["status", "--watch", "--home"]).arg(machine.home()).args(more).stdout(Stdio::piped());
        command.spawn().unwrap()
    };
    let mut json = watch(&["--json"]);
    let mut read = BufReader::new(json.stdout.take().unwrap());
    for _ in 0..2 {
        let mut line = String::new();
        read.read_line(&mut line).unwrap();
        assert_eq!(serde_json::from_str::<Value>(&line).unwrap()["machine_id"], "terminal_4");
    }
    drop(read);
    assert_eq!(json.wait().unwrap().code(), Some(0), "a reader that goes away ends it");
    let mut text = watch(&[]);
    let mut lines = BufReader::new(text.stdout.take().unwrap()).lines();
    let first = lines.next().unwrap().unwrap();
    assert_eq!(first, "machine          terminal_4");
    assert!(lines.any(|line| line.unwrap() == first), "the next block");
    drop(lines);
    assert_eq!(text.wait().unwrap().code(), Some(0));
}

#[test]
fn the_topics_of_the_fleet_are_listed_whoever_declares_them() {
    let machine = Machine::started("terminal_5");
    let mut python = Python::dialling(&[&machine.endpoint()]);
    let camera = json!({
        "machine_id": "robot_9", "instance_name": "camera", "role": "source",
        "outputs": [{"topic": "camera/compressed", "ever_fired": true, "still_live": true}],
    });
    python.answer("bubbaloop/global/robot_9/camera/manifest", camera.to_string().as_bytes());
    python.answer("bubbaloop/global/robot_9/broken/manifest", b"{\"machine_id\": 7}");
    let told = || machine.run(&["topics", "--json"]);
    until("all manifests are told", || String::from_utf8_lossy(&told().stdout).contains("camera/compressed"));
    let topics = told();
    assert!(String::from_utf8_lossy(&topics.stderr).contains("warning: a manifest names no machine_id"), "{topics:?}");
    let json: Value = serde_json::from_slice(&topics.stdout).unwrap();
    let machines: Vec<_> = json["machines"].as_array().unwrap().iter().map(|it| it["machine_id"].clone()).collect();
    assert_eq!(machines, ["robot_9", "terminal_5"]);
    assert_eq!(json["machines"][0]["instances"][0]["topics"][0]["state"], "live");
    let text = |arguments: &[&str]| String::from_utf8(machine.run(arguments).stdout).unwrap();
    let live = text(&["topics", "--grep", "Compressed"]);
    assert!(live.lines().count() == 2 && live.contains("camera/compressed") && live.contains("live"), "{live}");
    assert!(text(&["topics", "--machine", "terminal_5"]).contains("*/chunk_finalized"));
    assert_eq!(text(&["topics", "--machine", "robot_8"]), "no topics\n");
}

#[test]
fn the_doctor_reports_what_is_wrong_with_and_without_a_node() {
    let machine = recorded("terminal_6");
    let sound = machine.run(&["doctor"]);
    let text = String::from_utf8(sound.stdout.clone()).unwrap();
    assert_eq!(sound.status.code(), Some(0), "{text}");
    for part in
        ["terminal_6 answers", "its token is seen", "nothing in it is safe", "it refuses wrong bytes", "3 of 3 chunks"]
    {
        assert!(text.contains(part), "{part}: {text}");
    }
    machine.set("backend = \"local\"\nconcurency = 3");
    until("the change is told", || !machine.run(&["doctor"]).status.success());
    until("the whole of it is told", || {
        let text = String::from_utf8(machine.run(&["doctor"]).stdout).unwrap();
        text.contains("concurency") && text.contains("did you mean concurrency?") && text.contains("local_path")
    });
    let json: Value = serde_json::from_slice(&machine.run(&["doctor", "--json"]).stdout).unwrap();
    assert_eq!((&json["machine_id"], &json["ok"]), (&json!("terminal_6"), &json!(false)));

    let away = Machine::new("terminal_7", "");
    away.set_secrets("key", "secret");
    let path = away.home().join("secrets.toml");
    fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o644)).unwrap();
    let told = away.run(&["doctor"]);
    let text = String::from_utf8(told.stdout.clone()).unwrap();
    assert_eq!(told.status.code(), Some(1));
    for part in [
        "no node was ever started",
        "bubbaloop-storage serve",
        "others can read secrets.toml (mode 644)",
        "it can be written",
    ] {
        assert!(text.contains(part), "{part}: {text}");
    }
    assert_eq!(away.run(&["doctor", "--machine", "*"]).status.code(), Some(2));
}

#[test]
fn a_node_reads_the_settings_file_of_bubbaloops_daemon() {
    let machine = Machine::new("terminal_8", "");
    let file = machine.folder.path().join("storage.yaml");
    fs::write(&file, "name: storage\nconcurrency: 7\noutput_dir: /x\n").unwrap();
    let quoted = format!("\"{}\"", file.display());
    let mut node = Command::new(BINARY)
        .args(["serve", "-c", &quoted, "--set", "give_up_after=1h", "--home"])
        .arg(machine.home())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let value = |key: &str| {
        let config = machine.run(&["config", "--json"]);
        let config: Value = serde_json::from_slice(&config.stdout).unwrap_or_default();
        let settings = config["settings"].as_array().cloned().unwrap_or_default();
        settings.iter().find(|setting| setting["key"] == key).map(|setting| setting["value"].clone())
    };
    until("the file's setting holds", || value("concurrency") == Some(json!(7)));
    assert_eq!(value("give_up_after"), Some(json!("1h")));
    node.kill().unwrap();
    let log = String::from_utf8(node.wait_with_output().unwrap().stderr).unwrap();
    assert!(log.contains("not used: there is no such setting") && log.contains("output_dir"), "{log}");
    assert!(!log.contains('\u{1b}'), "no colours in a pipe");
    let missing = machine.run(&["serve", "--config", "/nowhere.yaml"]);
    assert_eq!(missing.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&missing.stderr).contains("/nowhere.yaml"), "{missing:?}");
}

#[test]
fn colours_can_be_switched_off() {
    let machine = Machine::new("terminal_9", "concurency = 1");
    for (no_colour, has_colours) in [("", true), ("1", false)] {
        let mut command = Command::new(BINARY);
        command.args(["serve", "--home"]).arg(machine.home()).env("NO_COLOR", no_colour);
        let mut terminal = Terminal::run(command, 80);
        until("it runs", || terminal.written().contains("on the bus"));
        assert!(terminal.written().contains("there is no such setting"), "{}", terminal.written());
        assert_eq!(terminal.written().contains("\u{1b}["), has_colours);
        terminal.interrupt();
        assert_eq!(terminal.end(), 0, "{}", terminal.written());
    }
}
