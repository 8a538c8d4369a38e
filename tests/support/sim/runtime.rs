//! One thread at a time and a clock that jumps to the next timer, so that a run is the same each time.

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

/// Whose turn it is: the runtime's own thread, or the one thread that does its blocking work.
///
/// The blocking thread begins when the runtime has nothing else to do, and the runtime goes on when that thread has done
/// all that was handed to it.
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

    /// Ends the turns: what is left may run.
    pub(crate) fn end(&self) {
        self.state.lock().unwrap().is_over = true;
        self.changed.notify_all();
    }
}

/// A runtime whose time passes only when nothing is left to do. Without turns its blocking threads run as they like.
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

/// Where the simulated machine's clock begins: later than any time that a real file has.
const EPOCH: Duration = Duration::from_secs(2_000_000_000);

/// The runtime's time as ticks, and a wall clock that is set by hand.
#[derive(Debug)]
pub(crate) struct SimClock {
    started: Instant,
    /// By how much the wall clock is wrong, in nanoseconds.
    wrong_by: Mutex<i128>,
}

impl SimClock {
    /// Starts at the runtime's time now.
    pub(crate) fn start() -> Self {
        Self { started: Instant::now(), wrong_by: Mutex::default() }
    }

    /// Returns how long the simulation runs.
    pub(crate) fn passed(&self) -> Duration {
        self.started.elapsed()
    }

    /// Sets the wall clock wrong by so many seconds.
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
