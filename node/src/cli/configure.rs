//! Settings of this home: looked at, and changed.

use std::{
    io::{self, BufRead, IsTerminal},
    path::Path,
};

use serde_json::json;

use super::{Exit, args::Global, failed, note, result, table};
use crate::config::{
    Config,
    edit::{self, Change, EditError},
};

/// Changes settings; secrets are asked for without being shown.
pub(super) fn run(home: &Path, changes: &[String]) -> Exit {
    let mut read = Vec::new();
    for change in changes {
        match read_change(change) {
            Ok(change) => read.push(change),
            Err(message) => {
                failed(&message, Some("write KEY=VALUE, KEY= to remove a setting, or the KEY of a secret alone"));
                return Exit::Usage;
            }
        }
    }
    match edit::change(home, &read) {
        Ok(()) => {
            note(format_args!("set in {}; a node that runs takes it up", home.display()));
            Exit::Done
        }
        Err(error @ EditError::Wrong(_)) => {
            failed(&error.to_string(), Some("nothing was changed"));
            Exit::Usage
        }
        Err(error) => failed(&error.to_string(), Some("nothing was changed")),
    }
}

fn read_change(text: &str) -> Result<Change, String> {
    match text.split_once('=') {
        Some((key, _)) if edit::is_secret(key.trim()) && !text.ends_with('=') => {
            Err(format!("{key} is a secret: on the command line others can see it"))
        }
        Some((key, "")) => Ok((key.trim().to_owned(), None)),
        Some((key, value)) => Ok((key.trim().to_owned(), Some(value.trim().to_owned()))),
        None if edit::is_secret(text) => Ok((text.to_owned(), Some(ask_for(text)?))),
        None => Err(format!("{text} has no value")),
    }
}

/// Asks for a secret: hidden at a terminal, else the next line of stdin.
fn ask_for(key: &str) -> Result<String, String> {
    let answer = if io::stdin().is_terminal() {
        rpassword::prompt_password(format!("{key}: "))
    } else {
        let mut line = String::new();
        io::stdin().lock().read_line(&mut line).map(|_| line)
    };
    let answer = answer.map_err(|error| format!("{key} can't be read: {error}"))?;
    let answer = answer.trim_end_matches(['\r', '\n']);
    if answer.is_empty() { Err(format!("{key} is empty")) } else { Ok(answer.to_owned()) }
}

/// Shows the settings of this home and fails where something is wrong with them.
pub(super) fn check(home: &Path, global: &Global) -> Exit {
    let config = Config::load(home, &global.set);
    if global.json {
        result(format_args!("{:#}", json!({"settings": config.listed, "config_problems": config.problems})));
    } else {
        result(format_args!("{}", table::settings(&json!(config.listed))));
    }
    for problem in &config.problems {
        failed(&format!("{} ({}): {}", problem.key, problem.source, problem.message), Some(&problem.hint));
    }
    if config.problems.is_empty() { Exit::Done } else { Exit::Failed }
}
