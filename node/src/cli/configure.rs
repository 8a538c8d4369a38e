//! Settings of this home: looked at, and changed.

use std::{
    io::{self, BufRead, IsTerminal},
    path::Path,
};

use serde_json::json;

use super::{
    args::Global,
    output::{Exit, failed, note, result},
    screen::Screen,
    table,
};
use crate::{
    config::{
        Config, ConfigProblem,
        edit::{self, Change, EditError},
    },
    serve,
};

/// Changes settings; secrets are asked for without being shown.
pub(super) async fn run(home: &Path, changes: &[String]) -> Exit {
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
    let edit = match edit::edit(home, &read) {
        Ok(edit) => edit,
        Err(error @ EditError::Wrong(_)) => {
            failed(&error.to_string(), Some("nothing was changed"));
            return Exit::Usage;
        }
        Err(error) => return failed(&error.to_string(), Some("nothing was changed")),
    };
    let (before, after) = (serve::faults(home, &edit.before).await, serve::faults(home, &edit.after).await);
    let is_new = |problem: &&ConfigProblem| {
        !before
            .problems
            .iter()
            .chain(&before.warnings)
            .any(|known| (&known.key, &known.message) == (&problem.key, &problem.message))
    };
    // The node's own environment may hold a secret that this one lacks.
    let is_set = |key: &str| edit.after.listed.iter().any(|setting| setting.key == key && !setting.value.is_null());
    let (mut passed, refused): (Vec<_>, Vec<_>) = after
        .problems
        .iter()
        .filter(is_new)
        .partition(|problem| edit::is_secret(&problem.key) && !is_set(&problem.key));
    passed.extend(after.warnings.iter().filter(is_new));
    if !refused.is_empty() {
        for problem in refused {
            tell(problem);
        }
        note(format_args!("nothing was changed: settings that need each other are set in one command"));
        return Exit::Failed;
    }
    match edit.write(home) {
        Ok(()) => {
            note(format_args!("set in {}; a node that runs takes it up", home.display()));
            passed.into_iter().for_each(warn);
            Exit::Done
        }
        Err(error) => failed(&error.to_string(), None),
    }
}

fn warn(ConfigProblem { key, source, message, hint }: &ConfigProblem) {
    note(format_args!("warning: {key} ({source}): {message}\nhint: {hint}"));
}

fn tell(ConfigProblem { key, source, message, hint }: &ConfigProblem) {
    failed(&format!("{key} ({source}): {message}"), Some(hint));
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
pub(super) async fn check(home: &Path, global: &Global) -> Exit {
    let config = Config::load(home, &global.set);
    let serve::Faults { problems, warnings } = serve::faults(home, &config).await;
    if global.json {
        result(format_args!(
            "{:#}",
            json!({"settings": config.listed, "config_problems": problems, "warnings": warnings})
        ));
    } else {
        result(format_args!("{}", table::settings(Screen::of_stdout(), &json!(config.listed))));
    }
    problems.iter().for_each(tell);
    warnings.iter().for_each(warn);
    if problems.is_empty() { Exit::Done } else { Exit::Failed }
}
