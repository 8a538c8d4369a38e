//! Comparison of a library of proven chunks with the store.

use bubbaloop_storage_schemas::{Verb, params::Params};

use crate::{
    Arguments, Kind,
    library::{Library, Shape},
    measure::{self, Row},
    node::Node,
    others,
};

const MACHINE: &str = "bench_reconcile";

const CHUNK_BYTES: usize = 1024;

pub(crate) async fn run(arguments: &Arguments) {
    let shape = Shape { recordings: 10, chunks: arguments.scaled(1000), chunk_bytes: CHUNK_BYTES };
    let library = Library::make(MACHINE, shape);
    let count = library.chunks().count();
    // s3s-fs lists no ETags, so manifests there look like those of other writers.
    let kind = arguments.server.unwrap_or(Kind::Seaweedfs);
    let server = kind.start().await;
    let mut node = Node::new(MACHINE, &server, &library, "concurrency = 16\n");
    node.pause();
    let running = node.start().await;
    running.is_ready().await;
    running.resume_until_proven(count).await;
    let mut rows =
        [Row::new("this node's reconcile"), Row::new("rclone check --size-only"), Row::new("aws s3 sync --dryrun")];
    let wanted = Params::default().with("all", true).with("wait", "600s");
    let folder = library.folder.path();
    // The first run writes pending remote manifests.
    running.ask(Verb::Reconcile, &wanted).await;
    for _ in 0..arguments.rounds {
        let reconcile = async {
            let job = running.ask(Verb::Reconcile, &wanted).await;
            assert_eq!(job["state"], "done", "{job}");
            let actions = job["result"]["actions"].as_array().unwrap();
            assert!(actions.is_empty(), "there was something to do: {}", job["result"]["counts"]);
        };
        rows[0].costs.push(running.cost_of(reconcile).await);
        let commands = [others::rclone_check(&server, folder, MACHINE), others::aws_sync(&server, folder, MACHINE)];
        for (mut command, row) in commands.into_iter().zip(&mut rows[1..]) {
            row.costs.push(tokio::task::spawn_blocking(move || measure::run(&mut command)).await.unwrap());
        }
    }
    measure::print_costs(&format!("Reconcile of {count} proven chunks on {}", kind.name()), &rows);
    println!("this node: wall {:.2} of rclone's", rows[0].wall().1 / rows[1].wall().1);
}
