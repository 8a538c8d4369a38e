//! The pages of the documentation are correct: their links lead somewhere, and their tables are those of the code.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Component, Path, PathBuf},
    process::Command,
    sync::Mutex,
};

use bubbaloop_storage::config::{Scope, definitions};
use bubbaloop_storage_schemas::{
    BlockReason, Verb,
    event::{EventKind, Fact},
};

use crate::support::{
    node::BINARY,
    pages::{Page, page, pages, root},
};

/// Compares a table with its expected rows. `BLESS=1` writes them.
fn assert_rows(page: &Page, header: &str, expected: &[Vec<String>]) {
    if page.table(header) == expected {
        return;
    }
    let rows: String = expected.iter().map(|row| format!("| {} |\n", row.join(" | "))).collect();
    if env::var("BLESS").is_ok_and(|bless| bless == "1") {
        // Another test may write another table of the page.
        static WRITES: Mutex<()> = Mutex::new(());
        let _guard = WRITES.lock().unwrap();
        let page = self::page(&page.path);
        let (before, rest) = page.text.split_once(header).unwrap();
        let rule = rest.lines().nth(1).unwrap();
        let after = &rest[rest.find("|\n\n").unwrap() + 2..];
        fs::write(root().join(&page.path), format!("{before}{header}\n{rule}\n{rows}{after}")).unwrap();
        return;
    }
    panic!("{}: run the test with BLESS=1; the table must be\n{header}\n{rows}", page.path.display());
}

fn code(text: &str) -> String {
    format!("`{text}`")
}

/// Resolves `..` without asking the disk.
fn normal(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut path, part| {
        match part {
            Component::ParentDir => {
                path.pop();
            }
            _ => path.push(part),
        }
        path
    })
}

#[test]
fn every_link_leads_to_a_file_and_a_heading() {
    let pages = pages();
    let mut seen = 0;
    for from in &pages {
        for link in from.links().into_iter().filter(|link| !link.starts_with("http")) {
            seen += 1;
            let (file, anchor) = link.split_once('#').map_or((link, None), |(file, anchor)| (file, Some(anchor)));
            let target = match file {
                "" => from.path.clone(),
                _ => normal(&from.path.parent().unwrap().join(file)),
            };
            assert!(root().join(&target).exists(), "{}: {link}", from.path.display());
            if let Some(anchor) = anchor {
                let page = pages.iter().find(|page| page.path == target);
                let anchors = page.unwrap_or_else(|| panic!("{link} is no page")).anchors();
                assert!(anchors.iter().any(|known| known == anchor), "{}: {link}: {anchors:?}", from.path.display());
            }
        }
    }
    assert!(seen > 25, "{seen}");
}

#[test]
fn every_page_is_reached_from_the_readme() {
    let pages = pages();
    let mut found = BTreeSet::from([PathBuf::from("README.md")]);
    loop {
        let links: Vec<_> = pages
            .iter()
            .filter(|page| found.contains(&page.path))
            .flat_map(|page| page.links().into_iter().map(|link| (page.path.parent().unwrap(), link)))
            .map(|(folder, link)| normal(&folder.join(link.split('#').next().unwrap())))
            .collect();
        let known = found.len();
        found.extend(links);
        if found.len() == known {
            break;
        }
    }
    let lost: Vec<_> = pages.iter().map(|page| &page.path).filter(|path| !found.contains(*path)).collect();
    assert_eq!(lost, Vec::<&PathBuf>::new());
}

#[test]
fn the_readme_is_short() {
    const WORDS_MAX: usize = 1500;
    let words = page("README.md").text.split_whitespace().count();
    assert!(words <= WORDS_MAX, "{words}");
}

#[test]
fn the_table_of_settings_is_that_of_the_definitions() {
    let row = |definition: &bubbaloop_storage::config::Definition| {
        let change = match definition.scope {
            Scope::Live => "live",
            Scope::Restart => "restart",
        };
        let default = definition.default.map_or("–".to_owned(), code);
        vec![code(definition.name), default, change.to_owned(), definition.about.trim().to_owned()]
    };
    let expected: Vec<_> = definitions().map(row).collect();
    assert_rows(&page("node/docs/settings.md"), "| setting | default | change | meaning |", &expected);
}

#[test]
fn the_table_of_block_reasons_is_that_of_the_schemas() {
    let row = |reason: &BlockReason| vec![code(reason.code()), reason.meaning().to_owned(), reason.hint().to_owned()];
    let expected: Vec<_> = BlockReason::ALL.iter().map(row).collect();
    let operations = page("node/docs/operations.md");
    assert_rows(&operations, "| `reason` | what has happened | what to do |", &expected);
    for reason in BlockReason::ALL.iter().filter(|reason| reason.leaves_marks_unproven()) {
        let is_told =
            |line: &str| line.starts_with("**") && line.contains(&code(reason.code())) && line.contains("empty");
        assert!(operations.text.lines().any(is_told), "{reason}: the store may come back empty");
    }
}

#[test]
fn the_table_of_verbs_is_that_of_the_schemas() {
    let row = |verb: Verb| {
        let role = serde_json::to_value(verb.role()).unwrap();
        let parameters = verb.parameters().iter().map(|param| param.name).filter(|name| *name != "format");
        let parameters: Vec<_> = parameters.map(code).collect();
        let parameters = if parameters.is_empty() { "–".to_owned() } else { parameters.join(", ") };
        vec![code(verb.name()), role.as_str().unwrap().to_owned(), verb.summary().to_owned(), parameters]
    };
    let expected: Vec<_> = Verb::ALL.into_iter().map(row).collect();
    assert_rows(&page("node/docs/bus.md"), "| verb | role | what it does | parameters |", &expected);
}

#[test]
fn the_table_of_events_is_that_of_the_schema() {
    let row = |kind: &EventKind| vec![code(kind.name), kind.severity.name().to_owned(), kind.summary.to_owned()];
    let expected: Vec<_> = Fact::KINDS.iter().map(row).collect();
    assert_rows(&page("node/docs/bus.md"), "| kind | severity | when it is published |", &expected);
}

#[test]
fn the_table_of_commands_is_that_of_the_help() {
    let output = Command::new(BINARY).arg("--help").output().unwrap();
    let help = String::from_utf8(output.stdout).unwrap();
    let mut rows: Vec<(String, String)> = Vec::new();
    for line in help.split_once("Commands:\n").unwrap().1.lines().take_while(|line| !line.is_empty()) {
        // A long description goes on in lines that are indented more than a name.
        match line.strip_prefix("  ").filter(|line| !line.starts_with(' ')).and_then(|line| line.split_once("  ")) {
            Some((name, about)) => rows.push((name.to_owned(), about.trim().to_owned())),
            None => {
                let about = &mut rows.last_mut().unwrap().1;
                *about = format!("{about} {}", line.trim());
            }
        }
    }
    let rows = rows.into_iter().filter(|(name, _)| name != "help");
    let expected: Vec<_> = rows.map(|(name, about)| vec![code(&name), about]).collect();
    assert!(expected.len() > 15, "{expected:?}");
    assert_rows(&page("node/docs/command_line.md"), "| command | what it does |", &expected);
}

/// Returns the sources below a folder.
fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|ending| ending == "rs") {
            found.push(path);
        }
    }
    found
}

#[test]
fn the_table_of_test_variables_is_complete() {
    const PREFIX: &str = "\"BUBBALOOP_TEST_";
    let mut used = BTreeSet::new();
    for file in
        ["tests", "schemas/tests", "node/src", "node/benches"].iter().flat_map(|name| sources(&root().join(name)))
    {
        let text = fs::read_to_string(file).unwrap();
        let names = text.split(PREFIX).skip(1).filter_map(|rest| rest.split_once('"'));
        used.extend(names.map(|(name, _)| format!("{}{name}", &PREFIX[1..])).filter(|name| !name.ends_with('_')));
    }
    let rows = page("node/docs/testing.md").table("| variable | what it sets |");
    let shown: BTreeSet<_> = rows.iter().map(|row| row[0].trim_matches('`').to_owned()).collect();
    assert_eq!(shown, used);
}

#[test]
fn the_map_of_the_code_names_what_is_there() {
    let architecture = page("node/ARCHITECTURE.md");
    let map = architecture.blocks("").find(|block| block.contains("schemas/")).unwrap();
    for entry in fs::read_dir(root().join("node/src")).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        let module = name.trim_end_matches(".rs");
        let is_named = map.lines().any(|line| line.split([' ', '/', ',']).any(|word| word == module));
        assert!(is_named || ["lib", "main"].contains(&module), "the map does not name {module}");
    }
    // A name with a slash is a path from the root of the repository or from node/src.
    let names = architecture.prose().flat_map(|line| line.split('`').skip(1).step_by(2));
    for name in names.filter(|name| name.contains('/') && !name.contains([' ', '<', '*', ':'])) {
        let is_there = ["", "node", "node/src"].iter().any(|folder| root().join(folder).join(name).exists());
        assert!(is_there, "{name}");
    }
}

#[test]
fn every_decision_has_a_context_a_decision_and_a_consequence() {
    let mut decisions = 0;
    let is_of_a_module =
        |page: &&Page| page.path.starts_with("node/docs/decisions") && !page.path.ends_with("README.md");
    let pages = pages();
    let index = page("node/docs/decisions/README.md");
    for page in pages.iter().filter(is_of_a_module) {
        for section in page.text.split("\n## ").skip(1) {
            let heading = section.lines().next().unwrap();
            let at = ["**Context.** ", "**Decision.** ", "**Consequence.** "].map(|part| section.find(part));
            assert!(at.iter().all(Option::is_some) && at.is_sorted(), "{}: {heading}", page.path.display());
            assert!(index.text.contains(&format!("- [{heading}](")), "the index lacks {heading}");
            decisions += 1;
        }
    }
    assert!(decisions >= 111, "{decisions}");
}
