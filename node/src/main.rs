//! The program: one binary, in which the node is `serve` and every other verb asks a node.

use std::process::ExitCode;

fn main() -> ExitCode {
    bubbaloop_storage::cli::run()
}
