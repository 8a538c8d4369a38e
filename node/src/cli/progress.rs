//! How far a job is, on stderr: a bar on a terminal, a line for each change elsewhere.

use std::{
    fmt::Write,
    io::{self, IsTerminal},
    time::Duration,
};

use indicatif::{HumanDuration, ProgressBar, ProgressDrawTarget, ProgressState, ProgressStyle};
use serde_json::Value;

use super::{
    output::note,
    screen::{self, Screen},
    table,
};

/// A name on the bar's line leaves room for the numbers.
const NAME_CHARS_MAX: usize = 24;

/// A terminal that is narrower has a line for the bar and one for the numbers.
const ONE_LINE_MIN: usize = 72;

/// A bar on a terminal. Dropped, it is gone.
pub(super) struct Bar(ProgressBar);

impl Bar {
    /// Begins one; `None` where stderr is no terminal.
    pub(super) fn begin() -> Option<Self> {
        io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
            Self(bar.with_style(style()))
        })
    }

    /// Shows how far something is.
    pub(super) fn show(&self, name: &str, bytes_done: u64, bytes_total: u64) {
        self.0.set_length(bytes_total);
        self.0.set_position(bytes_done);
        self.0.set_prefix(screen::plain(name).chars().take(NAME_CHARS_MAX).collect::<String>());
        self.0.tick();
    }

    /// Writes a line above it.
    pub(super) fn note(&self, line: &str) {
        self.0.println(line);
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// Shows one run of jobs.
pub(super) struct JobBar {
    bar: Option<Bar>,
    is_quiet: bool,
    told: String,
}

impl JobBar {
    /// Begins to show; `is_quiet` where a program reads.
    pub(super) fn begin(is_quiet: bool) -> Self {
        Self { bar: Bar::begin(), is_quiet, told: String::new() }
    }

    /// Tells whether it is drawn, and so wants news soon.
    pub(super) const fn is_drawn(&self) -> bool {
        self.bar.is_some()
    }

    /// Shows how far the jobs are together.
    pub(super) fn show<'a>(&mut self, jobs: impl Iterator<Item = &'a Value> + Clone) {
        let Some(bar) = &self.bar else {
            let lines: Vec<_> = jobs.map(|job| table::job_line(Screen::PIPE, job)).collect();
            return self.tell(lines.join("\n"));
        };
        let sum = |name: &str| jobs.clone().filter_map(|job| job["progress"][name].as_u64()).sum::<u64>();
        let count = jobs.clone().count();
        let names: Vec<_> = jobs.clone().filter_map(|job| job["recording"].as_str()).collect();
        let name = match (count, names.as_slice()) {
            (1, [name]) => (*name).to_owned(),
            (1, _) => "all recordings".into(),
            (count, _) => format!("{count} machines"),
        };
        bar.show(&name, sum("bytes_done"), sum("bytes_total"));
        let blocked = jobs.filter(|job| job["blocked"].is_object()).map(table::blocked).collect::<Vec<_>>().join("\n");
        if blocked != self.told {
            if !blocked.is_empty() {
                bar.note(&blocked);
            }
            self.told = blocked;
        }
    }

    fn tell(&mut self, line: String) {
        if !self.is_quiet && line != self.told {
            note(format_args!("{line}"));
            self.told = line;
        }
    }
}

fn style() -> ProgressStyle {
    let columns = rustix::termios::tcgetwinsize(io::stderr()).map_or(0, |size| usize::from(size.ws_col));
    let template = match columns >= ONE_LINE_MIN {
        true => "{prefix} [{wide_bar}] {bytes}/{total_bytes} {rate} {left}",
        false => "[{wide_bar}] {percent}%\n{bytes}/{total_bytes} {rate} {left}",
    };
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    // Nothing is said of what is not known yet.
    let rate = |state: &ProgressState, out: &mut dyn Write| match state.per_sec() {
        rate if rate >= 1.0 => write!(out, "{}/s", indicatif::HumanBytes(whole(rate))).unwrap_or_default(),
        _ => out.write_str("-").unwrap_or_default(),
    };
    let left = |state: &ProgressState, out: &mut dyn Write| match state.eta() {
        left if left > Duration::ZERO => write!(out, "{:#}", HumanDuration(left)).unwrap_or_default(),
        _ => out.write_str("-").unwrap_or_default(),
    };
    style.with_key("rate", rate).with_key("left", left).progress_chars("=> ")
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a rate is positive and saturates")]
fn whole(rate: f64) -> u64 {
    rate as u64
}
