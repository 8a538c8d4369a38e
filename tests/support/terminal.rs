//! A pseudo-terminal with a command.

use std::{
    fs::{File, OpenOptions},
    io::Read,
    os::unix::ffi::OsStrExt,
    path::Path,
    process::{Child, Command, Stdio},
    sync::{Arc, Mutex},
    thread::JoinHandle,
};

use rustix::{
    process::{Pid, Signal},
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Winsize, tcsetwinsize},
};

const ROWS: u16 = 24;

/// Number of scrollback lines.
const SCROLLBACK: usize = 1000;

/// A terminal and the command on it.
pub(crate) struct Terminal {
    child: Child,
    seen: Arc<Mutex<Seen>>,
    reader: Option<JoinHandle<()>>,
}

struct Seen {
    screen: vt100::Parser,
    bytes: Vec<u8>,
}

impl Terminal {
    /// Runs a command on a terminal with this many columns.
    pub(crate) fn run(mut command: Command, columns: u16) -> Self {
        let master = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        grantpt(&master).unwrap();
        unlockpt(&master).unwrap();
        tcsetwinsize(&master, Winsize { ws_row: ROWS, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 }).unwrap();
        let name = ptsname(&master, Vec::new()).unwrap();
        let path = Path::new(std::ffi::OsStr::from_bytes(name.as_bytes()));
        let slave = || Stdio::from(OpenOptions::new().read(true).write(true).open(path).unwrap());
        let child = command.stdin(slave()).stdout(slave()).stderr(slave()).env("TERM", "xterm").spawn().unwrap();
        // Only the command may hold the terminal's other end.
        drop(command);
        let seen =
            Arc::new(Mutex::new(Seen { screen: vt100::Parser::new(ROWS, columns, SCROLLBACK), bytes: Vec::new() }));
        let shared = Arc::clone(&seen);
        let reader = std::thread::spawn(move || {
            let mut master = File::from(master);
            let mut block = [0; 4096];
            while let Ok(count @ 1..) = master.read(&mut block) {
                let mut seen = shared.lock().unwrap();
                seen.screen.process(&block[..count]);
                seen.bytes.extend_from_slice(&block[..count]);
            }
        });
        Self { child, seen, reader: Some(reader) }
    }

    /// Returns the text on the screen.
    pub(crate) fn screen(&self) -> String {
        self.seen.lock().unwrap().screen.screen().contents()
    }

    /// Tells whether the cursor is hidden.
    pub(crate) fn hides_cursor(&self) -> bool {
        self.seen.lock().unwrap().screen.screen().hide_cursor()
    }

    /// Returns how many lines were scrolled out of the screen.
    pub(crate) fn scrolled(&self) -> usize {
        let mut seen = self.seen.lock().unwrap();
        let screen = seen.screen.screen_mut();
        screen.set_scrollback(usize::MAX);
        let lines = screen.scrollback();
        screen.set_scrollback(0);
        lines
    }

    /// Returns all output.
    pub(crate) fn written(&self) -> String {
        String::from_utf8_lossy(&self.seen.lock().unwrap().bytes).into_owned()
    }

    /// Sends Ctrl-C.
    pub(crate) fn interrupt(&self) {
        rustix::process::kill_process(Pid::from_child(&self.child), Signal::INT).unwrap();
    }

    /// Waits for the end and returns the exit code.
    pub(crate) fn end(&mut self) -> i32 {
        let code = self.child.wait().unwrap().code().unwrap();
        self.reader.take().unwrap().join().unwrap();
        code
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        self.child.kill().and_then(|()| self.child.wait()).ok();
    }
}
