//! A machine that is lost while it is asked. The client is told in time, and gets the answers of the others.

use std::{
    fs,
    io::Read,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{
    node::{Machine, until},
    python::{Get, Python},
};

/// How a machine is lost.
#[derive(Debug, Clone, Copy)]
enum Loss {
    Killed,
    /// It is stopped; its connections stay open.
    Frozen,
}

impl Loss {
    const ALL: [Self; 2] = [Self::Killed, Self::Frozen];

    fn befalls(self, machine: &mut Machine) {
        match self {
            Self::Killed => machine.kill(),
            Self::Frozen => machine.signal(Signal::STOP),
        }
    }
}

/// Two machines of one fleet, each with a recording. The store of the second one is missing, so jobs there do not end.
fn fleet(id: &str) -> (Machine, Machine) {
    let one = Machine::started(&format!("{id}a"));
    one.recorder("drive").finalize();
    let mut two = Machine::new(&format!("{id}b"), "");
    two.set("backend = \"local\"\nlocal_path = \"../none/store\"");
    let config = two.home().join("config.toml");
    let settings = fs::read_to_string(&config).unwrap();
    fs::write(&config, settings.replace("connect = []", &format!("connect = [{:?}]", one.endpoint()))).unwrap();
    two.recorder("drive").finalize();
    two.start();
    until("both have scanned", || {
        let fleet = one.run(&["list", "--machine", "*", "--json"]);
        let rows = serde_json::from_slice::<Value>(&fleet.stdout).unwrap_or_default();
        rows.as_array().is_some_and(|rows| rows.len() == 2 && rows.iter().all(|row| row["recordings"][0].is_object()))
    });
    (one, two)
}

/// Starts an upload command in a machine's home. Returns once the job runs on the other machine.
fn asked_for_upload(home: &Machine, runs_on: &Machine, more: &[&str]) -> Child {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bubbaloop-storage"));
    command.args(["upload", "--all", "--timeout", "2s", "--home"]).arg(home.home()).args(more);
    let command = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    until("the job runs", || {
        let jobs = runs_on.run(&["jobs", "--json"]);
        serde_json::from_slice::<Value>(&jobs.stdout).is_ok_and(|jobs| jobs["jobs"][0]["state"] == "running")
    });
    command
}

/// Waits until a command has received its first answer: then it prints progress.
fn until_answered(command: &mut Child) {
    let mut first = [0];
    command.stderr.as_mut().unwrap().read_exact(&mut first).unwrap();
}

/// Checks that a command ends soon without an answer of `lost`. Returns what it printed.
fn ends_without(mut command: Child, lost: &Machine, case: &str) -> String {
    let began = Instant::now();
    until("the command ends", || command.try_wait().unwrap().is_some());
    let took = began.elapsed();
    let output = command.wait_with_output().unwrap();
    let told = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(4), "{case}: {output:?}");
    assert!(told.contains(&lost.id), "{case}: {told}");
    assert!(took < Duration::from_secs(20), "{case}: {took:?}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn a_command_to_the_fleet_reports_the_lost_machine_and_the_answer_of_the_other() {
    for loss in Loss::ALL {
        for is_later in [false, true] {
            let case = format!("{loss:?}, after its first answer: {is_later}");
            let (one, mut two) = fleet("lost_1");
            let mut command = asked_for_upload(&one, &two, &["--machine", "*"]);
            if is_later {
                until_answered(&mut command);
            }
            loss.befalls(&mut two);
            let told = ends_without(command, &two, &case);
            assert!(told.contains(&format!("on {}: done, 1/1 chunks", one.id)), "{case}: {told}");
        }
    }
}

#[test]
fn a_command_to_one_lost_machine_ends_before_its_timeout() {
    for loss in Loss::ALL {
        for is_later in [false, true] {
            let case = format!("{loss:?}, after its first answer: {is_later}");
            let mut two = fleet("lost_2").1;
            let mut command = asked_for_upload(&two, &two, &["--wait", "10m"]);
            if is_later {
                until_answered(&mut command);
            }
            loss.befalls(&mut two);
            let told = ends_without(command, &two, &case);
            assert_eq!(told.contains("running"), is_later, "{case}: told last: {told}");
        }
    }
}

#[test]
fn a_client_in_another_language_is_not_delayed_and_sees_which_machine_is_gone() {
    for loss in Loss::ALL {
        let (one, mut two) = fleet("lost_3");
        let mut python = Python::dialling(&[&one.endpoint(), &two.endpoint()]);
        one.wait_for_scan(&mut python);
        two.wait_for_scan(&mut python);
        let asking = std::thread::spawn(move || {
            let selector = "bubbaloop/*/storage/upload?all=true;wait=10m";
            let replies = python.get(&Get { selector, all: true, ..Get::default() });
            (python, replies)
        });
        until("the job runs", || {
            let jobs = two.run(&["jobs", "--json"]);
            serde_json::from_slice::<Value>(&jobs.stdout).is_ok_and(|jobs| jobs["jobs"][0]["state"] == "running")
        });
        let began = Instant::now();
        loss.befalls(&mut two);
        let (mut python, replies) = asking.join().unwrap();
        assert!(began.elapsed() < Duration::from_secs(20), "{loss:?}: {:?}", began.elapsed());
        let answered: Vec<_> = replies.iter().filter(|reply| reply.is_ok).collect();
        assert_eq!(answered.len(), 1, "{loss:?}: {replies:?}");
        assert_eq!(
            (&answered[0].value()["machine_id"], &answered[0].value()["state"]),
            (&json!(one.id), &json!("done"))
        );
        until("its sign of life ends", || python.alive("bubbaloop/*/storage/liveliness") == [one.key("liveliness")]);
    }
}
