//! Uploads of the same files by each program, in turns, each to an empty server.

use crate::{
    Arguments, Kind, bare,
    library::{Library, Shape},
    measure::{self, Row},
    node::Node,
    others::{self, AT_ONCE},
};

const MACHINE: &str = "bench_upload";

/// Uploads at once by default.
const DEFAULT_AT_ONCE: usize = 4;

/// Who uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Subject {
    Node(usize),
    Bare(usize),
    Obstore,
    S5cmd,
    Rclone,
}

const SUBJECTS: [Subject; 7] = [
    Subject::Node(DEFAULT_AT_ONCE),
    Subject::Node(AT_ONCE),
    Subject::Bare(DEFAULT_AT_ONCE),
    Subject::Bare(AT_ONCE),
    Subject::Obstore,
    Subject::S5cmd,
    Subject::Rclone,
];

impl Subject {
    fn name(self) -> String {
        match self {
            Self::Node(at_once) => format!("this node, {at_once} at once"),
            Self::Bare(at_once) => format!("bare read + SHA-256 + PUT, {at_once} at once"),
            Self::Obstore => format!("obstore with SHA-256, {AT_ONCE} at once"),
            Self::S5cmd => format!("s5cmd, {AT_ONCE} workers"),
            Self::Rclone => format!("rclone, {AT_ONCE} transfers"),
        }
    }

    async fn cost(self, kind: Kind, library: &Library) -> measure::Cost {
        let server = kind.start().await;
        let folder = library.chunk_folder();
        let mut command = match self {
            Self::Node(at_once) => {
                library.reset();
                let mut node = Node::new(MACHINE, &server, library, &format!("concurrency = {at_once}\n"));
                node.pause();
                let running = node.start().await;
                running.is_ready().await;
                return running.cost_of(running.resume_until_proven(library.chunks().count())).await;
            }
            Self::Bare(at_once) => bare::command(&server, library.chunks(), at_once).await,
            Self::Obstore => others::obstore(&server, &folder),
            Self::S5cmd => others::s5cmd(&server, &folder),
            Self::Rclone => others::rclone_copy(&server, &folder),
        };
        tokio::task::spawn_blocking(move || measure::run(&mut command)).await.unwrap()
    }
}

pub(crate) async fn run(arguments: &Arguments) {
    const KIB: usize = 1024;
    const MIB: usize = 1024 * KIB;
    let large = if arguments.is_small() { 256 * MIB } else { 4096 * MIB };
    let workloads = [
        (format!("{} × 9 MiB", arguments.scaled(200)), arguments.scaled(200), 9 * MIB),
        (format!("{} × 64 KiB", arguments.scaled(2000)), arguments.scaled(2000), 64 * KIB),
        (format!("1 × {} MiB", large / MIB), 1, large),
    ];
    let kinds = arguments.server.map_or(vec![Kind::S3sFs, Kind::Seaweedfs], |kind| vec![kind]);
    let is_wanted = |name: &str| arguments.only.as_ref().is_none_or(|only| name.contains(only));
    for (name, chunks, chunk_bytes) in workloads.into_iter().filter(|(name, ..)| is_wanted(name)) {
        let library = Library::make(MACHINE, Shape { recordings: 1, chunks, chunk_bytes });
        // With one upload at a time the setting is the same for all programs.
        let is_meant = |subject: &&Subject| chunks > 1 || !matches!(subject, Subject::Node(16) | Subject::Bare(16));
        let subjects: Vec<_> = SUBJECTS.iter().filter(is_meant).copied().collect();
        for kind in &kinds {
            let mut rows: Vec<_> = subjects.iter().map(|subject| Row::new(subject.name())).collect();
            for _ in 0..arguments.rounds {
                for (subject, row) in subjects.iter().zip(&mut rows) {
                    row.costs.push(subject.cost(*kind, &library).await);
                }
            }
            measure::print_costs(&format!("{name} to {}", kind.name()), &rows);
            print_ratios(&subjects, &rows);
        }
    }
}

/// Prints the node's medians in relation to the others.
fn print_ratios(subjects: &[Subject], rows: &[Row]) {
    let row_of = |wanted| subjects.iter().position(|subject| *subject == wanted).map(|place| &rows[place]);
    let Some(obstore) = row_of(Subject::Obstore) else { return };
    let peers = [Subject::Obstore, Subject::S5cmd, Subject::Rclone].into_iter().filter_map(row_of);
    let fastest = peers.map(|row| row.wall().1).fold(f64::INFINITY, f64::min);
    for at_once in [DEFAULT_AT_ONCE, AT_ONCE] {
        let (Some(node), Some(bare)) = (row_of(Subject::Node(at_once)), row_of(Subject::Bare(at_once))) else {
            continue;
        };
        println!(
            "{} at once: CPU {:.2} of obstore's, {:.2} of the bare one's; wall {:.2} of the fastest peer's, {:.2} of the bare one's",
            at_once,
            node.cpu().1 / obstore.cpu().1,
            node.cpu().1 / bare.cpu().1,
            node.wall().1 / fastest,
            node.wall().1 / bare.wall().1,
        );
    }
}
