//! The rules of the house, read from the sources.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// The rooms, lowest first; a room may import from rows below its own.
const ROWS: [&[&str]; 6] = [
    &["policy"],
    &["clock", "content", "durable", "secret"],
    &["mark"],
    &["store", "library", "config"],
    &["engine"],
    &["service"],
];

/// What only some rooms may name.
const OWNED: [(&str, &[&str]); 12] = [
    ("aws_", &["store"]),
    ("zenoh::", &["bus"]),
    ("zenoh_ext", &["bus"]),
    ("zenoh_keyexpr", &["bus"]),
    ("clap::", &["cli"]),
    ("comfy_table", &["cli"]),
    ("indicatif", &["cli"]),
    ("textwrap", &["cli"]),
    // The demo is a recorder too.
    ("use mcap::", &["library", "cli"]),
    ("serde_yaml_ng", &["library", "cli"]),
    ("SystemTime::now", &["clock"]),
    ("Instant::now", &["clock"]),
];

/// What policy, which decides, may not name.
const NOT_IN_POLICY: [&str; 6] = ["async ", ".await", "std::fs", "std::io", "std::net", "tokio"];

fn sources(folder: &Path) -> Vec<(PathBuf, String)> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push((path.clone(), fs::read_to_string(&path).unwrap()));
        }
    }
    found
}

/// The sources of the node with the room that each is in.
fn rooms() -> Vec<(String, PathBuf, String)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let room_of = |path: &Path| {
        let first = path.strip_prefix(&root).unwrap().components().next().unwrap();
        first.as_os_str().to_str().unwrap().trim_end_matches(".rs").to_owned()
    };
    sources(&root).into_iter().map(|(path, text)| (room_of(&path), path, text)).collect()
}

fn row(room: &str) -> usize {
    ROWS.iter().position(|row| row.contains(&room)).unwrap_or(ROWS.len())
}

fn code(text: &str) -> impl Iterator<Item = &str> {
    text.lines().map(str::trim_start).filter(|line| !line.starts_with("//"))
}

/// The rooms that a source names, in any of the ways in which imports are written.
fn imported(text: &str) -> Vec<String> {
    let joined = code(text).collect::<Vec<_>>().join(" ");
    let mut named = Vec::new();
    for (place, marker) in joined.match_indices("crate::") {
        let rest = &joined[place + marker.len()..];
        let list = match rest.strip_prefix('{') {
            Some(group) => group.split_once("};").map_or(group, |(inside, _)| inside),
            None => rest.split([';', ' ', ',', '(', ')', '<', '>']).next().unwrap_or_default(),
        };
        let mut depth = 0;
        for part in list.split_inclusive([',', '{', '}']) {
            let name = part.trim().split(|letter: char| !(letter.is_alphanumeric() || letter == '_')).next();
            if depth == 0 {
                named.extend(name.filter(|name| !name.is_empty()).map(str::to_owned));
            }
            depth += i32::from(part.ends_with('{')) - i32::from(part.ends_with('}'));
        }
    }
    named
}

#[test]
fn imports_point_one_way() {
    for (room, path, text) in rooms().iter().filter(|(room, ..)| !["lib", "main"].contains(&room.as_str())) {
        for named in imported(text) {
            assert!(
                named == *room || row(&named) < row(room) || row(room) == ROWS.len() && named != "main",
                "{}: {room} imports {named}",
                path.display()
            );
        }
    }
}

#[test]
fn an_import_is_seen_however_it_is_written() {
    let text = "use crate::{\n    engine::{a, b},\n    store,\n};\nuse crate::bus::x;\nfn f() { crate::cli::run() }\n// crate::no";
    assert_eq!(imported(text), ["engine", "store", "bus", "cli"]);
}

#[test]
fn a_crate_that_belongs_to_one_room_is_named_in_no_other() {
    for (room, path, text) in rooms() {
        for (name, owners) in OWNED.iter().filter(|(_, owners)| !owners.contains(&room.as_str())) {
            assert!(!code(&text).any(|line| line.contains(name)), "{}: {name} belongs to {owners:?}", path.display());
        }
    }
}

#[test]
fn policy_neither_waits_nor_touches_the_world() {
    for (_, path, text) in rooms().iter().filter(|(room, ..)| room == "policy") {
        for name in NOT_IN_POLICY {
            assert!(!code(text).any(|line| line.contains(name)), "{}: {name}", path.display());
        }
    }
}

#[test]
fn no_file_is_too_long_to_be_read_whole() {
    const LINES_MAX: usize = 700;
    let of = |folder: &str| sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join(folder));
    for (path, text) in ["src", "benches", "../schemas/src"].into_iter().flat_map(of) {
        assert!(text.lines().count() <= LINES_MAX, "{} has over {LINES_MAX} lines", path.display());
    }
}
