//! A runtime with one active thread and a clock that jumps to the next timer, so that a run is reproducible.

use std::{
    sync::{Arc, Condvar, Mutex},
    time::Duration,
};

use bubbaloop_storage::{clock::Clock, policy::Tick};
use bubbaloop_storage_schemas::UnixNs;
use tokio::{
    runtime::{Builder, Runtime},
    time::Instant,
};

/// Which thread may run: the runtime's thread, or the only thread for blocking work.
///
/// The blocking thread runs when the runtime is idle. The runtime continues when that thread has done all its work.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    state: Mutex<Turn>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Turn {
    threads: usize,
    is_blocking: bool,
    is_over: bool,
}

impl Turns {
    fn thread_is_made(&self) -> String {
        self.state.lock().unwrap().threads += 1;
        "blocking".into()
    }

    fn wait_for_turn(&self) {
        let state = self.state.lock().unwrap();
        drop(self.changed.wait_while(state, |turn| !turn.is_blocking && !turn.is_over).unwrap());
    }

    fn thread_has_ended(&self) {
        self.state.lock().unwrap().threads -= 1;
        self.changed.notify_all();
    }

    fn let_blocking_work_be_done(&self) {
        let mut state = self.state.lock().unwrap();
        if state.threads == 0 {
            return;
        }
        state.is_blocking = true;
        self.changed.notify_all();
        state = self.changed.wait_while(state, |turn| turn.threads > 0).unwrap();
        state.is_blocking = false;
    }

    /// Ends the turns: the remaining work may run freely.
    pub(crate) fn end(&self) {
        self.state.lock().unwrap().is_over = true;
        self.changed.notify_all();
    }
}

/// Returns a runtime whose time advances only when it is idle. Without turns its blocking threads run freely.
pub(crate) fn runtime(takes_turns: bool) -> (Runtime, Arc<Turns>) {
    let turns = Arc::new(Turns::default());
    let mut builder = Builder::new_current_thread();
    builder.enable_time().start_paused(true);
    if takes_turns {
        let [made, started, parked, ended] = std::array::from_fn(|_| Arc::clone(&turns));
        builder.max_blocking_threads(1).thread_keep_alive(Duration::ZERO);
        builder.thread_name_fn(move || made.thread_is_made());
        builder.on_thread_start(move || started.wait_for_turn());
        builder.on_thread_park(move || parked.let_blocking_work_be_done());
        builder.on_thread_stop(move || ended.thread_has_ended());
    }
    (builder.build().unwrap(), turns)
}

/// Start time of the simulated clock: later than the times of real files.
const EPOCH: Duration = Duration::from_secs(2_000_000_000);

/// A clock with the runtime's time as ticks, and an adjustable wall clock.
#[derive(Debug)]
pub(crate) struct SimClock {
    started: Instant,
    /// Error of the wall clock, in nanoseconds.
    wrong_by: Mutex<i128>,
}

impl SimClock {
    /// Starts the clock at the runtime's present time.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), wrong_by: Mutex::default() }
    }

    /// Returns the simulated time since the start.
    pub(crate) fn passed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sets the error of the wall clock, in seconds.
    pub(crate) fn set_wrong_by(&self, seconds: i64) {
        *self.wrong_by.lock().unwrap() = i128::from(seconds) * 1_000_000_000;
    }
}

impl Clock for SimClock {
    fn tick(&self) -> Tick {
        Tick(self.passed())
    }

    fn wall(&self) -> UnixNs {
        let right = i128::try_from((EPOCH + self.passed()).as_nanos()).unwrap();
        u64::try_from((right + *self.wrong_by.lock().unwrap()).max(0)).unwrap()
    }
}
