//! Adopting files from anywhere on this machine.

use std::{
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use bubbaloop_storage_schemas::reply::JobState;
use serde_json::json;

use super::{
    args::{Asked, Global},
    ask,
    output::{Exit, failed, note, result},
    progress::Bar,
    screen::Screen,
    show::exit_of_code,
    table,
};
use crate::{
    clock::{Clock, SystemClock},
    engine::adopt::{AdoptOptions, Source},
    library::unmanaged::SALVAGE,
    serve::external,
};

/// Tells whether what is to be adopted are paths: several things, or something that is written as a path or a file.
/// A name of the list is neither.
pub(super) fn are_paths(sources: &[String]) -> bool {
    let is_path = |text: &String| {
        let is_salvage = text.starts_with(SALVAGE) && text.matches('/').count() == 1;
        text.contains('/') && !is_salvage || text.ends_with(".mcap") || text.ends_with(".active") || text == "."
    };
    sources.len() > 1 || sources.iter().any(is_path)
}

/// Adopts files into the library of this home, in this process.
pub(super) async fn run(home: &Path, global: &Global, sources: &[String], options: AdoptOptions) -> Exit {
    if matches!(global.machine, Some(Asked::One(_) | Asked::All)) {
        let hint = "run the command on that machine, or ask for a name that its list shows";
        failed("paths are adopted on this machine only", Some(hint));
        return Exit::Usage;
    }
    let source = Source::Paths(sources.iter().map(PathBuf::from).collect());
    let adopted = external::adopt(home, &global.set, source, options, progress(global.json)).await;
    let reply = match adopted {
        Ok(reply) => reply,
        Err(error) => return failed(&error.to_string(), None),
    };
    if let (Some(JobState::Done), Some(recording)) = (reply.row.state.known(), &reply.row.recording) {
        ask::point_at(home, global, recording.as_str()).await;
    }
    let exit = match &reply.row.error {
        None => Exit::Done,
        Some(error) => exit_of_code(error.code),
    };
    let told = json!(reply);
    if global.json {
        result(format_args!("{told:#}"));
    } else if let Some(error) = &reply.row.error {
        failed(&error.message, error.hint.as_deref());
    } else {
        result(format_args!("{}", table::adopted(Screen::of_stdout(), &told)));
    }
    exit
}

/// Between two lines that tell how far it is.
const TELL_EVERY: Duration = Duration::from_secs(1);

/// Shows how far it is: as a bar on a terminal, in lines elsewhere.
fn progress(is_quiet: bool) -> external::OnProgress {
    if let Some(bar) = Bar::begin() {
        return Box::new(move |progress| bar.show("adopt", progress.bytes_done, progress.bytes_total));
    }
    let clock = SystemClock::start();
    let told = Mutex::new(clock.tick());
    Box::new(move |progress| {
        let mut told = told.lock().unwrap_or_else(PoisonError::into_inner);
        if !is_quiet && clock.tick().since(*told) >= TELL_EVERY {
            *told = clock.tick();
            note(format_args!("{}", table::progress(&json!(progress))));
        }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_of_the_list_is_no_path() {
        for (sources, expected) in [
            (&["2026-07-26T12-00-00"][..], false),
            (&["salvage/drive_1"], false),
            (&["bag"], false),
            (&["./bag"], true),
            (&["/mnt/disk/bag"], true),
            (&["drive.mcap"], true),
            (&["x.mcap.active"], true),
            (&["a", "b"], true),
            (&["."], true),
            (&["salvage/../x"], true),
        ] {
            let sources: Vec<_> = sources.iter().map(ToString::to_string).collect();
            assert_eq!(are_paths(&sources), expected, "{sources:?}");
        }
    }
}
