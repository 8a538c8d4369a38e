//! Measures the cost of processes and prints tables.

use std::{
    fs, io,
    process::{Command, Stdio},
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use comfy_table::{CellAlignment, Table, presets};
use rustix::process::{Pid, WaitId, WaitIdOptions};
use serde_json::Value;

/// Interval between two reads of a program's memory.
const LOOK_EVERY: Duration = Duration::from_millis(10);

/// Clock ticks per second in Linux's process files, on every platform.
const TICKS_PER_S: u64 = 100;

/// What something cost.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Cost {
    pub wall: Duration,
    pub cpu: Duration,
    pub peak_mib: f64,
}

/// Returns the CPU time of a process and of the children that it waited for. It is available until the process is
/// reaped.
pub(crate) fn cpu(pid: u32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let fields = text.rsplit_once(')').unwrap().1.split_whitespace();
    // After the name: state is field 3, user time is field 14.
    let ticks: u64 = fields.skip(11).take(4).map(|field| field.parse::<u64>().unwrap()).sum();
    Duration::from_millis(ticks * 1000 / TICKS_PER_S)
}

fn memory_kib(pid: u32, line: &str) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    let found = text.lines().find_map(|found| found.strip_prefix(line)?.strip_prefix(':'))?;
    found.trim().strip_suffix(" kB")?.parse().ok()
}

/// Returns a line of a process's status, in MiB; `None` once the process has ended.
pub(crate) fn memory(pid: u32, line: &str) -> Option<f64> {
    memory_kib(pid, line).map(|kib| kib as f64 / 1024.0)
}

/// Runs a command that must succeed. Returns its cost from start to end.
///
/// A command that prints `{"wall_s", "cpu_s"}` measures itself, without the start of an interpreter.
pub(crate) fn run(command: &mut Command) -> Cost {
    let started = Instant::now();
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
    let mut child = child.unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let pid = child.id();
    let (mut stdout, mut stderr) = (child.stdout.take().unwrap(), child.stderr.take().unwrap());
    let (peak_kib, has_ended) = (AtomicU64::new(0), AtomicBool::new(false));
    let (wall, cpu, output, errors) = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !has_ended.load(Ordering::Relaxed) {
                if let Some(peak) = memory_kib(pid, "VmHWM") {
                    peak_kib.fetch_max(peak, Ordering::Relaxed);
                }
                std::thread::sleep(LOOK_EVERY);
            }
        });
        let output = scope.spawn(move || io::read_to_string(&mut stdout).unwrap());
        let errors = scope.spawn(move || io::read_to_string(&mut stderr).unwrap());
        let id = WaitId::Pid(Pid::from_raw(pid.cast_signed()).unwrap());
        // The CPU time is available until the process is reaped.
        rustix::process::waitid(id, WaitIdOptions::EXITED | WaitIdOptions::NOWAIT).unwrap();
        let spent = (started.elapsed(), cpu(pid));
        has_ended.store(true, Ordering::Relaxed);
        (spent.0, spent.1, output.join().unwrap(), errors.join().unwrap())
    });
    assert!(child.wait().unwrap().success(), "{command:?}: {errors}");
    let told: Value = serde_json::from_str(&output).unwrap_or_default();
    let told = |name: &str, seen| told[name].as_f64().map_or(seen, Duration::from_secs_f64);
    let peak_mib = peak_kib.into_inner() as f64 / 1024.0;
    Cost { wall: told("wall_s", wall), cpu: told("cpu_s", cpu), peak_mib }
}

/// The cost in each round.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub name: String,
    pub costs: Vec<Cost>,
}

/// Returns a percentile.
pub(crate) fn percentile(values: &[f64], hundredths: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let place = (sorted.len() * hundredths).div_ceil(100);
    sorted.get(place.max(1) - 1).copied().unwrap_or(f64::NAN)
}

impl Row {
    pub(crate) fn new(name: impl Into<String>) -> Self {
        Self { name: name.into(), costs: Vec::new() }
    }

    fn of(&self, read: impl Fn(&Cost) -> f64) -> (f64, f64) {
        let values: Vec<_> = self.costs.iter().map(read).collect();
        (percentile(&values, 0), percentile(&values, 50))
    }

    /// Returns minimum and median of the wall time, in seconds.
    pub(crate) fn wall(&self) -> (f64, f64) {
        self.of(|cost| cost.wall.as_secs_f64())
    }

    /// Returns minimum and median of the CPU time, in seconds.
    pub(crate) fn cpu(&self) -> (f64, f64) {
        self.of(|cost| cost.cpu.as_secs_f64())
    }

    fn peak_mib(&self) -> f64 {
        self.costs.iter().map(|cost| cost.peak_mib).fold(0.0, f64::max)
    }
}

/// A table in Markdown; all columns but the first are numbers.
pub(crate) fn table(header: &[&str], rows: Vec<Vec<String>>) -> Table {
    let mut table = Table::new();
    table.load_style(presets::ASCII_MARKDOWN).set_header(header);
    table.add_rows(rows);
    for column in table.column_iter_mut().skip(1) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table
}

/// Prints minimum and median of each cost.
pub(crate) fn print_costs(title: &str, rows: &[Row]) {
    let cells = |row: &Row| {
        let ((wall_min, wall), (cpu_min, cpu)) = (row.wall(), row.cpu());
        let name = row.name.clone();
        vec![
            name,
            format!("{wall_min:.2} / {wall:.2}"),
            format!("{cpu_min:.2} / {cpu:.2}"),
            format!("{:.0}", row.peak_mib()),
        ]
    };
    println!("\n### {title}\n");
    let header = ["", "wall s (min / median)", "client CPU s (min / median)", "peak memory MiB"];
    println!("{}", table(&header, rows.iter().map(cells).collect()));
}

/// Prints p50 and p99 of latencies in milliseconds.
pub(crate) fn print_latencies(title: &str, rows: &[(&str, Vec<f64>)]) {
    let cells = |(name, values): &(&str, Vec<f64>)| {
        let of = |hundredths| format!("{:.2}", percentile(values, hundredths));
        vec![(*name).to_owned(), values.len().to_string(), of(50), of(99)]
    };
    println!("\n### {title}\n");
    println!("{}", table(&["", "samples", "p50 ms", "p99 ms"], rows.iter().map(cells).collect()));
}
