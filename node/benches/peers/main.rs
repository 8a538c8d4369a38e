//! Measures the node and comparable programs in one run on one machine, and prints the tables for the documentation.
//!
//! `cargo bench -p bubbaloop-storage --bench peers -- all` installs the programs and the servers under `target`, starts
//! them on loopback, and measures in turns. Only ratios within a run count: a busy machine is busy for all of them.
#![expect(clippy::disallowed_methods, reason = "it makes files, waits and looks at the time on purpose")]
#![expect(clippy::unwrap_used, clippy::panic, reason = "a measurement that can't go on has failed")]
#![expect(clippy::print_stdout, reason = "the tables are what it is for")]

mod bare;
mod bus;
mod latency;
mod others;
mod reconcile;
#[path = "../shared/mod.rs"]
mod shared;
mod start;
#[path = "../../../tests/support/mod.rs"]
#[expect(dead_code, clippy::print_stderr, reason = "the tests use all of it")]
mod support;
mod upload;

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use self::shared::{BUCKET, RAM_DISK, library, measure, node, proxy};
use self::support::{
    http,
    servers::{self, Server},
};

/// What is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum What {
    /// Wall time, CPU and memory of uploads, compared with obstore, s5cmd, rclone and the bare bytes.
    Upload,
    /// Comparison of 10,000 proven chunks with the store; also rclone check and aws s3 sync.
    Reconcile,
    /// A library of 10,000 recordings: start, memory, idle cost, and help and list compared with an empty Zenoh get.
    Start,
    /// Latency from a finalize event to chunk_uploaded, compared with a bare PUT.
    Latency,
    /// All of them.
    All,
    /// Sends files and does nothing else.
    #[value(hide = true)]
    Bare,
    /// Sends empty answers to Zenoh queries.
    #[value(hide = true)]
    Echo,
}

/// The server for uploads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Needs little CPU per byte, so the client's cost is visible.
    S3sFs,
    /// Checks digests and stores objects as a production server does.
    Seaweedfs,
}

impl Kind {
    /// Starts an empty server of this kind, with the bucket `bench`.
    async fn start(self) -> Server {
        let server = match self {
            Self::S3sFs => Server::s3s_fs().await,
            Self::Seaweedfs => Server::own_seaweedfs().await,
        };
        server.bucket(BUCKET).await;
        if self == Self::Seaweedfs {
            warm_up(&server).await;
        }
        server
    }

    fn name(self) -> &'static str {
        match self {
            Self::S3sFs => "s3s-fs",
            Self::Seaweedfs => "SeaweedFS",
        }
    }
}

/// Makes SeaweedFS create a bucket's volumes, for which its first objects wait.
async fn warm_up(server: &Server) {
    for round in 0..WARM_UP_ROUNDS {
        let puts = (0..others::AT_ONCE).map(|number| {
            let url = format!("{}/{BUCKET}/warm/{round}-{number}", server.endpoint);
            async move { http::request("PUT", &url, &[], b"x").await.unwrap().status }
        });
        let answers = puts.collect::<tokio::task::JoinSet<_>>().join_all().await;
        assert!(answers.iter().all(|status| *status == 200), "the server is not ready: {answers:?}");
    }
}

/// How much is measured.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Scale {
    /// A tenth of everything: enough to see that the command works.
    Small,
    /// The size for the tables.
    Full,
}

const WARM_UP_ROUNDS: usize = 8;

#[derive(Debug, Parser)]
struct Arguments {
    /// What is measured.
    #[arg(value_enum, default_value = "all")]
    what: What,
    /// One server only; otherwise uploads go to both, reconcile is measured on SeaweedFS, the rest on s3s-fs.
    #[arg(long, value_enum)]
    server: Option<Kind>,
    /// How much.
    #[arg(long, value_enum, default_value = "full")]
    scale: Scale,
    /// Number of rounds.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only uploads whose name contains this text, for example `64 KiB`.
    #[arg(long)]
    only: Option<String>,
    /// What a child process does.
    #[arg(long, hide = true)]
    spec: Option<PathBuf>,
    /// Cargo passes it.
    #[arg(long, hide = true)]
    bench: bool,
}

impl Arguments {
    fn is_small(&self) -> bool {
        self.scale == Scale::Small
    }

    fn server(&self) -> Kind {
        self.server.unwrap_or(Kind::S3sFs)
    }

    fn scaled(&self, count: usize) -> usize {
        if self.is_small() { (count / 10).max(1) } else { count }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let arguments = Arguments::parse();
    let is = |what: What| arguments.what == what || arguments.what == What::All;
    match (arguments.what, &arguments.spec) {
        (What::Bare, Some(spec)) => return bare::run(spec).await,
        (What::Echo, _) => return bus::echo().await,
        _ => {}
    }
    let ram_disk = PathBuf::from(RAM_DISK);
    if ram_disk.is_dir() {
        servers::keep_in(&ram_disk);
    }
    if is(What::Upload) {
        upload::run(&arguments).await;
    }
    if is(What::Latency) {
        latency::run(&arguments).await;
    }
    if is(What::Reconcile) {
        reconcile::run(&arguments).await;
    }
    if is(What::Start) {
        start::run(&arguments).await;
    }
}
