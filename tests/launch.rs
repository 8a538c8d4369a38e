//! The files in `launch/` start a node that answers.

use std::{collections::BTreeMap, fs, net::TcpListener, path::Path};

use bubbaloop_storage::config::{Config, File, Files, StoreChoice, definitions};
use serde_json::json;

use crate::support::{
    node::{Machine, until},
    python::{Get, Python},
};

fn launch(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("../launch").join(name)).unwrap()
}

fn load(text: &str) -> Config {
    let files = Files { config: File::Text(text.to_owned().into()), secrets: File::Absent };
    Config::of(Path::new("/home"), &files, &BTreeMap::new(), &[])
}

fn backend(config: &Config) -> Option<&str> {
    match &config.settings.store {
        StoreChoice::Set(settings) => Some(settings.backend()),
        StoreChoice::Unset | StoreChoice::Invalid(_) => None,
    }
}

/// Returns a free port.
fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

#[test]
fn the_annotated_settings_are_valid_also_with_every_line_uncommented() {
    let text = launch("storage.toml");
    let config = load(&text);
    assert_eq!(config.problems, []);
    assert_eq!(backend(&config), Some("local"));
    let is_setting = |line: &str| {
        line.strip_prefix("# ").is_some_and(|line| line.split_once(" = ").is_some_and(|(key, _)| !key.contains(' ')))
    };
    let (mut all, mut taken) = (String::new(), 0);
    for line in text.lines() {
        let is_twice = line.starts_with("backend") || line.starts_with("local_path");
        if is_setting(line) {
            taken += 1;
            all += line.trim_start_matches("# ");
        } else if !is_twice {
            all += line;
        }
        all.push('\n');
    }
    let config = load(&all);
    assert_eq!(config.problems, [], "{all}");
    assert!(taken > 18, "{taken}");
    assert_eq!(backend(&config), Some("s3"));
}

#[test]
fn the_annotated_settings_are_all_of_them_with_their_defaults() {
    let mut table = "";
    let mut shown = BTreeMap::new();
    let text = launch("storage.toml");
    for line in text.lines() {
        table = line.strip_prefix("[storage").and_then(|rest| rest.strip_suffix(']')).unwrap_or(table);
        let Some((name, value)) = line.trim_start_matches("# ").split_once(" = ") else { continue };
        let value = value.split_once(" #").map_or(value, |(value, _)| value).trim();
        shown.insert(
            format!("{}{name}", table.strip_prefix('.').map(|table| format!("{table}.")).unwrap_or_default()),
            value,
        );
    }
    for definition in definitions().filter(|definition| !definition.is_secret()) {
        let value = shown.remove(definition.name);
        let value = value.unwrap_or_else(|| panic!("launch/storage.toml does not show {}", definition.name));
        // What has no default, or an empty one, is shown with an example.
        let default = definition.default.filter(|default| *default != "[]");
        if let Some(default) = default {
            assert_eq!(value.trim_matches('"'), default, "{}", definition.name);
        }
    }
    shown.retain(|name, _| !name.contains(' '));
    assert_eq!(shown, BTreeMap::new(), "these are no settings");
}

/// Starts a node with a Zenoh file from `launch/zenoh`, on another port.
fn started_with(id: &str, file: &str, port: u16) -> Machine {
    let mut machine = Machine::new(id, "");
    let text = launch(file).replace("7447", &port.to_string()).replace("7448", &port.to_string());
    fs::write(machine.home().join("zenoh.json5"), text).unwrap();
    let config = machine.home().join("config.toml");
    let settings = fs::read_to_string(&config).unwrap();
    let (head, _) = settings.split_once("[storage.zenoh]").unwrap();
    fs::write(&config, format!("{head}[storage.zenoh]\nconfig_file = \"zenoh.json5\"\n")).unwrap();
    machine.start_and(|_| true);
    machine
}

#[test]
fn clients_connect_to_a_node_without_a_router() {
    let port = free_port();
    let machine = started_with("launch_1", "zenoh/alone.json5", port);
    let mut python = Python::dialling(&[&format!("tcp/127.0.0.1:{port}")]);
    machine.wait_for_scan(&mut python);
    assert_eq!(python.ask(&machine.key("status")).value()["machine_id"], "launch_1");
}

#[test]
fn beside_a_router_peers_and_clients_reach_the_node_through_it() {
    let port = free_port();
    let machine = started_with("launch_2", "zenoh/router.json5", port);
    let endpoint = format!("tcp/127.0.0.1:{port}");
    let quiet = json!({"multicast": {"enabled": false}, "gossip": {"enabled": false}});
    let _router = Python::with(&json!({"mode": "router", "listen": {"endpoints": [endpoint]}, "scouting": quiet}));
    for mode in ["client", "peer"] {
        let mut python = Python::with(&json!({
            "mode": mode, "connect": {"endpoints": [endpoint]}, "listen": {"endpoints": []}, "scouting": quiet,
        }));
        let selector = machine.key("status");
        until("the router came, and the node is reached through it", || {
            let replies = python.get(&Get { selector: &selector, ..Get::default() });
            replies.first().is_some_and(|reply| reply.is_ok)
        });
    }
}

#[test]
fn the_launch_files_name_existing_commands() {
    for (file, marker) in
        [("node.yaml", "command: "), ("bubbaloop-storage.service", "ExecStart="), ("storage.launch.yaml", "raw_args: ")]
    {
        let text = launch(file);
        let line = text.lines().find_map(|line| line.trim_start().strip_prefix(marker)).unwrap();
        assert!(line.contains("serve"), "{file}: {line}");
        for setting in line.split_whitespace().filter(|word| word.contains("zenoh.mode")) {
            let (key, value) = setting.trim_matches(|letter| "[],".contains(letter)).split_once('=').unwrap();
            let files = Files::default();
            let flags = [(key.to_owned(), value.to_owned())];
            assert_eq!(Config::of(Path::new("/home"), &files, &BTreeMap::new(), &flags).problems, [], "{file}");
        }
    }
    assert!(launch("bubbaloop-storage.service").contains("ReadWritePaths=%h/.bubbaloop"));
}
