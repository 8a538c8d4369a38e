//! The command line of the real binary: its JSON and its exit codes.

use std::{
    fs,
    process::{Command, Output, Stdio},
};

use serde_json::{Value, json};

use crate::support::node::{Machine, until};

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn out(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn err(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

fn json_of(output: &Output) -> Value {
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {output:?}"))
}

#[test]
fn people_get_tables_and_programs_json_and_exit_codes() {
    let machine = Machine::started("cli_1");
    let mut recorder = machine.recorder("drive");
    let chunk = recorder.finalize();
    recorder.end();
    let upload = machine.run(&["upload", "drive"]);
    until("the first scan is done", || code(&machine.run(&["list"])) == 0);
    until("the chunk is stored", || machine.is_stored("drive", &chunk));
    assert!([0, 3].contains(&code(&upload)), "{upload:?}");
    let upload = machine.run(&["upload", "drive"]);
    assert_eq!((code(&upload), err(&upload).as_str()), (0, ""), "{upload:?}");
    assert!(out(&upload).contains("upload of drive on cli_1: done, 1/1 chunks"), "{upload:?}");

    let list = machine.run(&["list"]);
    assert!(out(&list).contains("RECORDING") && out(&list).contains("drive") && out(&list).contains("1/1"));
    assert!(!out(&list).contains('\u{1b}'), "no colour into a pipe");
    let list = json_of(&machine.run(&["list", "--json"]));
    assert_eq!((&list["recordings"][0]["recording"], &list["machine_id"]), (&json!("drive"), &json!("cli_1")));
    assert_eq!(json_of(&machine.run(&["--json", "info", "drive"]))["chunks"][0]["name"], chunk["name"]);
    assert!(out(&machine.run(&["info", "drive"])).contains(chunk["name"].as_str().unwrap()));
    assert!(out(&machine.run(&["status"])).contains("safe             NO"));
    let fleet = json_of(&machine.run(&["status", "--machine", "*", "--json"]));
    assert_eq!(fleet[0]["machine_id"], "cli_1");

    let missing = machine.run(&["info", "driv"]);
    assert_eq!((code(&missing), out(&missing).as_str()), (3, ""), "{missing:?}");
    assert!(err(&missing).contains("there is no recording driv") && err(&missing).contains("did you mean drive?"));
    for arguments in
        [&["info", "../../x"][..], &["upload"], &["list", "--limt"], &["frobnicate"], &["list", "--state", "x"]]
    {
        let wrong = machine.run(arguments);
        assert_eq!((code(&wrong), out(&wrong).as_str()), (2, ""), "{arguments:?}: {wrong:?}");
    }
}

#[test]
fn without_a_running_node_the_error_says_what_to_do() {
    let machine = Machine::new("cli_2", "");
    let never = machine.run(&["status"]);
    assert_eq!(code(&never), 4);
    assert!(err(&never).contains("bubbaloop-storage serve"), "{never:?}");
    let mut machine = machine;
    machine.start();
    assert_eq!(machine.terminate(), Some(0));
    let ended = machine.run(&["status"]);
    assert_eq!((code(&ended), out(&ended).as_str()), (4, ""), "{ended:?}");
    assert!(err(&ended).contains("serve"), "{ended:?}");
    machine.start();
    let other = machine.run(&["status", "--machine", "cli_nobody", "--timeout", "300ms"]);
    assert_eq!(code(&other), 4, "{other:?}");
    assert!(err(&other).contains("cli_nobody"));
}

#[test]
fn a_second_node_in_one_home_is_refused_and_a_wrong_setting_is_not() {
    let mut machine = Machine::new("cli_3", "concurency = 3\nconcurrency = \"many\"");
    machine.start();
    let second = machine.run(&["serve"]);
    assert_eq!(code(&second), 1);
    assert!(err(&second).contains("a node runs in"), "{second:?}");
    let status = json_of(&machine.run(&["status", "--json"]));
    let problems: Vec<_> = status["config_problems"].as_array().unwrap().iter().map(|it| it["key"].clone()).collect();
    assert_eq!(problems, ["concurency", "concurrency"]);
    assert!(machine.log().contains("concurency"), "{}", machine.log());
}

#[test]
fn wrong_store_settings_block_uploads_and_nothing_else() {
    let mut machine = Machine::new("cli_4", "");
    let config = machine.home().join("config.toml");
    let settings = fs::read_to_string(&config).unwrap();
    for (store, reason) in [("backend = \"locl\"", "config"), ("", "no_store")] {
        fs::write(&config, settings.replace("backend = \"local\"", store)).unwrap();
        machine.start();
        until("the reason is told", || {
            let status = machine.run(&["status", "--json"]);
            code(&status) == 0 && json_of(&status)["blocked"]["reason"] == reason
        });
        let status = json_of(&machine.run(&["status", "--json"]));
        assert_eq!((&status["safe"], &status["store"]["backend"]), (&json!(false), &json!(null)), "{status}");
        until("the list is there", || code(&machine.run(&["list"])) == 0);
        let upload = machine.run(&["upload", "--all"]);
        assert_eq!(code(&upload), 1, "{upload:?}");
        machine.kill();
    }
}

#[test]
fn a_closed_pipe_is_no_crash() {
    let machine = Machine::started("cli_5");
    until("the node answers", || code(&machine.run(&["list"])) == 0);
    let command = Command::new(env!("CARGO_BIN_EXE_bubbaloop-storage"))
        .args(["status", "--json", "--home"])
        .arg(machine.home())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut command = command.unwrap();
    drop(command.stdout.take());
    let output = command.wait_with_output().unwrap();
    assert!(!err(&output).contains("panicked"), "{output:?}");
    assert_eq!(code(&output), 0);
}

#[test]
fn the_demo_shows_the_whole_way_and_leaves_nothing_behind() {
    let folder = tempfile::tempdir().unwrap();
    let demo = Command::new(env!("CARGO_BIN_EXE_bubbaloop-storage"))
        .args(["demo", "--no-wait", "--chunks", "2"])
        .env("TMPDIR", folder.path())
        .output()
        .unwrap();
    assert_eq!(code(&demo), 0, "{demo:?}");
    let text = out(&demo);
    assert_eq!(text.matches("events/chunk_uploaded").count(), 2, "{text}");
    assert!(text.contains("ended") && text.contains("2/2"), "{text}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

#[test]
fn a_refused_machine_name_at_the_first_start_becomes_no_identity() {
    let mut machine = Machine::new("cli_6", "");
    let config = machine.home().join("config.toml");
    let good = fs::read_to_string(&config).unwrap();
    for bad in [good.replace("\"cli_6\"", "\"a/b\""), good.replace("[storage]\n", "[storage\n")] {
        fs::write(&config, bad).unwrap();
        machine.start();
        assert!(!machine.home().join("storage/identity.json").exists(), "a host name that stands in is not to last");
        machine.kill();
    }
    fs::write(
        &config,
        "[storage]\nmachine_id = \"global\"\n[storage.zenoh]\nconnect = []\nlisten = [\"tcp/127.0.0.1:0\"]\n",
    )
    .unwrap();
    machine.start();
    fs::write(&config, good).unwrap();
    until("the mended name is taken up", || {
        fs::read_to_string(machine.home().join("storage/identity.json")).is_ok_and(|text| text.contains("cli_6"))
    });
}

#[test]
fn external_text_reaches_the_terminal_without_control_characters_and_the_fleet_has_a_row_for_each_machine() {
    let machine = Machine::started("cli_7");
    until("the node answers", || code(&machine.run(&["list"])) == 0);
    let empty = machine.run(&["list", "--machine", "*"]);
    assert!(out(&empty).contains("cli_7") && out(&empty).contains("no recordings"), "{empty:?}");
    let mut recorder = machine.recorder("drive");
    recorder.finalize();
    recorder.save(&json!({"tags": ["a\u{1b}[31mred", "x".repeat(500)]}));
    until("the tag is seen", || out(&machine.run(&["list"])).contains("red"));
    let list = out(&machine.run(&["list"]));
    assert!(!list.contains('\u{1b}') && list.contains(&"x".repeat(500)), "{list:?}");
    assert_eq!(code(&machine.run(&["info", "drive", "--machine", "cli-7"])), 0, "host names are spelled with dashes");
}

/// Runs a command with this text on its stdin.
fn run_with(machine: &Machine, arguments: &[&str], input: &str) -> Output {
    use std::io::Write;
    let command = Command::new(env!("CARGO_BIN_EXE_bubbaloop-storage"))
        .args(arguments)
        .arg("--home")
        .arg(machine.home())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn();
    let mut command = command.unwrap();
    command.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    command.wait_with_output().unwrap()
}

#[test]
fn settings_are_changed_from_the_command_line_and_applied_by_the_node() {
    let machine = Machine::started("cli_8");
    let changed = machine.run(&["configure", "concurrency=7", "command_verbs=operator"]);
    assert_eq!(code(&changed), 0, "{changed:?}");
    until("the node takes it up", || {
        let config = machine.run(&["config", "--json"]);
        code(&config) == 0
            && json_of(&config)["settings"]
                .as_array()
                .unwrap()
                .iter()
                .any(|it| it["key"] == "concurrency" && it["value"] == 7)
    });
    assert!(out(&machine.run(&["config"])).contains("concurrency"));
    let secret = run_with(&machine, &["configure", "secret_access_key"], "hunter2\n");
    assert_eq!(code(&secret), 0, "{secret:?}");
    assert!(fs::read_to_string(machine.home().join("secrets.toml")).unwrap().contains("hunter2"));
    until("it is told as set only", || {
        out(&machine.run(&["config"])).lines().any(|line| line.contains("secret_access_key") && line.contains("set"))
    });
    assert!(!out(&machine.run(&["config", "--json"])).contains("hunter2"));
    for arguments in [
        &["configure", "concurrency=0"][..],
        &["configure", "bukket=x"],
        &["configure", "secret_access_key=x"],
        &["configure", "bucket"],
    ] {
        let wrong = machine.run(arguments);
        assert_eq!(code(&wrong), 2, "{arguments:?}: {wrong:?}");
        assert!(err(&wrong).contains("hint:"), "{wrong:?}");
    }
    assert_eq!(code(&machine.run(&["config", "--check"])), 0);
    let (endpoint, settings) = (machine.endpoint(), fs::read_to_string(machine.home().join("config.toml")).unwrap());
    fs::write(machine.home().join("config.toml"), "[storage\nbackend").unwrap();
    until("a slip is told", || {
        let status = machine.run(&["status", "--json"]);
        code(&status) == 0 && !json_of(&status)["config_problems"].as_array().unwrap().is_empty()
    });
    let status = json_of(&machine.run(&["status", "--json"]));
    assert_eq!(
        (&status["blocked"], &status["store"]["backend"]),
        (&json!(null), &json!("local")),
        "it goes on as it was"
    );
    assert_eq!(machine.endpoint(), endpoint);
    fs::write(machine.home().join("config.toml"), settings).unwrap();
    until("it is mended", || {
        let status = machine.run(&["status", "--json"]);
        code(&status) == 0 && json_of(&status)["config_problems"] == json!([])
    });
    fs::write(machine.home().join("config.toml"), "[storage]\nconcurency = 1\n").unwrap();
    let check = machine.run(&["config", "--check"]);
    assert_eq!(code(&check), 1);
    assert!(err(&check).contains("did you mean concurrency?"), "{check:?}");
}

#[test]
fn events_are_followed_and_uploads_are_paused_from_the_command_line() {
    use std::io::{BufRead, BufReader};
    let machine = Machine::started("cli_9");
    let follow = Command::new(env!("CARGO_BIN_EXE_bubbaloop-storage"))
        .args(["events", "--json", "--home"])
        .arg(machine.home())
        .stdout(Stdio::piped())
        .spawn();
    let mut follow = follow.unwrap();
    let mut lines = BufReader::new(follow.stdout.take().unwrap()).lines();
    let (heard, kinds) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        while let Some(Ok(line)) = lines.next() {
            let event: Value = serde_json::from_str(&line).unwrap();
            heard.send(event["kind"].as_str().unwrap().to_owned()).ok();
        }
    });
    let mut found = Vec::new();
    until("both words are heard", || {
        assert_eq!(code(&machine.run(&["pause", "--for", "1h"])), 0);
        assert_eq!(code(&machine.run(&["resume"])), 0);
        found.extend(kinds.try_iter());
        ["paused", "resumed"].iter().all(|kind| found.iter().any(|found| found == kind))
    });
    follow.kill().unwrap();
    follow.wait().unwrap();
    assert!(out(&machine.run(&["pause"])).contains("until somebody resumes them"));
    assert!(out(&machine.run(&["status"])).contains("paused"));
    let refused = machine.run(&["upload", "--all"]);
    assert_eq!(code(&refused), 1, "{refused:?}");
    assert!(out(&machine.run(&["jobs"])).contains("no jobs"));
    assert!(out(&machine.run(&["completions", "bash"])).contains("bubbaloop-storage"));
}

#[test]
fn a_list_without_a_node_has_all_pages() {
    let machine = Machine::new("cli_10b", "");
    let recordings = machine.home().join("recordings");
    fs::create_dir_all(&recordings).unwrap();
    for number in 0..1001 {
        fs::write(recordings.join(format!("take_{number:04}.mcap")), "12345").unwrap();
    }
    let list = json_of(&machine.run(&["list", "--offline", "--json"]));
    assert_eq!((list["recordings"].as_array().unwrap().len(), &list["next_after"]), (1001, &json!(null)));
}

#[test]
fn without_a_node_the_command_gives_the_same_answers() {
    let mut machine = Machine::new("cli_10", "");
    let mut recorder = machine.recorder("drive");
    let chunk = recorder.finalize();
    recorder.end();
    let list = json_of(&machine.run(&["list", "--offline", "--json"]));
    assert_eq!((&list["recordings"][0]["upload"], &list["machine_id"]), (&json!("none"), &json!("cli_10")));
    let upload = machine.run(&["upload", "drive", "--offline"]);
    assert_eq!(code(&upload), 0, "{upload:?}");
    assert!(machine.is_stored("drive", &chunk));
    assert!(out(&machine.run(&["info", "drive", "--offline"])).contains("enforced"));
    assert_eq!(code(&machine.run(&["info", "driv", "--offline"])), 3);
    machine.start();
    let taken = machine.run(&["list", "--offline"]);
    assert_eq!(code(&taken), 1, "{taken:?}");
    assert!(err(&taken).contains("a node runs in"));
}

#[test]
fn a_frozen_machine_of_the_fleet_is_reported_and_delays_no_other() {
    let one = Machine::started("cli_11a");
    let mut two = Machine::new("cli_11b", "");
    let config = two.home().join("config.toml");
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, settings.replace("connect = []", &format!("connect = [{:?}]", one.endpoint()))).unwrap();
    two.start();
    until("both answer", || {
        let fleet = one.run(&["status", "--machine", "*", "--json"]);
        code(&fleet) == 0 && json_of(&fleet).as_array().unwrap().len() == 2
    });
    two.signal(rustix::process::Signal::STOP);
    let fleet = one.run(&["status", "--machine", "*", "--json", "--timeout", "1s"]);
    let list = one.run(&["list", "--machine", "*", "--timeout", "1s"]);
    two.signal(rustix::process::Signal::CONT);
    assert_eq!(json_of(&fleet)[0]["machine_id"], "cli_11a");
    assert_eq!(json_of(&fleet)[1], json!({"machine_id": "cli_11b", "no_answer": "it is alive"}));
    let row = out(&list).lines().find(|line| line.contains("cli_11b")).map(str::to_owned);
    assert!(row.is_some_and(|row| row.contains("no answer") && row.contains("it is alive")), "{list:?}");
    assert_eq!((code(&fleet), err(&fleet).contains("cli_11b")), (4, true), "{fleet:?}");
    until("the other is back", || {
        let fleet = one.run(&["status", "--machine", "*", "--json"]);
        code(&fleet) == 0 && json_of(&fleet).as_array().unwrap().len() == 2
    });
}

#[test]
fn a_machine_that_is_off_is_known_from_its_objects_in_the_store() {
    let mut machine = Machine::started("cli_13");
    let mut recorder = machine.recorder("drive");
    let chunk = recorder.finalize();
    until("it is stored", || machine.is_stored("drive", &chunk));
    let store = machine.folder.path().join("store");
    fs::create_dir_all(store.join("cli_14/night/chunks")).unwrap();
    fs::write(store.join("cli_14/night/chunks").join(chunk["name"].as_str().unwrap()), "x").unwrap();
    let fleet = machine.run(&["status", "--machine", "*", "--json"]);
    let known = json_of(&fleet);
    assert_eq!(code(&fleet), 0, "what is off was not asked: {fleet:?}");
    assert_eq!((known.as_array().unwrap().len(), &known[0]["machine_id"]), (2, &json!("cli_13")), "{known:#}");
    assert_eq!(known[1]["machine_id"], "cli_14");
    assert!(known[1]["no_answer"].as_str().unwrap().contains("not on the bus"), "{known:#}");
    let row = out(&machine.run(&["list", "--machine", "*"]));
    assert!(row.lines().any(|line| line.contains("cli_14") && line.contains("no answer")), "{row}");
    // An unreadable store does not hide the machines that answer.
    fs::rename(&store, store.with_file_name("away")).unwrap();
    let fleet = machine.run(&["list", "--machine", "*", "--json"]);
    assert_eq!((code(&fleet), json_of(&fleet).as_array().unwrap().len()), (0, 1), "{fleet:?}");
    assert!(err(&fleet).contains("is not told"), "{fleet:?}");
    fs::rename(store.with_file_name("away"), &store).unwrap();
    machine.terminate();
}

#[test]
fn settings_that_need_each_other_are_set_together_or_not_at_all() {
    let machine = Machine::new("cli_12", "");
    let config = machine.home().join("config.toml");
    fs::write(&config, "[storage]\nprefix = \"north\"\n").unwrap();
    let before = fs::read_to_string(&config).unwrap();
    for (arguments, parts) in [
        (&["configure", "backend=local"][..], &["local_path (", "local_path is not set", "set local_path"][..]),
        (&["configure", "backend=r2"], &["endpoint (", "bucket (", "set bucket to the bucket's name"]),
        (&["configure", "backend=s3", "region=eu", "bucket=a/b"], &["bucket (", "is no bucket's name"]),
    ] {
        let refused = machine.run(arguments);
        assert_eq!((code(&refused), out(&refused).as_str()), (1, ""), "{arguments:?}: {refused:?}");
        for part in parts.iter().chain(&["config.toml", "nothing was changed"]) {
            assert!(err(&refused).contains(part), "{part}: {refused:?}");
        }
        assert_eq!(fs::read_to_string(&config).unwrap(), before);
    }
    let remote = ["backend=minio", "bucket=fleet", "endpoint=http://store.example.com:9000", "prefix="];
    let set = machine.run(&[&["configure"], &remote[..]].concat());
    assert_eq!(code(&set), 0, "the key may stand in the node's environment: {set:?}");
    for part in ["warning: endpoint (", "in the clear", "warning: secret_access_key (", "secrets.toml"] {
        assert!(err(&set).contains(part), "{part}: {set:?}");
    }
    assert!(!fs::read_to_string(&config).unwrap().contains("prefix"));
    assert_eq!(code(&machine.run(&["configure", "concurrency=3"])), 0, "what was wrong before holds up nothing");
}

#[test]
fn a_problem_of_the_store_names_the_real_source_of_its_setting() {
    let mut machine = Machine::new("cli_13", "");
    machine.set("backend = \"s3\"\nregion = \"eu\"\nbucket = \"a/b\"\nprefix = \"x//y\"");
    let config = machine.home().join("config.toml").display().to_string();
    let check = machine.run(&["config", "--check", "--json", "--set", "prefix=/"]);
    assert_eq!(code(&check), 1);
    let sources = |problems: &Value| -> Vec<(String, String)> {
        let text = |value: &Value| value.as_str().unwrap().to_owned();
        problems.as_array().unwrap().iter().map(|it| (text(&it["key"]), text(&it["source"]))).collect()
    };
    let found = sources(&json_of(&check)["config_problems"]);
    for (key, source) in
        [("bucket", config.as_str()), ("prefix", "--set prefix"), ("secret_access_key", config.as_str())]
    {
        assert!(found.contains(&(key.into(), source.into())), "{key}: {found:?}");
    }
    machine.start();
    let status = json_of(&machine.run(&["status", "--json"]));
    assert!(sources(&status["config_problems"]).contains(&("prefix".into(), config)), "{status}");
}

#[test]
fn a_time_in_seconds_is_refused_with_the_expected_form() {
    let machine = Machine::started("cli_14");
    until("the node answers", || code(&machine.run(&["list"])) == 0);
    let refused = machine.run(&["list", "--since", "1700000000"]);
    assert_eq!((code(&refused), out(&refused).as_str()), (2, ""), "{refused:?}");
    assert!(err(&refused).contains("give nanoseconds since 1970, or an RFC 3339 time"), "{refused:?}");
    assert_eq!(code(&machine.run(&["list", "--since", "1700000000000000000"])), 0);
}

#[test]
fn a_glob_that_matches_no_recording_is_not_found() {
    let machine = Machine::started("cli_15");
    machine.recorder("drive").finalize();
    until("the recording is seen", || out(&machine.run(&["list"])).contains("drive"));
    let missing = machine.run(&["reconcile", "ride_*"]);
    assert_eq!(code(&missing), 3, "{missing:?}");
    assert!(out(&missing).contains("no recording's name matches ride_*"), "{missing:?}");
    let job = json_of(&machine.run(&["reconcile", "ride_?", "--dry-run", "--json"]));
    assert_eq!((&job["state"], &job["error"]["code"]), (&json!("failed"), &json!("E_NOT_FOUND")), "{job}");
    assert_eq!(code(&machine.run(&["reconcile", "dri*"])), 0);
}

#[test]
fn a_reconcile_without_an_answer_of_the_store_fails_and_reports_its_findings() {
    let mut machine = Machine::new("cli_16", "");
    machine.set("backend = \"s3\"\nbucket = \"fleet\"\nregion = \"eu\"\nendpoint = \"http://127.0.0.1:1\"");
    machine.set_secrets("key", "secret");
    let mut recorder = machine.recorder("drive");
    recorder.finalize();
    recorder.end();
    machine.start();
    until("the recording is seen", || out(&machine.run(&["list"])).contains("drive"));
    for more in [&[][..], &["--dry-run"], &["--deep"]] {
        let told = machine.run(&[&["reconcile", "drive"], more].concat());
        assert_eq!(code(&told), 1, "{told:?}");
        for part in ["failed", "unknown", "could not be found out"] {
            assert!(out(&told).contains(part), "{part}: {told:?}");
        }
        let job = json_of(&machine.run(&[&["reconcile", "drive", "--json"], more].concat()));
        assert_eq!(
            (&job["error"]["code"], &job["error"]["retryable"]),
            (&json!("E_UNAVAILABLE"), &json!(true)),
            "{job}"
        );
        let reason = "no answer from http://127.0.0.1:1: connection refused; look at the network";
        assert!(job["error"]["message"].as_str().unwrap().contains(reason), "{job}");
        assert!(job["error"]["hint"].as_str().unwrap().contains("nothing was taken for absent"), "{job}");
        assert_eq!((&job["result"]["findings"][0]["kind"], &job["result"]["actions"]), (&json!("unknown"), &json!([])));
    }
}
