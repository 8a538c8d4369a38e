//! A node that stops after each of its steps on disk and network, so that it can be killed at any of them.
//!
//! strace sends it SIGSTOP at each system call of a kind: the call is carried out, and then the whole process stands.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// System calls that change what is on disk, or make it durable.
pub(crate) const DISK: &str =
    "fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,ftruncate";

/// The same, and those that send something.
pub(crate) const DISK_AND_NETWORK: &str = "fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,ftruncate,sendto,sendmsg,writev";

const DEADLINE: Duration = Duration::from_secs(120);

/// Between two looks at whether the node stands.
const POLL: Duration = Duration::from_micros(200);

/// Between two looks at whether it is done.
const LOOK: Duration = Duration::from_millis(20);

/// How many of its steps a node took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Went {
    /// It was killed after the wanted one.
    Killed,
    /// It was done before, after so many, and was killed then.
    Done(usize),
}

fn install_strace() {
    static ONCE: Once = Once::new();
    let is_there =
        || Command::new("strace").arg("-V").stdout(Stdio::null()).status().is_ok_and(|status| status.success());
    ONCE.call_once(|| {
        if !is_there() {
            Command::new("apt-get").args(["install", "-y", "-qq", "strace"]).stdout(Stdio::null()).status().ok();
        }
        assert!(is_there(), "strace is needed: install it");
    });
}

/// Runs a program until it has taken `kill_after` steps, or is done, and kills it.
#[expect(clippy::zombie_processes, reason = "it is waited for with waitpid, which tells when it stands, too")]
pub(crate) fn run(
    program: &Path,
    arguments: &[&str],
    log: Stdio,
    calls: &str,
    kill_after: usize,
    is_done: impl FnMut() -> bool,
) -> Went {
    install_strace();
    let mut command = Command::new("strace");
    // The program is our own child, and strace watches it from aside.
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={calls}"));
    command.arg("-e").arg(format!("inject={calls}:signal=SIGSTOP")).arg(program).args(arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    step(&child, kill_after, is_done)
}

fn step(child: &Child, kill_after: usize, mut is_done: impl FnMut() -> bool) -> Went {
    let pid = Pid::from_child(child);
    let (started, mut looked_at, mut steps) = (Instant::now(), Instant::now(), 0);
    loop {
        if started.elapsed() > DEADLINE {
            kill(pid);
            unreachable!("not done in time, after {steps} steps");
        }
        match waitpid(Some(pid), WaitOptions::UNTRACED | WaitOptions::NOHANG).unwrap() {
            Some((_, status)) if status.stopped() => {
                steps += 1;
                if steps == kill_after {
                    kill(pid);
                    return Went::Killed;
                }
                kill_process(pid, Signal::CONT).unwrap();
            }
            Some((_, status)) => unreachable!("it ended by itself after {steps} steps: {status:?}"),
            None => std::thread::sleep(POLL),
        }
        if looked_at.elapsed() > LOOK {
            looked_at = Instant::now();
            if is_done() {
                kill(pid);
                return Went::Done(steps);
            }
        }
    }
}

fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
    // Steps that were on their way may be told before the end.
    while let Some((_, status)) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap() {
        if status.signaled() || status.exited() {
            return;
        }
    }
}
