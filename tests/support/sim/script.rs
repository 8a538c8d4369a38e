//! The script of a simulated machine: what happens in some weeks, and when.

use std::time::Duration;

use fastrand::Rng;

use super::{recorder::OnDisk, weather::Weather};

/// An event in the script.
#[derive(Debug, Clone)]
pub(crate) enum Action {
    /// A recording begins.
    Begin(usize),
    /// A chunk's file gets its final name.
    Finalize(usize, usize),
    /// The recorder writes its manifest.
    Save(usize),
    /// A finalize event of the newest chunk, or of another one, arrives.
    Event(usize, Word),
    /// The recording ends.
    End(usize),
    /// The manifest becomes unreadable until it is written again.
    TearManifest(usize),
    /// The faults of requests change.
    Weather(Weather),
    /// The node loses power, and what it had not written.
    Crash { loses_work: bool },
    /// The node loses power at one of its requests.
    CrashAtRequest(u32),
    /// The node is stopped and started.
    Restart,
    /// The wall clock gets an error of this many seconds.
    Clock(i64),
    /// Journals become unwritable, or writable again.
    Journals { are_blocked: bool },
    /// A person pauses uploads, for a time or until resumed.
    Pause(Option<Duration>),
    /// A person resumes uploads.
    Resume,
    /// A person changes settings.
    Tune(u64),
    /// A person requests the upload of a recording.
    Ask(usize),
    /// A person reconciles a recording.
    Reconcile(usize),
    /// A person restores a recording.
    Restore(usize),
    /// The store loses an object.
    Lose,
    /// The store loses everything.
    LoseAll,
    /// A chunk's file is damaged, removed, or repaired.
    ChangeFile(usize, OnDisk),
}

/// Content of a finalize event.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Word {
    True,
    Old,
    WrongDigest,
    Foreign,
    Garbage,
}

/// Parameters of a run.
#[derive(Debug)]
pub(crate) struct Script {
    pub captures: usize,
    pub actions: Vec<(Duration, Action)>,
}

fn minutes(minutes: u64) -> Duration {
    Duration::from_secs(60 * minutes)
}

/// Returns a script. With `large`, a few chunks are large enough for an upload in parts.
pub(crate) fn write(random: &mut Rng, large: bool) -> Script {
    // Most runs last some weeks, some last months.
    let days = if random.u32(0..20) == 0 { random.u64(60..120) } else { random.u64(5..20) };
    let span_minutes = days * 24 * 60;
    let captures = random.usize(2..6);
    let mut actions = vec![(Duration::ZERO, Action::Weather(Weather::fair()))];
    for capture in 0..captures {
        record(random, capture, span_minutes, large, &mut actions);
    }
    let mut at = minutes(random.u64(0..2 * 24 * 60));
    while at < minutes(span_minutes) {
        let (weather, lasts) = Weather::bad(random);
        actions.push((at, Action::Weather(weather)));
        actions.push((at + lasts, Action::Weather(Weather::fair())));
        at += lasts + minutes(random.u64(1..3 * 24 * 60));
    }
    for _ in 0..span_minutes / (8 * 60) {
        let at = minutes(random.u64(0..span_minutes)) + Duration::from_millis(random.u64(0..60_000));
        happen(random, captures, at, &mut actions);
    }
    actions.sort_by_key(|(at, _)| *at);
    Script { captures, actions }
}

fn record(random: &mut Rng, capture: usize, span: u64, large: bool, actions: &mut Vec<(Duration, Action)>) {
    let mut at = minutes(random.u64(0..span / 2));
    actions.push((at, Action::Begin(capture)));
    let chunks = if large { 3 } else { random.u64(3..25) };
    for _ in 0..chunks {
        // Several come at once, or none for hours.
        at +=
            if random.bool() { Duration::from_secs(random.u64(1..60)) } else { minutes(random.u64(1..span / chunks)) };
        let size = match random.u32(0..10) {
            _ if large => 5 * 1024 * 1024 + random.usize(1..6 * 1024 * 1024),
            0 => random.usize(0..2),
            1 => 300_000,
            _ => random.usize(2..3000),
        };
        actions.push((at, Action::Finalize(capture, size)));
        if random.u32(0..10) < 8 {
            let lag = Duration::from_millis([0, 5, 40, 2_000, 600_000][random.usize(0..5)]);
            actions.push((at + lag, Action::Save(capture)));
        }
        let word = match random.u32(0..20) {
            0 => Word::WrongDigest,
            1 => Word::Foreign,
            2 => Word::Garbage,
            3 => Word::Old,
            _ => Word::True,
        };
        if random.u32(0..10) < 7 {
            actions.push((at + Duration::from_millis(random.u64(0..5000)), Action::Event(capture, word)));
        }
    }
    if random.u32(0..5) > 0 {
        actions.push((at + minutes(random.u64(1..60)), Action::End(capture)));
    }
}

fn happen(random: &mut Rng, captures: usize, at: Duration, actions: &mut Vec<(Duration, Action)>) {
    let capture = random.usize(0..captures);
    let later = at + minutes(random.u64(1..24 * 60));
    let action = match random.u32(0..36) {
        0..4 => Action::Crash { loses_work: random.bool() },
        4..12 => Action::CrashAtRequest(random.u32(0..60)),
        12..15 => Action::Restart,
        15..18 => {
            let wrong_by = [0, 3600, -3600, 86_400 * 3, -86_400 * 40, 86_400 * 2000, -3_000_000_000];
            Action::Clock(wrong_by[random.usize(0..wrong_by.len())])
        }
        18..21 => {
            actions.push((later, Action::Journals { are_blocked: false }));
            Action::Journals { are_blocked: true }
        }
        21 => Action::Pause(Some(minutes(random.u64(1..3000)))),
        22 => {
            actions.push((later, Action::Resume));
            Action::Pause(None)
        }
        23..25 => Action::Tune(random.u64(..)),
        25..27 => Action::Ask(capture),
        27 => Action::Reconcile(capture),
        28..30 => Action::Lose,
        30 if random.u32(0..4) == 0 => Action::LoseAll,
        34..36 => Action::Restore(capture),
        31 => {
            actions.push((later, Action::Save(capture)));
            Action::TearManifest(capture)
        }
        _ => {
            let file = if random.bool() { OnDisk::Damaged } else { OnDisk::Missing };
            if random.bool() {
                actions.push((later, Action::ChangeFile(capture, OnDisk::Intact)));
            }
            Action::ChangeFile(capture, file)
        }
    };
    actions.push((at, action));
}
