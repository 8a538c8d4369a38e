//! Runs a node that stops after each of its steps on disk and network, so that it can be killed at any of them.
//!
//! strace sends SIGSTOP at each system call of the given kinds: the call is carried out, then the whole process stops.

use std::{
    path::Path,
    process::{Child, Command, Stdio},
    sync::Once,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};

/// System calls that change the disk or make changes durable.
pub(crate) const DISK: &str =
    "fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,ftruncate";

/// The same, and those that send data.
pub(crate) const DISK_AND_NETWORK: &str = "fsync,fdatasync,rename,renameat,renameat2,link,linkat,unlink,unlinkat,mkdir,mkdirat,ftruncate,sendto,sendmsg,writev";

const DEADLINE: Duration = Duration::from_secs(120);

/// Between two checks whether the node has stopped.
const POLL: Duration = Duration::from_micros(200);

/// Between two checks whether the node is done.
const LOOK: Duration = Duration::from_millis(20);

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum RunOutcome {
    /// The node was killed after the requested step.
    Killed,
    /// The node was done after this many steps, and was killed then.
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

/// Runs a program until it has made `kill_after` steps, or is done, and kills it.
#[expect(clippy::zombie_processes, reason = "it is waited for with waitpid, which tells when it stands, too")]
pub(crate) fn run(
    program: &Path,
    arguments: &[&str],
    log: Stdio,
    calls: &str,
    kill_after: usize,
    is_done: impl FnMut() -> bool,
) -> RunOutcome {
    install_strace();
    let mut command = Command::new("strace");
    // The program is our own child; strace attaches to it.
    command.args(["-D", "-f", "-qq", "-o", "/dev/null", "-e"]).arg(format!("trace={calls}"));
    command.arg("-e").arg(format!("inject={calls}:signal=SIGSTOP")).arg(program).args(arguments);
    let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(log).spawn().unwrap();
    step(&child, kill_after, is_done)
}

fn step(child: &Child, kill_after: usize, mut is_done: impl FnMut() -> bool) -> RunOutcome {
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
                    return RunOutcome::Killed;
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
                return RunOutcome::Done(steps);
            }
        }
    }
}

fn kill(pid: Pid) {
    kill_process(pid, Signal::KILL).unwrap();
    // Pending stops may be reported before the end.
    while let Some((_, status)) = waitpid(Some(pid), WaitOptions::UNTRACED).unwrap() {
        if status.signaled() || status.exited() {
            return;
        }
    }
}
