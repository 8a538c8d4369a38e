//! The pages of the documentation.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// A page of the documentation.
#[derive(Debug)]
pub(crate) struct Page {
    /// Its path from the root of the repository.
    pub(crate) path: PathBuf,
    pub(crate) text: String,
}

/// Returns the root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Returns one page.
pub(crate) fn page(path: impl Into<PathBuf>) -> Page {
    let path = path.into();
    let text = fs::read_to_string(root().join(&path)).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    Page { path, text }
}

/// Returns all pages, the README first.
pub(crate) fn pages() -> Vec<Page> {
    let mut paths = vec!["README.md".into(), "node/ARCHITECTURE.md".into(), "node/CHANGELOG.md".into()];
    let mut folders = vec![PathBuf::from("node/docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(root().join(&folder)).unwrap() {
            let path = folder.join(entry.unwrap().file_name());
            if root().join(&path).is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == "md") {
                paths.push(path);
            }
        }
    }
    paths[3..].sort();
    paths.into_iter().map(page).collect()
}

impl Page {
    /// Returns the code blocks of a language.
    pub(crate) fn blocks<'a>(&'a self, language: &'a str) -> impl Iterator<Item = &'a str> {
        self.fences().filter(move |(found, _)| *found == language).map(|(_, block)| block)
    }

    /// Returns the code blocks, each with its language.
    fn fences(&self) -> impl Iterator<Item = (&str, &str)> {
        let parts = self.text.split("\n```").skip(1).step_by(2);
        parts.map(|part| part.split_once('\n').unwrap_or((part, "")))
    }

    /// Returns the lines that are in no code block.
    pub(crate) fn prose(&self) -> impl Iterator<Item = &str> {
        self.text.split("\n```").step_by(2).flat_map(str::lines)
    }

    /// Returns the lines that a shell would run: those behind this prompt in the code blocks without a language.
    pub(crate) fn commands<'a>(&'a self, prompt: &'a str) -> impl Iterator<Item = &'a str> {
        self.blocks("").flat_map(str::lines).filter_map(move |line| line.strip_prefix(prompt))
    }

    /// Returns the rows of the table below this header line, each as its cells.
    pub(crate) fn table(&self, header: &str) -> Vec<Vec<String>> {
        let rest =
            self.text.split_once(header).unwrap_or_else(|| panic!("{}: no table {header}", self.path.display())).1;
        let rows = rest.lines().skip(2).take_while(|line| line.starts_with('|'));
        rows.map(|row| row.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
    }

    /// Returns the anchors of its headings, as GitHub makes them.
    pub(crate) fn anchors(&self) -> Vec<String> {
        let headings = self.prose().filter(|line| line.starts_with('#'));
        headings.map(|line| anchor(line.trim_start_matches('#'))).collect()
    }

    /// Returns the targets of its links.
    pub(crate) fn links(&self) -> Vec<&str> {
        let after = self.prose().flat_map(|line| line.split("](").skip(1));
        after.filter_map(|rest| rest.split_once(')')).map(|(target, _)| target).collect()
    }
}

fn anchor(heading: &str) -> String {
    let kept = heading.trim().to_lowercase();
    let kept = kept.chars().filter(|letter| letter.is_alphanumeric() || " -_".contains(*letter));
    kept.map(|letter| if letter == ' ' { '-' } else { letter }).collect()
}
