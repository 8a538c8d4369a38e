//! Rules about the structure of the code, checked on the sources.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    sync::OnceLock,
};

use self::imports::{Sources, rings};

mod imports;

/// The top-level modules, lowest first. A module may import from the rows before its own.
const ROWS: [&[&str]; 7] = [
    &["policy"],
    &["clock", "content", "durable", "secret"],
    &["mark"],
    &["store", "library"],
    &["config"],
    &["engine"],
    &["service"],
];

/// Crates and functions that only some modules may use.
const OWNED: [(&str, &[&str]); 12] = [
    ("aws_", &["store"]),
    ("zenoh::", &["bus"]),
    ("zenoh_ext", &["bus"]),
    ("zenoh_keyexpr", &["bus"]),
    ("clap::", &["cli"]),
    ("comfy_table", &["cli"]),
    ("indicatif", &["cli"]),
    ("textwrap", &["cli"]),
    // The demo also records.
    ("use mcap::", &["library", "cli"]),
    ("serde_yaml_ng", &["library", "cli"]),
    ("SystemTime::now", &["clock"]),
    ("Instant::now", &["clock"]),
];

/// What `policy` may not use: it is pure.
const NOT_IN_POLICY: [&str; 6] = ["async ", ".await", "std::fs", "std::io", "std::net", "tokio"];

/// Folders in which files still import each other. The list may only shrink.
const KNOWN_RINGS: [&str; 3] = ["node/src/engine/driver/", "node/src/library/", "node/src/store/s3/"];

/// Structs that may have more fields than the limit, each with its reason.
const LARGE_STRUCTS: [(&str, &str); 3] = [
    ("engine/driver/mod.rs State", "to be split"),
    ("library/scan.rs Recording", "to be split"),
    ("store/s3/mod.rs S3Store", "to be split"),
];

/// Files over the limit. The list may only shrink.
const KNOWN_LONG_FILES: [&str; 3] = ["node/src/content.rs", "node/src/engine/jobs.rs", "node/src/library/scan.rs"];

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

/// Returns the sources of the node, each with its top-level module.
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

/// Returns the checked crates: folder and sources.
fn crates() -> &'static [(&'static str, Sources); 2] {
    static CRATES: OnceLock<[(&str, Sources); 2]> = OnceLock::new();
    CRATES.get_or_init(|| {
        ["node/src", "schemas/src"].map(|folder| {
            let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
            (folder, Sources::read(&root.join(folder)))
        })
    })
}

fn room_of(file: &Path) -> &str {
    file.iter().next().unwrap().to_str().unwrap().trim_end_matches(".rs")
}

#[test]
fn imports_point_one_way() {
    let [(_, node), _] = crates();
    for ((from, to), names) in node.uses() {
        let (room, named) = (room_of(&from), room_of(&to));
        assert!(
            named == room || row(named) < row(room) || row(room) == ROWS.len(),
            "{} imports from {}: {names:?}",
            from.display(),
            to.display()
        );
    }
}

#[test]
fn no_two_files_use_each_other() {
    let mut found: BTreeSet<&&str> = BTreeSet::new();
    for (folder, sources) in crates() {
        let uses = sources.uses();
        for ring in rings(&uses) {
            let known = KNOWN_RINGS.iter().find(|known| {
                ring.iter().all(|file| Path::new(folder).join(file).starts_with(known.trim_end_matches('/')))
            });
            let inside = uses.iter().filter(|((from, to), _)| ring.contains(from) && ring.contains(to));
            assert!(known.is_some(), "in {folder} files use each other: {:#?}", inside.collect::<Vec<_>>());
            found.extend(known);
        }
    }
    for known in &KNOWN_RINGS {
        assert!(found.contains(known), "{known} has no ring any more: take it out of the list");
    }
}

#[test]
fn no_struct_has_too_many_fields() {
    const FIELDS_MAX: usize = 12;
    let [(_, node), _] = crates();
    let found = node.structs_over(FIELDS_MAX);
    let allowed: BTreeSet<_> = LARGE_STRUCTS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(found, allowed, "structs of over {FIELDS_MAX} fields");
}

/// Writes a crate with these files and reads it.
fn crate_of(files: &[(&str, &str)]) -> (tempfile::TempDir, Sources) {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in files {
        let path = folder.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }
    let sources = Sources::read(folder.path());
    (folder, sources)
}

#[test]
fn an_import_is_found_in_every_notation() {
    for user in [
        "use crate::b::Item;",
        "use crate::{a as other, b::{self, Item as Renamed}};",
        "use super::b; fn f() { b::Item; }",
        "fn f() -> Vec<crate::b::Item> { vec![] }",
        "fn f() { assert!(matches!(1, super::b::Item)); }",
        "fn f() { use crate::b::{Item, deep::Below}; }",
        "use super::Exported;",
        "use crate::*; mod inner { use super::super::b::Item; }",
        "use crate::b as it; fn f(_: it::Item) {}",
        "#[cfg(test)] mod tests { use crate::b::*; }",
    ] {
        let (_folder, sources) = crate_of(&[
            ("lib.rs", "mod a; mod b; pub use b::Item as Exported;"),
            ("a.rs", user),
            ("b.rs", "pub mod deep; pub struct Item;"),
            ("b/deep.rs", "pub struct Below;"),
        ]);
        let uses = sources.uses();
        assert!(uses.contains_key(&("a.rs".into(), "b.rs".into())), "{user}: {uses:?}");
        assert!(rings(&uses).is_empty(), "{user}: {uses:?}");
    }
    let (_folder, sources) = crate_of(&[
        ("lib.rs", "mod a; mod b;"),
        ("a.rs", "// use crate::b::Item;\nuse b::Item; use async_trait::async_trait; use self::Own as b; struct Own;"),
        ("b.rs", "pub struct Item;"),
    ]);
    assert!(sources.uses().is_empty(), "another crate of the name, a comment: {:?}", sources.uses());
}

#[test]
fn files_that_use_each_other_are_found() {
    let parent = ("lib.rs", "mod a; fn f() { a::g() } pub struct Shared;");
    let (_folder, sources) = crate_of(&[parent, ("a.rs", "pub fn g() { super::Shared; }")]);
    assert_eq!(rings(&sources.uses()).len(), 1, "a parent and its child");

    let (_folder, sources) = crate_of(&[
        ("lib.rs", "mod a; mod b; mod c; pub use a::A;"),
        ("a.rs", "pub struct A(crate::b::B);"),
        ("b.rs", "pub struct B(crate::c::C);"),
        ("c.rs", "pub struct C(Vec<crate::A>);"),
    ]);
    let found = rings(&sources.uses());
    assert_eq!(found.len(), 1, "by a re-export of the parent");
    assert_eq!(found[0].len(), 3);

    let (_folder, sources) = crate_of(&[
        ("lib.rs", "mod a; pub struct It; impl It { fn f(&self) { self.g() } }"),
        ("a.rs", "use super::It; impl It { pub fn g(&self) {} }"),
    ]);
    assert_eq!(rings(&sources.uses()).len(), 1, "by a method");
}

#[test]
fn a_crate_that_belongs_to_one_module_is_named_in_no_other() {
    for (room, path, text) in rooms() {
        for (name, owners) in OWNED.iter().filter(|(_, owners)| !owners.contains(&room.as_str())) {
            assert!(!code(&text).any(|line| line.contains(name)), "{}: {name} belongs to {owners:?}", path.display());
        }
    }
}

#[test]
fn policy_is_not_async_and_does_no_io() {
    for (_, path, text) in rooms().iter().filter(|(room, ..)| room == "policy") {
        for name in NOT_IN_POLICY {
            assert!(!code(text).any(|line| line.contains(name)), "{}: {name}", path.display());
        }
    }
}

#[test]
fn no_file_is_too_long() {
    const LINES_MAX: usize = 600;
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = BTreeSet::new();
    for (path, text) in
        ["node/src", "node/benches", "schemas/src"].iter().flat_map(|folder| sources(&root.join(folder)))
    {
        if text.lines().count() > LINES_MAX {
            found.insert(path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned());
        }
    }
    assert_eq!(found, KNOWN_LONG_FILES.iter().map(|path| (*path).to_owned()).collect(), "of over {LINES_MAX} lines");
}
