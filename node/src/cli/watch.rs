//! An answer that is asked for again and again: drawn in place on a terminal, one after the other in a pipe.

use std::{
    io::{self, Write},
    path::Path,
    pin::pin,
    time::Duration,
};

use super::{
    args::{Ask, Global},
    ask::Asker,
    output::{Exit, READER_GONE, result},
    screen::Screen,
    show::{Form, Shown},
};
use crate::clock::{Clock, SystemClock};

/// Between two questions.
const WATCH_EVERY: Duration = Duration::from_secs(2);

/// Asks until `stop`, or until nobody reads.
pub(super) async fn run(home: &Path, global: &Global, ask: &Ask, stop: impl Future<Output = ()>) -> Exit {
    let asker = match Asker::connect(home, global).await {
        Ok(asker) => asker,
        Err(unreached) => return unreached.told(),
    };
    let mut stop = pin!(stop);
    let clock = SystemClock::start();
    let mut frame = None;
    loop {
        let screen = Screen::of_stdout();
        let form = if global.json { Form::JsonLine } else { Form::Text(screen) };
        let shown = tokio::select! {
            shown = asker.answer(global, ask, form) => shown,
            () = &mut stop => return Exit::Done,
        };
        let exit = shown.exit;
        if screen.is_terminal() && !global.json {
            let now = bubbaloop_storage_schemas::Timestamp(clock.wall()).to_rfc3339();
            let now = now.split('.').next().unwrap_or_default().replace('T', " ");
            frame.get_or_insert_with(Frame::begin).draw(screen, &shown, now.trim_end_matches('Z'));
        } else {
            shown.print();
            if !global.json {
                result(format_args!(""));
            }
        }
        tokio::select! {
            () = tokio::time::sleep(WATCH_EVERY) => {}
            () = READER_GONE.notified() => return Exit::Done,
            () = &mut stop => return exit,
        }
    }
}

/// The terminal while something is drawn in place. Dropped, its cursor is back, below what was drawn.
struct Frame;

impl Frame {
    fn begin() -> Self {
        write("\x1b[?25l\x1b[2J");
        Self
    }

    fn draw(&self, screen: Screen, shown: &Shown, now: &str) {
        let mut text = shown.out.join("\n");
        for line in &shown.errors {
            text += &format!("\n{line}");
        }
        let text = format!("{}\n\n{}", text.trim_end(), screen.lines(&format!("as of {now} UTC; Ctrl-C ends it")));
        let lines: Vec<_> = screen.cut(text.trim_start()).lines().map(str::to_owned).collect();
        // Each line wipes what the last frame left behind it, so that nothing flickers.
        write(&format!("\x1b[H{}\x1b[K\x1b[J", lines.join("\x1b[K\n")));
    }
}

impl Drop for Frame {
    fn drop(&mut self) {
        write("\n\x1b[?25h");
    }
}

fn write(text: &str) {
    let mut out = io::stdout().lock();
    // A terminal that went away sends a signal too.
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).ok();
}
